"""The mixture against torch.distributions, closed forms and a mixture that is known; what conv-vae and its bounds make of it."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_vaes.conv_vae import ConvVAE
from genbench_vaes.prior import RIDGE, LatentGMM
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from genbench import Batch, ImageSpec, Optimizers

PI = torch.tensor([0.2, 0.3, 0.5])
MU = torch.tensor([[0.0, 0.0], [9.0, -2.0], [-7.0, 8.0]])
SIGMA = torch.tensor([[[1.0, 0.6], [0.6, 0.5]], [[0.3, 0.0], [0.0, 1.2]], [[0.8, -0.5], [-0.5, 0.9]]])


def known() -> LatentGMM:
    mixture = LatentGMM(2, 3, capacity=8)
    mixture.pi.copy_(PI)
    mixture.mu.copy_(MU)
    mixture.Sigma.copy_(SIGMA)
    return mixture


def reference() -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(PI), MultivariateNormal(MU, SIGMA))


def test_density() -> None:
    torch.manual_seed(0)
    z = 4 * torch.randn(50, 2)
    torch.testing.assert_close(known().log_prob(z), reference().log_prob(z), rtol=1e-4, atol=1e-4)
    # N(0, I) until it is fitted
    torch.testing.assert_close(LatentGMM(2, 5).log_prob(z), Normal(0.0, 1.0).log_prob(z).sum(1))


def test_samples() -> None:
    torch.manual_seed(0)
    z = known().sample(60_000)
    nearest = torch.cdist(z, MU).argmin(1)
    for k in range(3):
        own = z[nearest == k]
        assert len(own) / len(z) == pytest.approx(float(PI[k]), abs=0.01)
        torch.testing.assert_close(own.mean(0), MU[k], atol=0.03, rtol=0)
        torch.testing.assert_close(own.T.cov(), SIGMA[k], atol=0.04, rtol=0)


def test_recovers_a_known_mixture() -> None:
    """Fed in small batches with a sweep each, it ends where the mixture is that the latents came from."""
    torch.manual_seed(1)
    mixture = LatentGMM(2, 3, capacity=4096)
    z = reference().sample((4096,))
    for batch in (*z.split(64), *z.split(64)[:10]):
        mixture.fit(batch)
    order = [int(torch.cdist(mixture.mu, MU)[:, k].argmin()) for k in range(3)]
    torch.testing.assert_close(mixture.pi[order], PI, atol=0.03, rtol=0)
    torch.testing.assert_close(mixture.mu[order], MU, atol=0.1, rtol=0)
    torch.testing.assert_close(mixture.Sigma[order], SIGMA, atol=0.12, rtol=0)


def test_likelihood_never_falls() -> None:
    """EM's promise, on a ring that stands still, from a random start."""
    torch.manual_seed(0)
    z = torch.randn(500, 3) @ torch.randn(3, 3) + torch.randint(0, 3, (500, 1)) * torch.tensor([3.0, -1.0, 2.0])
    mixture = LatentGMM(3, 4, capacity=500)
    mixture.push(z)
    mixture.start(z)
    said = torch.stack([mixture.sweep(mixture.ring) for _ in range(60)])
    assert float(said.diff().min()) > -1e-4
    assert said[-1] > said[0] + 0.1
    torch.testing.assert_close(mixture.pi.sum(), torch.tensor(1.0))


def test_one_sweep_by_hand() -> None:
    """Bishop, eq. 9.23 to 9.27, latent by latent in float64; the answer is the likelihood before the sweep."""
    torch.manual_seed(0)
    z, mixture = 4 * torch.randn(7, 2), known()
    gamma = torch.stack([PI[k].log() + MultivariateNormal(MU[k].double(), SIGMA[k].double()).log_prob(z.double()) for k in range(3)])
    likelihood = gamma.logsumexp(0).mean()
    gamma = gamma.softmax(0)
    said = mixture.sweep(z)
    assert float(said) == pytest.approx(float(likelihood), abs=1e-4)
    ridge = RIDGE * (z - z.mean(0)).square().mean()
    for k in range(3):
        n = gamma[k].sum()
        mu = sum(gamma[k, i] * z[i].double() for i in range(7)) / n
        Sigma = sum(gamma[k, i] * torch.outer(z[i] - mu, z[i] - mu) for i in range(7)) / n + ridge * torch.eye(2)
        torch.testing.assert_close(mixture.pi[k].double(), n / 7, atol=1e-4, rtol=0)
        torch.testing.assert_close(mixture.mu[k].double(), mu, atol=1e-4, rtol=0)
        torch.testing.assert_close(mixture.Sigma[k].double(), Sigma, atol=1e-3, rtol=0)


def test_ring_keeps_the_latest() -> None:
    mixture = LatentGMM(1, 1, capacity=5)
    z = torch.arange(9.0).view(9, 1)
    for batch in z.split(3)[:2]:
        mixture.push(batch)
    assert mixture.ring.flatten().tolist() == [5.0, 1.0, 2.0, 3.0, 4.0]
    mixture.push(z[6:])
    assert sorted(mixture.ring.flatten().tolist()) == [4.0, 5.0, 6.0, 7.0, 8.0]
    mixture.push(torch.arange(20.0, 32.0).view(12, 1))  # more than it holds
    assert sorted(mixture.ring.flatten().tolist()) == [27.0, 28.0, 29.0, 30.0, 31.0]


