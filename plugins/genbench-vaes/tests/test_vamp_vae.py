"""VAE with a VampPrior: the mixture against torch.distributions, the bound by hand, the published networks."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_vaes.vamp_vae import VampVAE, gated, log_mixture, log_normal
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from genbench import Batch, ImageSpec, Optimizers


class OneBatch:
    """The same images for ever, at one moment of the budget."""

    def __init__(self, images: torch.Tensor, progress: float = 1.0) -> None:
        self.images, self.progress = images, progress

    def __next__(self) -> Batch:
        return Batch(self.images)


def small(**hparams: object) -> VampVAE:
    torch.manual_seed(0)
    return VampVAE(ImageSpec(1, 8), **{"components": 5, "z_dim": 3, "hidden": 16, "pseudo_std": 1.0, **hparams})


def test_mixture() -> None:
    torch.manual_seed(0)
    z, mu, logvar = 3 * torch.randn(7, 4), 2 * torch.randn(5, 4), 2 * torch.randn(5, 4) - 2
    mixture = MixtureSameFamily(Categorical(torch.ones(5)), Independent(Normal(mu, (logvar / 2).exp()), 1))
    torch.testing.assert_close(log_mixture(z, mu, logvar), mixture.log_prob(z))


def test_mixture_by_hand() -> None:
    """Half N(0, 1), half N(4, e^2), at 2: log((e^-2 + e^-1 e^(-2 / e^2)) / 2 sqrt(2 pi))."""
    found = log_mixture(torch.tensor([[2.0]]), torch.tensor([[0.0], [4.0]]), torch.tensor([[0.0], [2.0]]))
    expected = math.log((math.exp(-2) + math.exp(-1 - 2 / math.e**2)) / 2 / math.sqrt(2 * math.pi))
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_one_pseudo_input_is_one_gaussian() -> None:
    torch.manual_seed(0)
    z, mu, logvar = torch.randn(7, 4), torch.randn(1, 4), torch.randn(1, 4)
    torch.testing.assert_close(log_mixture(z, mu, logvar), log_normal(z, mu, logvar))
    torch.testing.assert_close(log_normal(z, mu, logvar), Independent(Normal(mu, (logvar / 2).exp()), 1).log_prob(z))


def test_mixture_keeps_float32_accuracy_far_from_the_origin() -> None:
    """Tight components far away: the expanded square loses all digits in float32."""
    z, mu, logvar = torch.full((1, 40), 30.01), torch.full((500, 40), 30.0), torch.full((500, 40), -6.0)
    torch.testing.assert_close(log_mixture(z, mu, logvar), log_normal(z, mu[:1], logvar[:1]), atol=1e-2, rtol=0)


def test_bound_by_hand() -> None:
    """One step's losses from the networks' outputs and the same noise, with the warm-up's weight at half its way."""
    model = small(warmup=0.5)
    images = torch.rand(6, 1, 8, 8) * 2 - 1
    torch.manual_seed(3)
    mu, logvar = model.posterior(images)
    q = Independent(Normal(mu, (logvar / 2).exp()), 1)
    z = mu + (logvar / 2).exp() * torch.randn(6, 3)
    mu_u, logvar_u = model.posterior(2 * model.u.clamp(0, 1) - 1)
    p = MixtureSameFamily(Categorical(torch.ones(5)), Independent(Normal(mu_u, (logvar_u / 2).exp()), 1))
    pixels = (images + 1) / 2
    o = model.decoder(z).sigmoid()
    reconstruction = -(pixels * o.log() + (1 - pixels) * (1 - o).log()).sum((1, 2, 3)).mean()
    kl = (q.log_prob(z) - p.log_prob(z)).mean()
    torch.manual_seed(3)
    losses = model.training_step(OneBatch(images, progress=0.25), Optimizers(model.configure_optimizers()))
    expected = {"loss": reconstruction + 0.5 * kl, "reconstruction": reconstruction, "kl": kl}
    torch.testing.assert_close(dict(losses), {name: value.detach() for name, value in expected.items()}, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("warmup", "progress", "beta"), [(0.2, 0.0, 0.0), (0.2, 0.1, 0.5), (0.2, 0.7, 1.0), (0.0, 0.0, 1.0)])
