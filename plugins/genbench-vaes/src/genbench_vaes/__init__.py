"""Variational autoencoders for genbench, one file a model.

The presets were tuned by FID against the holdout split, `trials` runs of at most two and a half minutes for each model.
"""

from __future__ import annotations

from genbench import ModelSpec, hookimpl
from genbench_vaes.beta_vae import BetaVAE
from genbench_vaes.conv_vae import ConvVAE
from genbench_vaes.vae import VAE

# Few latents, so that N(0, I) covers them after minutes of training; steps cheap enough that thousands fit the budget.
VAE_MNIST = {"z_dim": 6, "hidden": 1000, "depth": 2, "optimizer": "adam", "lr": 1e-3}
CONV_MNIST = {"z_dim": 8, "width": 24, "likelihood": "bernoulli", "lr": 2e-3, "batch_size": 100}
BETA_MNIST = {"lr": 1e-3, "batch_size": 128}


@hookimpl
def genbench_models() -> list[ModelSpec]:
    """The models of this distribution."""
    return [
        ModelSpec(
            "vae", VAE, family="vae", paper="arXiv:1312.6114", description="variational autoencoder of two MLPs", trials=11,
            presets={
                "mnist-60s": VAE_MNIST, "mnist-3m": VAE_MNIST,
                "digits-20s": {"z_dim": 8, "hidden": 256, "optimizer": "adam", "lr": 1e-3},
            },
        ),
        ModelSpec(
            "conv-vae", ConvVAE, family="vae", paper="arXiv:1512.09300", description="convolutional variational autoencoder", trials=6,
            presets={
                "mnist-60s": CONV_MNIST, "mnist-3m": CONV_MNIST,
                "digits-20s": {"z_dim": 8, "width": 32, "likelihood": "bernoulli", "lr": 1e-3},
            },
        ),
        ModelSpec(
            "beta-vae", BetaVAE, family="vae", paper="Higgins et al. 2017, ICLR (openreview.net/forum?id=Sy2fzU9gl)", trials=3,
            description="convolutional variational autoencoder with a weight on the KL term",
            presets={"mnist-60s": BETA_MNIST, "mnist-3m": BETA_MNIST},
        ),
    ]  # fmt: skip
