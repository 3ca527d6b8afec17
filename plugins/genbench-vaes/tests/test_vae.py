"""VAE against the set-up of the paper's section 5 and appendix C."""

from __future__ import annotations

import pytest
import torch
from genbench_vaes.vae import VAE

from genbench import Batch, ImageSpec, Optimizers


def test_networks_and_optimizer_are_the_papers() -> None:
    """500 tanh units a side, 20 latents; Adagrad on minibatches of 100."""
    model = VAE(ImageSpec(1, 28))
    assert [tuple(p.shape) for p in model.parameters() if p.ndim == 2] == [(500, 784), (40, 500), (500, 20), (784, 500)]
    assert isinstance(model.configure_optimizers()["VAE"], torch.optim.Adagrad)
    assert model.batch_size == 100


def test_the_learning_rate_is_cut_after_two_fifths_and_seven_tenths() -> None:
    """pythae's schedule for 500 passes: milestones 200 and 350, each a factor of 10^(-1/5)."""
    model = VAE(ImageSpec(1, 8), hidden=4, optimizer="adam", lr=1e-4, lr_decay=10 ** (-1 / 5))
    optimizers = Optimizers(model.configure_optimizers())
    rates = []
    for progress in (0.0, 0.399, 0.4, 0.699, 0.7, 0.999):
        model.training_step(OneBatch(progress), optimizers)
        rates.append(optimizers["VAE"].lr)
    assert rates == pytest.approx([1e-4, 1e-4, 6.30957e-5, 6.30957e-5, 3.98107e-5, 3.98107e-5], rel=1e-5)


class OneBatch:
    """The same two images for ever."""

    def __init__(self, progress: float) -> None:
        self.progress = progress

    def __next__(self) -> Batch:
        return Batch(torch.zeros(2, 1, 8, 8), None)