def test_warm_up(warmup: float, progress: float, beta: float) -> None:
    model = small(warmup=warmup)
    losses = model.training_step(OneBatch(torch.rand(4, 1, 8, 8), progress), Optimizers(model.configure_optimizers()))
    assert float(losses["loss"]) == pytest.approx(float(losses["reconstruction"] + beta * losses["kl"]), rel=1e-6)


def test_the_mixture_learns_through_its_pseudo_inputs() -> None:
    model = small(warmup=0.0)
    before = model.u.detach().clone()
    model.training_step(OneBatch(torch.rand(4, 1, 8, 8)), Optimizers(model.configure_optimizers()))
    inside = (before > 0) & (before < 1)  # the release clips to [0, 1]: no gradient outside
    assert inside.any()
    assert not inside.all()
    assert torch.equal(model.u.detach() != before, inside)


def test_weights_are_those_of_the_bound() -> None:
    """Their mean is the ELBO under the VampPrior, not under N(0, I); the bounds of k = 1, 5, 50 are ordered."""
    model = small(likelihood="gaussian", sigma=1.0).eval()
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    with torch.inference_mode():
        weights = model.log_weights(images, 4000)
        mu, logvar = model.posterior(images)
        mu_u, logvar_u = model.posterior(model.pseudo_inputs())
        q = Independent(Normal(mu, (logvar / 2).exp()), 1)
        p = MixtureSameFamily(Categorical(torch.ones(5)), Independent(Normal(mu_u, (logvar_u / 2).exp()), 1))
        z = q.sample((4000,))
        x = Independent(Normal(model.decode(z.flatten(0, 1)), 1.0), 3)
        elbo = x.log_prob(images.repeat(4000, 1, 1, 1)).unflatten(0, (4000, 3)) + p.log_prob(z) - q.log_prob(z)
    assert weights.shape == (4000, 3)
    error = float((weights.std(0) + elbo.std(0)).max()) / math.sqrt(4000)
    torch.testing.assert_close(weights.mean(0), elbo.mean(0), atol=5 * error, rtol=0)
    bounds = [(weights.unflatten(0, (-1, k)).logsumexp(1) - math.log(k)).mean() for k in (1, 5, 50)]
    assert bounds[0] < bounds[1] < bounds[2]


def test_samples_come_from_the_mixture() -> None:
    """Two far components of known images: half of the samples decode near either."""
    model = small(components=2, z_dim=1).eval()
    model.posterior = lambda images: (20 * images.flatten(1).mean(1, keepdim=True), torch.full((len(images), 1), -6.0))
    model.decode = lambda z: z.view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    with torch.no_grad():
        model.u[0], model.u[1] = 0.0, 1.0
    z = model.sample(4000)[:, 0, 0, 0]
    assert torch.all((z.abs() - 20).abs() < 1)
    assert float((z > 0).float().mean()) == pytest.approx(0.5, abs=0.04)


def test_gated_layer() -> None:
    torch.manual_seed(0)
    layer, a = gated(3, 2), torch.randn(5, 3)
    (W, V), (b, c) = layer[0].weight.chunk(2), layer[0].bias.chunk(2)
    torch.testing.assert_close(layer(a), (a @ W.T + b) * torch.sigmoid(a @ V.T + c))


def test_published_set_up() -> None:
    """Section 5: 300 gated units twice a side, 40 latents, 500 pseudo-inputs of 28 x 28."""
    model = VampVAE(ImageSpec(1, 28))
    d, h, m = 784, 300, 40
    encoder = 2 * (d + 1) * h + 2 * (h + 1) * h + 2 * (h + 1) * m
    decoder = 2 * (m + 1) * h + 2 * (h + 1) * h + (h + 1) * d
    assert sum(p.numel() for p in model.parameters()) == encoder + decoder + 500 * d
    assert model.u.shape == (500, 1, 28, 28)
    assert model.prior == "VampPrior(500)"
    assert sum(isinstance(m, nn.GLU) for m in model.modules()) == 4
