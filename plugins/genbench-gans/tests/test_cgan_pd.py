"""cGAN-PD: equation 3 and the conditional BatchNorm by hand, and labels that reach the right rows."""

from __future__ import annotations

import pytest
import torch
from genbench_gans.cgan_pd import CGANPD, ConditionalBatchNorm, ProjectionDiscriminator
from torch import nn

from genbench import Batch, ImageSpec
from genbench.model import Optimizers

IMAGE = ImageSpec(1, 8, num_classes=3)


class Batches:
    """White images of class 2, and what was drawn."""

    def __init__(self, progress: float = 0.0) -> None:
        self.progress, self.drawn = progress, 0

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        self.drawn += 4
        return Batch(torch.ones(4, 1, 8, 8), torch.full((4,), 2))


def tiny(**hparams: object) -> CGANPD:
    torch.manual_seed(0)
    return CGANPD(IMAGE, **{"z_dim": 5, "width_G": 4, "width_D": 4, "batch_size": 4, **hparams})


def test_projection_logits_by_hand():
    # V with rows of length 2 along the axes has sigma = 2, psi's row (0, 3, 4) has sigma = 5
    D = ProjectionDiscriminator(ImageSpec(1, 8, num_classes=2), 3)
    D.phi = nn.Flatten()  # phi(x) = x: three features
    with torch.no_grad():
        D.V.parametrizations.weight.original.copy_(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, -2.0]]))
        D.psi.parametrizations.weight.original.copy_(torch.tensor([[0.0, 3.0, 4.0]]))
        D.psi.bias.fill_(0.25)
    x = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [-1.0, 0.0, 0.5]])
    # y'V phi = 1, -3, 1/2 * -1; psi = 0.6 * 2 + 0.8 * 3 + 0.25 = 3.85 twice, then 0.4 + 0.25
    expected = torch.tensor([1 + 3.85, -3 + 3.85, -0.5 + 0.65])
    assert torch.allclose(D(x, torch.tensor([0, 1, 1])), expected, atol=1e-6)


def test_conditional_batch_norm_by_hand():
    norm = ConditionalBatchNorm(2, 1)
    with torch.no_grad():
        norm.gamma.weight.copy_(torch.tensor([[1.0], [10.0]]))
        norm.beta.weight.copy_(torch.tensor([[0.0], [5.0]]))
    # values 0, 2, 4, 6 have mean 3 and variance 5 over the whole batch, whatever the class
    h = torch.tensor([0.0, 2.0, 4.0, 6.0]).view(2, 1, 1, 2)
    expected = torch.tensor([-3.0, -1.0, 1.0, 3.0]) / (5 + 1e-5) ** 0.5 * torch.tensor([10.0, 10, 1, 1]) + torch.tensor([5.0, 5, 0, 0])
    assert torch.allclose(norm(h, torch.tensor([1, 0])).flatten(), expected, atol=1e-5)
    # in evaluation the running statistics (momentum 0.1, unbiased variance 20/3) take the batch's place
    expected = ((h.flatten() - 0.3) / (0.9 + 2 / 3 + 1e-5) ** 0.5)[:2]
    assert torch.allclose(norm.eval()(h[:1], torch.tensor([0])).flatten(), expected, atol=1e-5)


def test_conditional_batch_norm_starts_as_batch_norm():
    torch.manual_seed(0)
    h = torch.randn(4, 3, 2, 2)
    assert torch.allclose(ConditionalBatchNorm(5, 3)(h, torch.tensor([0, 4, 2, 2])), nn.BatchNorm2d(3)(h), atol=1e-6)


def test_samples_follow_their_labels():
    model = tiny().eval()
    with torch.no_grad():
        for block in model.G.blocks:
            block.norm2.beta.weight[1] = 1.5
    images = {}
    for name, labels in (("0", [0] * 4), ("1", [1] * 4), ("mixed", [0, 1, 0, 1])):
        torch.manual_seed(1)
        with torch.inference_mode():
            images[name] = model.sample(4, torch.tensor(labels))
    assert not torch.allclose(images["0"][0], images["1"][0], atol=1e-3)
    assert torch.allclose(images["mixed"][[0, 2]], images["0"][[0, 2]], atol=1e-6)
    assert torch.allclose(images["mixed"][[1, 3]], images["1"][[1, 3]], atol=1e-6)


def test_D_sees_real_labels_with_real_images_and_drawn_ones_with_fakes():
    model, seen = tiny(n_dis=1), []
    model.D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    z = iter([(torch.randn(4, 5), torch.tensor([0, 1, 0, 1])), (torch.randn(4, 5), torch.tensor([1, 1, 0, 2]))])
    model.latent = lambda n: next(z)
    model.training_step(Batches(), Optimizers(model.configure_optimizers()))
    (x, y), (_, fake_y) = seen
    assert y.tolist() == [2, 2, 2, 2, 0, 1, 0, 1]
    assert (x[:4] == 1).all()
    assert not (x[4:] == 1).any()
    assert fake_y.tolist() == [1, 1, 0, 2]


def test_labels_of_fakes_are_uniform_over_the_classes():
    _, labels = tiny().latent(30_000)
    assert (labels.bincount() / 30_000).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)


def test_a_turn_draws_n_dis_batches_moves_both_players_and_decays_linearly():
    model = tiny(n_dis=2)
    batches, optimizers = Batches(progress=0.5), Optimizers(model.configure_optimizers())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.training_step(batches, optimizers)
    assert batches.drawn == 8
    assert optimizers["G"].lr == optimizers["D"].lr == pytest.approx(1e-4)
    moved = {name for name, p in model.named_parameters() if not torch.equal(before[name], p)}
    assert {"D.V.parametrizations.weight.original", "G.blocks.0.norm1.gamma.weight", "G.output.2.weight"} <= moved


def test_defaults_and_parameters_are_the_published_ones():
    with torch.device("meta"):
        model = CGANPD(ImageSpec(3, 32, num_classes=10))
    # mimicry's cgan_pd_32.py: SNGAN's networks with ten scales and shifts for one in six norms, and ten rows of 128 in D
    assert sum(p.numel() for p in model.G.parameters()) == 4_276_739 + 6 * 9 * 2 * 256 == 4_304_387
    assert sum(p.numel() for p in model.D.parameters()) == 1_053_825 + 10 * 128 == 1_055_105
    assert (model.z_dim, model.batch_size, model.n_dis, model.linear_decay) == (128, 64, 5, True)
    for optimizer in model.configure_optimizers().values():
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"]) == (2e-4, (0.0, 0.9))
