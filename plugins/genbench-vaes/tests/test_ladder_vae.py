"""Ladder VAE: the merge, the divergences and the bound by hand and against torch.distributions; the published networks."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_vaes.ladder_vae import LadderVAE, gaussian, kl_divergence, log_normal, merge
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as exact_kl

from genbench import Batch, ImageSpec, Optimizers


class OneBatch:
    """The same images for ever, at one moment of the budget."""

    def __init__(self, images: Tensor, progress: float = 1.0) -> None:
        self.images, self.progress = images, progress

    def __next__(self) -> Batch:
        return Batch(self.images)


def normal(p: tuple[Tensor, Tensor]) -> Independent:
    return Independent(Normal(p[0], (p[1] / 2).exp()), 1)


def small(**hparams: object) -> LadderVAE:
    """Three layers whose posteriors are away from their priors, as trained ones are."""
    torch.manual_seed(0)
    model = LadderVAE(ImageSpec(1, 8), **{"latents": "4,3,2", "hidden": "16,12,8", **hparams})
    for head in model.likelihoods:
        nn.init.normal_(head.bias, 0.0, 1.0)
    return model


def test_merge_by_hand() -> None:
    """Variances 1 and 1/3, precisions 1 and 3: variance 1/4, mean (1 * 2 + 3 * -2) / 4 = -1."""
    mu, logvar = merge((torch.tensor([[2.0]]), torch.zeros(1, 1)), (torch.tensor([[-2.0]]), torch.tensor([[-math.log(3)]])))
    torch.testing.assert_close(mu, torch.tensor([[-1.0]]))
    torch.testing.assert_close(logvar, torch.tensor([[-math.log(4)]]))


def test_merge_is_the_product_of_densities() -> None:
    torch.manual_seed(0)
    a, b = ((torch.randn(5, 3), torch.randn(5, 3)) for _ in range(2))
    z = torch.randn(2, 5, 3)
    product = normal(a).log_prob(z) + normal(b).log_prob(z)
    merged = normal(merge(a, b)).log_prob(z)
    torch.testing.assert_close(product[0] - product[1], merged[0] - merged[1])  # equal up to the normaliser
    torch.testing.assert_close(merge(a, b), merge(b, a))
    # one without precision says nothing
    torch.testing.assert_close(merge(a, (b[0], torch.full((5, 3), 80.0))), a)


def test_divergence() -> None:
    torch.manual_seed(0)
    q, p = ((torch.randn(5, 3), torch.randn(5, 3)) for _ in range(2))
    torch.testing.assert_close(kl_divergence(q, p), exact_kl(normal(q), normal(p)))
    z = torch.randn(5, 3)
    torch.testing.assert_close(log_normal(z, q) - 1.5 * math.log(2 * math.pi), normal(q).log_prob(z))


def test_softplus_variances() -> None:
    mu, logvar = gaussian(torch.tensor([[1.5, 0.0], [-2.0, -200.0]]))
    torch.testing.assert_close(mu, torch.tensor([[1.5], [-2.0]]))
    torch.testing.assert_close(logvar.exp(), torch.tensor([[math.log(2) + 1e-6], [1e-6]]))


def test_inference_by_hand() -> None:
    """The posterior of the top is its likelihood; those below are merged with the prior at the sample above."""
    model = small().eval()
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    hats = model.upward(images)
    d = (images.flatten(1) + 1) / 2
    for i in range(3):
        d = model.bottom_up[i](d)
        raw_mu, raw_variance = model.likelihoods[i](d).chunk(2, dim=1)
        torch.testing.assert_close(hats[i], (raw_mu, torch.log(nn.functional.softplus(raw_variance) + 1e-6)))
    (z1, q1, p1), (z2, q2, p2), (z3, q3, p3) = model.downward(hats)
    assert [z.shape[1] for z in (z1, z2, z3)] == [4, 3, 2]
    torch.testing.assert_close(q3, hats[2])
    assert not p3[0].any()
    assert not p3[1].any()
    torch.testing.assert_close(p2, gaussian(model.priors[1](z3)))
    torch.testing.assert_close(p1, gaussian(model.priors[0](z2)))
    for (mu, logvar), hat, p in ((q2, hats[1], p2), (q1, hats[0], p1)):
        variance = 1 / (1 / hat[1].exp() + 1 / p[1].exp())
        torch.testing.assert_close(logvar.exp(), variance)
        torch.testing.assert_close(mu, variance * (hat[0] / hat[1].exp() + p[0] / p[1].exp()))


def test_bound_by_hand() -> None:
    """Losses of one step from its own layers, with the warm-up's weight at half its way; the parts add up."""
    model = small(warmup=0.5, likelihood="gaussian", sigma=0.5)
    images = torch.rand(6, 1, 8, 8) * 2 - 1
    torch.manual_seed(3)
    layers = model.downward(model.upward(images))
    kls = [exact_kl(normal(q), normal(p)).mean() for _, q, p in layers]
    mean = torch.tanh(model.decoder(layers[0][0]) / 2)
    reconstruction = -Independent(Normal(mean, 0.5), 3).log_prob(images).mean()
    torch.manual_seed(3)
    losses = model.training_step(OneBatch(images, progress=0.25), Optimizers(model.configure_optimizers()))
    expected = {"loss": reconstruction + 0.5 * sum(kls), "reconstruction": reconstruction, "kl": sum(kls)}
    expected |= {f"kl_{i}": value for i, value in enumerate(kls, 1)}
    torch.testing.assert_close(dict(losses), {name: value.detach() for name, value in expected.items()}, rtol=1e-5, atol=1e-5)


