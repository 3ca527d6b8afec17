"""The bounds of vae, conv-vae and beta-vae: what their importance weights are, and that training raises them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from genbench_vaes import genbench_models
from torch import nn

from genbench import Batch, ImageSpec, ModelSpec, Optimizers

FAST: dict[str, dict[str, object]] = {"vae": {"optimizer": "adam"}, "conv-vae": {}, "beta-vae": {"beta": 1.0}}
SMALL: dict[str, dict[str, object]] = {"vae": {"hidden": 32}, "conv-vae": {"width": 8, "z_dim": 6}, "beta-vae": {"width": 4, "hidden": 16}}
SPECS = {spec.name: spec for spec in genbench_models() if spec.name in SMALL}


class OneBatch:
    """The same images for ever."""

    progress = 0.0

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.drawn = images, 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.drawn += 1
        return Batch(self.images)

    @property
    def holdout(self) -> Batch:
        raise AssertionError("a model that declares no holdout must not look at it")


def blobs(n: int, channels: int, size: int) -> torch.Tensor:
    """(n, C, H, W) in [-1, 1]: bright squares at random places on black."""
    images = torch.full((n, channels, size, size), -1.0)
    for image in images:
        top, left = torch.randint(0, size // 2, (2,)).tolist()
        image[:, top : top + size // 2, left : left + size // 2] = 0.8
    return images


def build(spec: ModelSpec, channels: int, size: int, **hparams: object) -> nn.Module:
    torch.manual_seed(0)
    return spec.cls(ImageSpec(channels, size), **{**SMALL[spec.name], **hparams})


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_learns_and_bounds_are_ordered(name: str, likelihood: str) -> None:
    """The loss falls, reconstructions beat the mean image, and L_1 <= L_5 <= L_50 (Burda et al. 2016, theorem 1)."""
    model = build(SPECS[name], 1, 8, likelihood=likelihood, lr=3e-3, **FAST[name])
    images = blobs(64, 1, 8)
    optimizers, batches = Optimizers(model.configure_optimizers()), OneBatch(images)
    losses = [float(model.training_step(batches, optimizers)["loss"]) for _ in range(400)]
    assert losses[-1] < losses[0] - 5
    model.eval()
    with torch.inference_mode():
        error = (model.reconstruct(images) - images).square().mean()
        weights = model.log_weights(images[:16], 1000)
    assert error < 0.5 * (images.mean(0) - images).square().mean()
    bounds = [(weights.unflatten(0, (-1, k)).logsumexp(1) - math.log(k)).mean() for k in (1, 5, 50)]
    assert bounds[0] < bounds[1] < bounds[2]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_weights_are_those_of_the_bound(name: str, likelihood: str) -> None:
    """Their mean is E_q[log p(x|z)] - KL(q || N(0, I)), whatever weight training gives the divergence."""
    model = build(SPECS[name], 1, 8, likelihood=likelihood, **({"beta": 10.0} if name == "beta-vae" else {})).eval()
    images = blobs(3, 1, 8)
    with torch.inference_mode():
        mu, logvar = model.posterior(images)
        mu, logvar = mu + 0.5, logvar - 1.0  # away from N(0, I), where untrained encoders are
        model.posterior = lambda x: (mu, logvar)
        weights = model.log_weights(images, 3000)
        z = mu + (logvar / 2).exp() * torch.randn(3000, *mu.shape)
        likelihoods = model.observation.log_prob(images.repeat(3000, 1, 1, 1), model.decoder(z.flatten(0, 1))).unflatten(0, (3000, 3))
        divergence = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
    assert float(divergence.min()) > 0.5
    error = float((weights.std(0) + likelihoods.std(0)).max()) / math.sqrt(3000)
    torch.testing.assert_close(weights.mean(0), likelihoods.mean(0) - divergence, atol=5 * error, rtol=0)


@pytest.mark.parametrize("name", SPECS)
def test_what_the_weights_are_of_is_declared(name: str) -> None:
    assert build(SPECS[name], 1, 8, likelihood="bernoulli").density == "bernoulli"
    assert build(SPECS[name], 1, 8, likelihood="gaussian").density == "continuous"
    assert build(SPECS[name], 1, 8).prior == "N(0, I)"


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("size", [8, 12, 28])
def test_reconstructions_are_decoded_means(name: str, size: int) -> None:
    model = build(SPECS[name], 3, size).eval()
    images = blobs(4, 3, size)
    with torch.inference_mode():
        z = model.encode(images)
        assert z.shape == (4, model.z_dim)
        assert torch.equal(model.decode(z), model.reconstruct(images))
        assert model.decode(z).shape == images.shape
