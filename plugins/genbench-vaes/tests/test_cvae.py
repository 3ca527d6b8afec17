"""The class reaches the posterior and the decoder, and its ELBO is that of log p(x|y)."""

from __future__ import annotations

import math

import torch
from genbench_vaes.cvae import CVAE
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal
from torch.distributions import kl_divergence as exact_kl

from genbench import Batch, ImageSpec, Optimizers


class OneBatch:
    progress = 0.0

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __next__(self) -> Batch:
        return Batch(self.images, self.labels)


def sides(n: int) -> tuple[Tensor, Tensor]:
    """Images white on the left (class 0), on the right (1) or below (2), of a brightness that varies; their classes."""
    labels = torch.arange(n) % 3
    images = torch.full((n, 1, 8, 8), -1.0)
    images[labels == 0, :, :, :4] = 1.0
    images[labels == 1, :, :, 4:] = 1.0
    images[labels == 2, :, 4:, :] = 1.0
    return images * (0.7 + 0.3 * torch.rand(n, 1, 1, 1)), labels


def build(**hparams: object) -> CVAE:
    torch.manual_seed(0)
    return CVAE(ImageSpec(1, 8, num_classes=3), **{"z_dim": 4, "width": 8, "likelihood": "bernoulli", **hparams})


def test_class_reaches_posterior_and_decoder() -> None:
    model, (images, labels) = build().eval(), sides(6)
    with torch.inference_mode():
        other = (labels + 1) % 3
        assert not torch.allclose(model.encode(images, labels), model.encode(images, other))
        z = torch.randn(6, 4)
        assert not torch.allclose(model.decode(z, labels), model.decode(z, other))
        assert not torch.allclose(model.decode(z, labels), model.decode(z + 1, labels))
        # within a batch each image has its own class
        mixed = model.decode(z, torch.tensor([0, 1, 2, 0, 1, 2]))
        torch.testing.assert_close(mixed[4:5], model.decode(z[4:5], torch.tensor([1])))


def test_loss_is_the_negative_elbo_given_the_class() -> None:
    """-log p(x|z,y) + KL(q(z|x,y) || N(0, I)), both from torch.distributions."""
    model, (images, labels) = build(), sides(9)
    with torch.no_grad():
        mu, logvar = model.posterior(images, labels)
        torch.manual_seed(1)
        z = mu + (logvar / 2).exp() * torch.randn_like(mu)
        divergence = exact_kl(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1).mean()
        logits = model.output(z, labels)
        # validate_args: grey pixels are no outcomes of a Bernoulli
        likelihood = Independent(Bernoulli(logits=logits, validate_args=False), 3).log_prob((images + 1) / 2).mean()
    torch.manual_seed(1)
    found = model.training_step(OneBatch(images, labels), Optimizers(model.configure_optimizers()))
    torch.testing.assert_close(found["kl"], divergence)
    torch.testing.assert_close(found["reconstruction"], -likelihood)
    torch.testing.assert_close(found["loss"], divergence - likelihood)


def test_learns_what_each_class_looks_like() -> None:
    """Samples of a class are white on its side whatever z; the true class explains an image best."""
    model, (images, labels) = build(lr=3e-3), sides(48)
    optimizers, batches = Optimizers(model.configure_optimizers()), OneBatch(images, labels)
    for _ in range(400):
        model.training_step(batches, optimizers)
    model.eval()
    with torch.inference_mode():
        samples = model.sample(30, torch.arange(30) % 3)
        left, right, below = samples[0::3], samples[1::3], samples[2::3]
        assert float(left[..., :4].mean()) > 0.4 > -0.4 > float(left[..., 4:].mean())
        assert float(right[..., 4:].mean()) > 0.4 > -0.4 > float(right[..., :4].mean())
        assert float(below[..., 4:, :].mean()) > 0.4 > -0.4 > float(below[..., :4, :].mean())
        bounds = torch.stack([model.log_weights(images, 20, torch.full((48,), y)).logsumexp(0) - math.log(20) for y in range(3)])
        assert torch.equal(bounds.argmax(0), labels)
        assert float((model.reconstruct(images, labels) - images).square().mean()) < 0.1


def test_sizes_of_the_inputs() -> None:
    """The encoder sees the image's channels and one plane a class, the decoder z and one unit a class."""
    model = CVAE(ImageSpec(3, 32, num_classes=10))
    assert model.encoder[0].in_channels == 13
    assert model.decoder[0].in_features == 50 + 10
