"""Generative adversarial networks for genbench, one file a model.

The presets were tuned by FID against the holdout split, `trials` runs of ten seconds to three minutes for each model.
"""

from __future__ import annotations

from genbench import ModelSpec, hookimpl
from genbench_gans.dcgan import DCGAN
from genbench_gans.gan import GAN
from genbench_gans.wgan_gp import WGANGP

MNIST = ("mnist-60s", "mnist-3m", "mnist-10m")


@hookimpl
def genbench_models() -> list[ModelSpec]:
    """The GANs of this package, oldest first."""
    return [
        ModelSpec(
            "gan", GAN, family="gan", paper="arXiv:1406.2661",
            description="The minimax game of two perceptrons, as published",
            presets={
                "digits-20s": {"width": 256, "maxout": 64, "lr": 1e-3, "dropout": 0.3},
                **{track: {"width": 512, "maxout": 128, "lr": 1e-3} for track in MNIST},
            },
            trials=14,
        ),
        ModelSpec(
            "dcgan", DCGAN, family="gan", paper="arXiv:1511.06434",
            description="Convolutions with BatchNorm, non-saturating loss",
            presets={
                "digits-20s": {"width": 32, "batch_size": 32},
                **{track: {"width": 32, "batch_size": 64} for track in MNIST},
            },
            trials=5,
        ),
        ModelSpec(
            "wgan-gp", WGANGP, family="gan", paper="arXiv:1704.00028",
            description="Wasserstein critic under a gradient penalty",
            presets={
                "digits-20s": {"width": 16, "lr": 1e-3},
                **{track: {"width": 16, "lr": 1e-3} for track in MNIST},
            },
            trials=6,
        ),
    ]  # fmt: skip