def test_closed_divergences_agree_with_the_weights() -> None:
    """Mean log weight = E log p(x|z_1) - sum of KL terms, over the same hierarchy; bounds of k = 1, 5, 50 are ordered."""
    model = small(likelihood="gaussian", sigma=1.0).eval()
    images, n = torch.rand(3, 1, 8, 8) * 2 - 1, 3000
    with torch.inference_mode():
        weights = model.log_weights(images, n)
        hats = [(mu.repeat(n, 1), logvar.repeat(n, 1)) for mu, logvar in model.upward(images)]
        layers = model.downward(hats)
        kls = torch.stack([exact_kl(normal(q), normal(p)) for _, q, p in layers]).unflatten(1, (n, 3))
        ratios = torch.stack([normal(q).log_prob(z) - normal(p).log_prob(z) for z, q, p in layers]).unflatten(1, (n, 3))
        x = Independent(Normal(model.decode(layers[0][0]), 1.0), 3).log_prob(images.repeat(n, 1, 1, 1)).unflatten(0, (n, 3))
    assert float(kls.mean((1, 2)).min()) > 0.05  # every layer has something to say
    # each layer's divergence, in closed form and as a mean of log q - log p
    error = float((ratios.std(1) + kls.std(1)).max()) / math.sqrt(n)
    torch.testing.assert_close(kls.mean(1), ratios.mean(1), atol=5 * error, rtol=0)
    elbo = x - kls.sum(0)
    error = float((weights.std(0) + elbo.std(0)).max()) / math.sqrt(n)
    torch.testing.assert_close(weights.mean(0), elbo.mean(0), atol=5 * error, rtol=0)
    bounds = [(weights.unflatten(0, (-1, k)).logsumexp(1) - math.log(k)).mean() for k in (1, 5, 50)]
    assert bounds[0] < bounds[1] < bounds[2]


def test_weights_where_the_evidence_is_known() -> None:
    """A decoder that ignores z makes log p(x) known: the bound is below it, the mean of the weights is p(x), whatever q is."""
    model = small(latents="1,1", likelihood="gaussian", sigma=1.0, hidden="4,4").eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.zero_()
    images = torch.rand(4, 1, 8, 8) * 2 - 1
    evidence = Independent(Normal(torch.zeros(4, 1, 8, 8), 1.0), 3).log_prob(images)
    with torch.inference_mode():
        weights = model.log_weights(images, 3000)
    assert float((weights.mean(0) - evidence).max()) < -0.01
    torch.testing.assert_close(weights.logsumexp(0) - math.log(3000), evidence, atol=0.1, rtol=0)


