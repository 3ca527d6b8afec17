"""InfoGAN's bound against known posteriors, its players, and the networks of appendix C.1."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_gans.infogan import InfoGAN, categorical_information, gaussian_information
from torch import Tensor, nn
from torch.distributions import Normal

from genbench import Batch, ImageSpec
from genbench.model import Optimizers


class Batches:
    """One batch for ever."""

    progress = 0.0

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        return Batch(self.images)


def build(**hparams: object) -> InfoGAN:
    torch.manual_seed(0)
    return InfoGAN(ImageSpec(1, 8), **{"categories": 3, "z_dim": 4, "width": 4, "hidden": 8, "batch_size": 6, **hparams})


def moved(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(before[name], p)}


def test_information_of_a_categorical_code():
    c = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0]])
    # Q says 1/2 of the right class once, 1/8 once: (ln 1/2 + ln 1/8) / 2 + ln 4 = 0
    q = torch.tensor([[1 / 2, 1 / 4, 1 / 8, 1 / 8], [1 / 2, 1 / 4, 1 / 8, 1 / 8]])
    assert categorical_information(q.log() + 3, c).item() == pytest.approx(0, abs=1e-6)
    # knowing nothing is 0 nats, knowing everything is the code's entropy
    assert categorical_information(torch.zeros(2, 4), c).item() == pytest.approx(0, abs=1e-6)
    assert categorical_information(50 * c, c).item() == pytest.approx(math.log(4))
    # sure and wrong is worse than nothing
    assert categorical_information(5 * c.flip(0), c).item() < -3


def test_information_of_continuous_codes():
    mean, logvar, c = (
        torch.tensor([[0.5, -1.0], [0.0, 2.0]]),
        torch.tensor([[0.0, 1.0], [-2.0, 0.5]]),
        torch.tensor([[0.2, 0.4], [-0.7, 1.0]]),
    )
    # E log N(c; mean, var) summed over codes, and H(c) = ln 2 for each of two uniforms on [-1, 1]
    expected = Normal(mean, (logvar / 2).exp()).log_prob(c).sum(1).mean() + 2 * math.log(2)
    assert gaussian_information(mean, logvar, c).item() == pytest.approx(expected.item(), rel=1e-6)
    # one code read off with standard deviation s and an error of one s: ln 2 - 1/2 - ln s - ln(2 pi) / 2
    s = 0.1
    one = gaussian_information(torch.tensor([[0.3]]), torch.tensor([[2 * math.log(s)]]), torch.tensor([[0.3 + s]]))
    assert one.item() == pytest.approx(math.log(2) - 0.5 - math.log(s) - math.log(2 * math.pi) / 2, abs=1e-5)


def test_the_gaussian_bound_is_below_the_mutual_information():
    # c uniform, x = c + N(0, s^2) seen by the best Gaussian Q: L_I <= I(c; x) <= H(x) - H(x|c), and close to it for small s
    torch.manual_seed(0)
    s = 0.02
    c = torch.rand(100_000, 1) * 2 - 1
    bound = gaussian_information(c + s * torch.randn_like(c), torch.full_like(c, 2 * math.log(s)), c).item()
    information = math.log(2) - math.log(s * math.sqrt(2 * math.pi * math.e))  # where the ends of the interval do not matter
    assert bound == pytest.approx(information, abs=0.01)


def test_L_I_is_the_sum_over_codes_and_fix_std_sets_sigma_to_one():
    for fix_std in (False, True):
        model = build(fix_std=fix_std)
        outputs = torch.tensor([[2.0, 0.0, -1.0, 0.3, -0.4, 0.8, -1.5]])  # three logits, two means, two log variances
        model.Q = nn.Sequential(nn.Linear(8, 7))
        nn.init.zeros_(model.Q[0].weight)
        model.Q[0].bias.data.copy_(outputs[0])
        latent = model.latent(5)
        c, x = latent[:, :3], latent[:, 3:5]
        logvar = torch.zeros(5, 2) if fix_std else outputs[:, 5:].expand(5, 2)
        expected = categorical_information(outputs[:, :3].expand(5, 3), c) + gaussian_information(outputs[:, 3:5].expand(5, 2), logvar, x)
        assert model.information(torch.zeros(5, 8), latent).item() == pytest.approx(expected.item(), rel=1e-5)


def test_codes_and_noise_have_their_distributions():
    model = build(categories=4, continuous=2, z_dim=3)
    torch.manual_seed(0)
    latent = model.latent(4000)
    assert latent.shape == (4000, 4 + 2 + 3)
    assert torch.equal(latent[:, :4].sum(1), torch.ones(4000))
    assert set(latent[:, :4].unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(latent[:, :4].mean(0), torch.tensor(0.25), atol=0.03)
    assert latent[:, 4:].abs().max() <= 1
    assert torch.allclose(latent[:, 4:].var(0), torch.tensor(1 / 3), atol=0.03)


def test_Q_moves_with_G_and_the_trunk_with_D():
    model = build()
    optimizers = Optimizers(model.configure_optimizers())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    latent = model.latent(6)
    optimizers["G"].minimize(-model.information(model.trunk(model.G(latent)), latent))
    assert moved(before, model) == {"G", "Q"}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers["D"].minimize(model.D(model.trunk(model.G(latent))).sum())
    assert moved(before, model) == {"trunk", "D"}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.training_step(Batches(torch.rand(6, 1, 8, 8)), optimizers)
    assert moved(before, model) == {"trunk", "D", "G", "Q"}


def test_G_learns_to_tell_its_codes():
    # lambda alone: with a large weight the categorical code can be read off the images after some steps
    model = build(continuous=1, info_weight=10.0, hidden=32, width=8, batch_size=32, lr_D=2e-3, lr_G=2e-3)
    optimizers, batches = Optimizers(model.configure_optimizers()), Batches(torch.rand(32, 1, 8, 8) * 2 - 1)
    first, *_, last = [model.training_step(batches, optimizers)["L_I"].item() for _ in range(60)]
    assert first < 0.5
    assert last > math.log(3)
    with torch.no_grad():
        latent = model.eval().latent(200)
        guesses = model.Q(model.trunk(model.G(latent)))[:, :3].argmax(1)
    assert (guesses == latent[:, :3].argmax(1)).float().mean() > 0.9


def test_the_networks_of_table_1_at_28_pixels():
    model = InfoGAN(ImageSpec(1, 28))
    assert model.G.net[0].in_features == 74
    # G: 74-1024-7x7x128, up-convolutions to 64 and 1; weights without bias before BatchNorm's two vectors
    G = 74 * 1024 + 2 * 1024 + 1024 * 6272 + 2 * 6272 + 128 * 64 * 16 + 2 * 64 + 64 * 16 + 1
    assert sum(p.numel() for p in model.G.parameters()) == G
    trunk = 64 * 16 + 64 + 64 * 128 * 16 + 2 * 128 + 6272 * 1024 + 2 * 1024
    assert sum(p.numel() for p in model.trunk.parameters()) == trunk
    assert sum(p.numel() for p in model.D.parameters()) == 1025
    assert sum(p.numel() for p in model.Q.parameters()) == 1024 * 128 + 2 * 128 + 129 * 14  # 10 logits, 2 means, 2 log variances
    assert {layer.negative_slope for layer in model.modules() if isinstance(layer, nn.LeakyReLU)} == {0.1}
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in model.configure_optimizers().items()}
    assert rates == {"D": 2e-4, "G": 1e-3}
    assert model.info_weight == 1
