"""Beta-VAE against equation 4 and the networks of the paper's appendix."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from genbench_vaes.beta_vae import BetaVAE

from genbench import Batch, ImageSpec, Optimizers


class OneBatch:
    """The same images for ever."""

    progress = 0.0

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return Batch(self.images)


def test_networks_at_64_pixels_are_the_papers() -> None:
    """Higgins et al.: 32, 32, 64, 64 channels, 256 units, 32 latents."""
    model = BetaVAE(ImageSpec(3, 64))
    shapes = [tuple(p.shape) for p in model.encoder.parameters() if p.ndim > 1]
    assert shapes == [(32, 3, 4, 4), (32, 32, 4, 4), (64, 32, 4, 4), (64, 64, 4, 4), (256, 1024), (64, 256)]


def test_beta_weighs_the_divergence() -> None:
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    losses = []
    for beta in (1.0, 10.0):
        torch.manual_seed(0)
        model = BetaVAE(ImageSpec(1, 8), width=4, hidden=16, beta=beta)
        torch.manual_seed(1)
        losses.append(model.training_step(OneBatch(images), Optimizers(model.configure_optimizers())))
    one, ten = losses
    assert torch.equal(one["kl"], ten["kl"])
    assert float(ten["loss"] - one["loss"]) == pytest.approx(9 * float(one["kl"]), rel=1e-3)
