"""Generative adversarial networks for genbench, one file a model.

The presets were tuned by FID against the holdout split, `trials` runs of ten seconds to three minutes for each model; those for tracks
that reproduce a publication are its own.
"""

from __future__ import annotations

from genbench import ModelSpec, hookimpl
from genbench_gans.acgan import ACGAN
from genbench_gans.began import BEGAN
from genbench_gans.biggan import BigGAN
from genbench_gans.cgan import CGAN
from genbench_gans.cgan_pd import CGANPD
from genbench_gans.dcgan import DCGAN
from genbench_gans.dragan import DRAGAN
from genbench_gans.gan import GAN
from genbench_gans.infogan import InfoGAN
from genbench_gans.lsgan import LSGAN
from genbench_gans.r3gan import R3GAN
from genbench_gans.sngan import SNGAN
from genbench_gans.stylegan2 import StyleGAN2
from genbench_gans.wgan import WGAN
from genbench_gans.wgan_gp import WGANGP

BEGAN_MNIST = {"gamma": 1.0, "n": 16, "z_dim": 32, "h_dim": 32, "lambda_k": 0.05, "carry_steps": 0, "lr": 6e-4, "halvings": 2}
MNIST = ("mnist-60s", "mnist-3m", "mnist-10m")
MIMICRY = "reproduce-mimicry-cifar10"
ACGAN_SMALL = {"loss": "non-saturating", "width_D": 8, "dropout": 0.0}
BIGGAN_SMALL = {"shared_dim": 32, "n_dis": 1, "batch_size": 32, "lr_G": 5e-4, "lr_D": 1e-3, "ema": 0.99}
R3GAN_SMALL = {"blocks": 1, "ema_kimg": 1.0}
R3GAN_MNIST = {
    "width": 64, "wide": 4, "batch_size": 16, "lr": 4e-3, "lr_end": 5e-4, "gamma": 5.0, "gamma_end": 1.0, "burn_in": 1.0, **R3GAN_SMALL
}  # fmt: skip
STYLEGAN2_SMALL = {"mapping_layers": 2, "style_mixing": 0.0, "r1_every": 4, "pl_weight": 0.0, "ema_kimg": 1.0, "lr": 1e-2}
STYLEGAN2_MNIST = {"z_dim": 64, "channel_base": 512, "channel_max": 64, "gamma": 1.0, "batch_size": 16, **STYLEGAN2_SMALL}


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
            "cgan", CGAN, family="gan", paper="arXiv:1411.1784",
            description="Both perceptrons of the minimax game told the class",
            presets={
                "digits-20s": {"loss": "non-saturating", "hidden_y": 200, "width": 256, "maxout": 64, "maxout_y": 16, "lr": 1e-3},
                **{track: {"hidden_y": 400, "width": 512, "maxout": 128, "maxout_y": 32, "dropout": 0.3, "lr": 1e-3} for track in MNIST},
            },
            trials=4,
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
            "infogan", InfoGAN, family="gan", paper="arXiv:1606.03657",
            description="Codes that can be read off the images: a bound on their mutual information",
            presets={
                "digits-20s": {"width": 32, "hidden": 128, "batch_size": 32, "fix_std": True},
                **{track: {"width": 32, "hidden": 256, "batch_size": 64, "fix_std": True} for track in MNIST},
            },
            trials=1,
        ),
        ModelSpec(
            "acgan", ACGAN, family="gan", paper="arXiv:1610.09585",
            description="D also names the class that G was told",
            presets={
                "digits-20s": {**ACGAN_SMALL, "width_G": 32, "batch_size": 32, "lr": 3e-3},
                **{track: {**ACGAN_SMALL, "width_G": 24, "batch_size": 64, "lr": 5e-4} for track in MNIST},
            },
            trials=2,
        ),
        ModelSpec(
            "lsgan", LSGAN, family="gan", paper="arXiv:1611.04076",
            description="Least squares in place of the cross-entropy",
            presets={
                "digits-20s": {"z_dim": 100, "width": 32, "batch_size": 32},
                **{track: {"z_dim": 100, "width": 32, "lr": 5e-4} for track in MNIST},
            },
            trials=2,
        ),
        ModelSpec(
            "wgan", WGAN, family="gan", paper="arXiv:1701.07875",
            description="Wasserstein critic with clipped weights",
            presets={
                "digits-20s": {"width": 16, "batch_size": 32, "lr": 5e-4},
                **{track: {"width": 16, "lr": 1e-3} for track in MNIST},
            },
            trials=2,
        ),
        ModelSpec(
            "wgan-gp", WGANGP, family="gan", paper="arXiv:1704.00028",
            description="Wasserstein critic under a gradient penalty",
            presets={
                "digits-20s": {"width": 16, "lr": 1e-3},
                **{track: {"width": 16, "lr": 1e-3} for track in MNIST},
                MIMICRY: {"network": "resnet", "width": 256, "width_D": 128, "blocks": "mimicry", "lr": 2e-4, "linear_decay": True},
            },
            trials=6,
        ),
        ModelSpec(
            "began", BEGAN, family="gan", paper="arXiv:1703.10717",
            description="Auto-encoder as D, the game held at a ratio of the two losses",
            single_device="k, the balance of the two losses, follows the losses of whole batches",
            presets={
                "digits-20s": {"n": 16, "z_dim": 16, "h_dim": 16, "lambda_k": 0.01, "carry_steps": 0, "lr": 1e-3},
                # a 1 is easier to reconstruct than any other digit: below gamma = 1 it is all that G draws
                **dict.fromkeys(MNIST, BEGAN_MNIST),
            },
            trials=6,
        ),
        ModelSpec(
            "dragan", DRAGAN, family="gan", paper="arXiv:1705.07215",
            description="A gradient penalty around real images only",
            single_device="the noise around real images is scaled by the standard deviation of a whole batch",
            presets={
                "digits-20s": {"width": 32, "batch_size": 32, "lr": 5e-4},
                **{track: {"width": 16, "batch_size": 32, "lr": 1e-3} for track in MNIST},
            },
            trials=2,
        ),
        ModelSpec(
            "sngan", SNGAN, family="gan", paper="arXiv:1802.05957",
            description="Spectrally normalised ResNets, hinge loss",
            presets={
                "digits-20s": {"width_G": 32, "width_D": 32, "n_dis": 1, "batch_size": 32, "lr": 2e-3},
                **{track: {"width_G": 32, "width_D": 32, "n_dis": 1, "batch_size": 32, "lr": 2e-3} for track in MNIST},
                MIMICRY: {"blocks": "mimicry"},
            },
            trials=5,
        ),
        ModelSpec(
            "cgan-pd", CGANPD, family="gan", paper="arXiv:1802.05637",
            description="SNGAN told the class: projection in D, BatchNorm by class in G",
            presets={
                "digits-20s": {"width_G": 32, "width_D": 32, "n_dis": 1, "batch_size": 32, "lr": 2e-3},
                **{track: {"width_G": 32, "width_D": 32, "n_dis": 1, "batch_size": 32, "lr": 2e-3} for track in MNIST},
                MIMICRY: {"blocks": "mimicry"},
            },
            trials=5,
        ),
        ModelSpec(
            "biggan", BigGAN, family="gan", paper="arXiv:1809.11096",
            description="Class embedding and parts of z in every block, averaged G",
            presets={
                "digits-20s": {"z_dim": 32, "ch": 8, "ema_start": 50, **BIGGAN_SMALL},
                **{track: {"z_dim": 64, "ch": 4, "ema_start": 100, **BIGGAN_SMALL} for track in MNIST},
            },
            trials=4,
        ),
        ModelSpec(
            "stylegan2", StyleGAN2, family="gan", paper="arXiv:1912.04958",
            description="Styles modulate convolutions; lazy R1 and path length regularisation",
            single_device="D sees the standard deviation over images of a whole batch, and G's path lengths have a running mean",
            presets={
                "digits-20s": {"z_dim": 32, "channel_max": 32, "gamma": 2.0, **STYLEGAN2_SMALL},
                **dict.fromkeys(MNIST, STYLEGAN2_MNIST),
            },
            trials=21,
        ),
        ModelSpec(
            "r3gan", R3GAN, family="gan", paper="arXiv:2501.05441",
            description="Relativistic loss under R1 and R2, plain residual networks",
            single_device="the half-life of G's average is counted in the images of a whole batch",
            presets={
                "digits-20s": {"width": 32, "wide": 4, "batch_size": 32, "lr": 2e-3, **R3GAN_SMALL},
                **dict.fromkeys(MNIST, R3GAN_MNIST),
            },
            trials=23,
        ),
    ]  # fmt: skip
