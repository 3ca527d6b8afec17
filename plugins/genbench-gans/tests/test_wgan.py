"""WGAN against Algorithm 1."""

from __future__ import annotations

import pytest
import torch
from genbench_gans.wgan import WGAN, score_difference
from torch import Tensor, nn

from genbench import Batch, ImageSpec
from genbench.model import Optimizers


class Batches:
    """The same batch again and again; counts the draws."""

    progress = 0.0

    def __init__(self, images: Tensor) -> None:
        self.images, self.draws = images, 0

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        self.draws += 1
        return Batch(self.images)


def build(**hparams: object) -> WGAN:
    torch.manual_seed(0)
    return WGAN(ImageSpec(1, 8), **{"z_dim": 4, "width": 4, "batch_size": 6, **hparams})


def test_score_difference_of_given_scores():
    assert score_difference(torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 2.0, 5.0])).item() == 0.0
    assert score_difference(torch.tensor([3.0, 2.0]), torch.tensor([-1.0, 2.0, 2.0])).item() == pytest.approx(1.5)


def test_a_turn_draws_n_critic_batches_and_steps_G_once():
    model, batches = build(), Batches(torch.rand(6, 1, 8, 8))
    optimizers = Optimizers(model.configure_optimizers())
    model.training_step(batches, optimizers)
    assert batches.draws == 5
    assert [int(next(iter(optimizers[name].torch.state.values()))["step"]) for name in ("D", "G")] == [5, 1]


def test_every_weight_of_the_critic_is_in_the_box_after_a_turn_and_G_is_not_clipped():
    model = build(clip=0.02, lr=1e-3)
    model.training_step(Batches(torch.rand(6, 1, 8, 8)), Optimizers(model.configure_optimizers()))
    assert all(w.abs().max() <= 0.02 + 1e-8 for w in model.D.parameters())
    # BatchNorm's scales started at 1; the box is used to its walls
    assert any(isinstance(layer, nn.BatchNorm2d) and layer.weight.abs().max() >= 0.0199 for layer in model.D.modules())
    assert max(w.abs().max() for w in model.G.parameters()) > 0.5


def test_the_critic_ascends_and_G_follows_it():
    # a linear critic against a G that is held at 0: real images are bright on the left, and every weight runs into its wall
    model = build(n_critic=60, lr=1e-3)
    model.D = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Flatten(0))
    nn.init.zeros_(model.G.output[0].weight)
    real = torch.zeros(6, 1, 8, 8)
    real[:, :, :, :4], real[:, :, :, 4:] = 1.0, -0.5
    scalars = model.training_step(Batches(real), Optimizers(model.configure_optimizers()))
    w = model.D[1].weight.detach().view(8, 8)
    assert torch.allclose(w[:, :4], torch.tensor(0.01))
    assert torch.allclose(w[:, 4:], torch.tensor(-0.01))
    # the largest E f(x) - E f(0) in the box: c * sum |x|
    assert scalars["wasserstein"].item() == pytest.approx(0.01 * (32 * 1.0 + 32 * 0.5), rel=1e-5)
    # -E f(g(z)) was 0 before G's step; after it G is bright where the critic's weights are positive
    assert scalars["loss_G"].item() == pytest.approx(0, abs=1e-7)
    with torch.no_grad():
        assert model.D(model.sample(64)).mean() > 0


def test_defaults_are_algorithm_1s():
    model = WGAN(ImageSpec(3, 64))
    assert (model.clip, model.n_critic, model.batch_size) == (0.01, 5, 64)
    # models/dcgan.py of the authors' release at imageSize 64, nz 100, ngf = ndf = 64: DCGAN's networks
    assert sum(p.numel() for p in model.G.parameters()) == 3_576_704
    assert sum(p.numel() for p in model.D.parameters()) == 2_765_568
    for optimizer in model.configure_optimizers().values():
        assert isinstance(optimizer, torch.optim.RMSprop)
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]) == (5e-5, 0)
