"""VAE against the set-up of the paper's section 5 and appendix C."""

from __future__ import annotations

import torch
from genbench_vaes.vae import VAE

from genbench import ImageSpec


def test_networks_and_optimizer_are_the_papers() -> None:
    """500 tanh units a side, 20 latents; Adagrad on minibatches of 100."""
    model = VAE(ImageSpec(1, 28))
    assert [tuple(p.shape) for p in model.parameters() if p.ndim == 2] == [(500, 784), (40, 500), (500, 20), (784, 500)]
    assert isinstance(model.configure_optimizers()["VAE"], torch.optim.Adagrad)
    assert model.batch_size == 100