@pytest.mark.parametrize(("warmup", "progress", "beta"), [(0.2, 0.0, 0.0), (0.2, 0.1, 0.5), (0.2, 0.7, 1.0), (0.0, 0.0, 1.0)])
def test_warm_up(warmup: float, progress: float, beta: float) -> None:
    model = small(warmup=warmup)
    losses = model.training_step(OneBatch(torch.rand(4, 1, 8, 8), progress), Optimizers(model.configure_optimizers()))
    assert float(losses["loss"]) == pytest.approx(float(losses["reconstruction"] + beta * losses["kl"]), rel=1e-6)


def test_samples_descend_the_hierarchy() -> None:
    """Priors that double what is above and add 1, without noise: z_1 = 2 (2 z_3 + 1) + 1 has mean 3 and deviation 4."""
    model = small(latents="1,1,1").eval()

    class Double(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.cat([2 * z + 1, torch.full_like(z, -50.0)], dim=1)

    model.priors = nn.ModuleList([Double(), Double()])
    model.decode = lambda z: z.view(-1, 1, 1, 1)
    z = model.sample(40_000)
    assert float(z.mean()) == pytest.approx(3, abs=0.1)
    assert float(z.std()) == pytest.approx(4, rel=0.02)


def test_codes() -> None:
    """`encode` is noise-free, bottom layer first, and its first part is enough to decode."""
    model = small().eval()
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    z = model.encode(images)
    assert z.shape == (5, 9)
    assert torch.equal(z, model.encode(images))
    torch.testing.assert_close(z[:, 7:], model.upward(images)[2][0])
    assert torch.equal(model.decode(z), model.decode(z[:, :4]))
    assert torch.equal(model.decode(z), model.reconstruct(images))


def test_one_layer_is_a_vae() -> None:
    model = small(latents="4", hidden="16").eval()
    ((z, q, p),) = model.downward(model.upward(torch.rand(5, 1, 8, 8)), noise=False)
    assert torch.equal(z, q[0])
    torch.testing.assert_close(kl_divergence(q, p), exact_kl(normal(q), Independent(Normal(torch.zeros(4), 1.0), 1)))


def test_published_set_up() -> None:
    """Section 3: latents 64-32-16-8-4; two layers of 512, 256, 128, 64, 32 units in all maps, each normalised and rectified."""
    model = LadderVAE(ImageSpec(1, 28))
    linear = [[tuple(p.shape) for p in net.parameters() if p.ndim == 2] for net in model.bottom_up]
    assert linear == [[(b, a), (b, b)] for a, b in ((784, 512), (512, 256), (256, 128), (128, 64), (64, 32))]
    assert [head.weight.shape for head in model.likelihoods] == [(128, 512), (64, 256), (32, 128), (16, 64), (8, 32)]
    down = [[tuple(p.shape) for p in net.parameters() if p.ndim == 2] for net in model.priors]
    assert down == [[(h, z), (h, h), (2 * o, h)] for z, h, o in ((32, 256, 64), (16, 128, 32), (8, 64, 16), (4, 32, 8))]
    assert [tuple(p.shape) for p in model.decoder.parameters() if p.ndim == 2] == [(512, 64), (512, 512), (784, 512)]
    assert sum(isinstance(m, nn.BatchNorm1d) for m in model.modules()) == 20
    assert {m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}


@pytest.mark.parametrize(("latents", "hidden"), [("4,2", "8"), ("4,x", "8,8"), ("4,0", "8,8"), ("", "")])
def test_refusals(latents: str, hidden: str) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        LadderVAE(ImageSpec(1, 8), latents=latents, hidden=hidden)