def test_starts_anew_while_the_ring_fills() -> None:
    torch.manual_seed(0)
    mixture, starts = LatentGMM(2, 2, capacity=10), []
    for _ in range(8):
        mixture.fit(torch.randn(2, 2))
        starts.append(mixture.started_from)
    assert starts == [2, 4, 4, 8, 10, 10, 10, 10]


def test_state_goes_on() -> None:
    """A mixture that loads the state of another goes on as that one would have: counts included."""
    torch.manual_seed(0)
    z = torch.randn(6, 8, 3)
    one = LatentGMM(3, 2, capacity=20)
    for batch in z[:3]:
        one.fit(batch)
    other = LatentGMM(3, 2, capacity=20)
    other.load_state_dict(one.state_dict())
    for batch in z[3:]:
        one.fit(batch)
        other.fit(batch)
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))
    assert one.get_extra_state() == other.get_extra_state() == {"seen": 48, "started_from": 20}


@pytest.mark.parametrize(("n", "columns", "scales"), [(40, 3, (0, 0, 0)), (40, 1, (1, 0, 100)), (3, 3, (1, 1, 1))])
def test_flat_or_few_latents(n: int, columns: int, scales: tuple[int, ...]) -> None:
    z = torch.randn(n, columns) * torch.tensor(scales)
    mixture = LatentGMM(3, 8, capacity=64)
    for _ in range(30):
        said = mixture.fit(z)
    assert said.isfinite()
    assert mixture.sample(50).isfinite().all()


def test_float32_under_autocast() -> None:
    torch.manual_seed(0)
    z, mixtures = torch.randn(64, 4), []
    for enabled in (True, False):
        torch.manual_seed(1)
        mixture = LatentGMM(4, 3, capacity=64)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            mixture.fit(z)
            assert mixture.log_prob(z).dtype == mixture.sample(3).dtype == torch.float32
        mixtures.append(mixture)
    assert torch.equal(mixtures[0].Sigma, mixtures[1].Sigma)


class Progress:
    """The same images for ever, at one share of the budget."""

    def __init__(self, images: Tensor, progress: float) -> None:
        self.images, self.progress = images, progress

    def __next__(self) -> Batch:
        return Batch(self.images)


def test_conv_vae_fits_it_last() -> None:
    """Until `prior_share` is left the VAE learns; then it stands still, batch statistics included, and the mixture learns."""
    torch.manual_seed(0)
    model = ConvVAE(ImageSpec(1, 8), z_dim=3, width=4, prior="gmm", components=2, prior_share=0.25)
    assert model.prior == "GMM(2)"
    optimizers, images = Optimizers(model.configure_optimizers()), torch.rand(16, 1, 8, 8) * 2 - 1
    assert "kl" in model.training_step(Progress(images, 0.74), optimizers)
    before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    assert model.mixture is not None
    assert not before["mixture.ring"].any()
    for _ in range(3):
        scalars = model.training_step(Progress(images, 0.75), optimizers)
    assert set(scalars) == {"log_prior"}
    assert model.training
    assert model.encoder.training
    changed = {name for name, value in before.items() if not torch.equal(value, model.state_dict()[name])}
    assert changed == {"mixture.ring", "mixture.pi", "mixture.mu", "mixture.Sigma"}
    # latents are draws of q(z|x), not its means: their spread is that of the aggregate posterior
    assert model.mixture.seen == 48
    assert not torch.equal(model.mixture.ring[:16], model.mixture.ring[16:32])


def test_conv_vae_alone_is_as_before() -> None:
    model = ConvVAE(ImageSpec(1, 8), z_dim=3, width=4)
    assert model.prior == "N(0, I)"
    assert not any("mixture" in name for name in model.state_dict())
    scalars = model.training_step(Progress(torch.rand(4, 1, 8, 8) * 2 - 1, 1.0), Optimizers(model.configure_optimizers()))
    assert "kl" in scalars


def test_weights_of_the_mixture() -> None:
    """log p(x, z) / q(z|x) has the mixture for p(z): the same draws of z differ by log p(z) - log N(z; 0, I)."""
    torch.manual_seed(0)
    normal = ConvVAE(ImageSpec(1, 8), z_dim=2, width=4).eval()
    model = ConvVAE(ImageSpec(1, 8), z_dim=2, width=4, prior="gmm", components=3).eval()
    model.load_state_dict({**model.state_dict(), **normal.state_dict()})
    images, weights = torch.rand(5, 1, 8, 8) * 2 - 1, []
    mu, logvar = normal.posterior(images)
    with torch.no_grad():
        for fitted in (False, True):
            if fitted:
                model.mixture.load_state_dict({**model.mixture.state_dict(), "pi": PI, "mu": MU, "Sigma": SIGMA})
            for either in (normal, model):
                torch.manual_seed(3)
                weights.append(either.log_weights(images, 2))
        torch.manual_seed(3)
        z = torch.stack([mu + (logvar / 2).exp() * torch.randn_like(mu) for _ in range(2)])
    torch.testing.assert_close(weights[0], weights[1])  # N(0, I) until it is fitted
    expected = reference().log_prob(z) + 0.5 * z.square().sum(2) + math.log(2 * math.pi)
    torch.testing.assert_close(weights[3] - weights[2], expected, atol=1e-3, rtol=1e-4)
