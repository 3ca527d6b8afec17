"""Variational autoencoders for genbench, one file a model.

The presets were tuned by FID against the holdout split, `trials` runs of at most two and a half minutes for each model; those that
reproduce pythae, and `wae-mmd`'s for CelebA, are published values.
"""

from __future__ import annotations

from genbench import ModelSpec, hookimpl
from genbench_vaes.aae import AAE
from genbench_vaes.beta_tc_vae import BetaTCVAE
from genbench_vaes.beta_vae import BetaVAE
from genbench_vaes.conv_vae import ConvVAE
from genbench_vaes.cvae import CVAE
from genbench_vaes.info_vae import InfoVAE
from genbench_vaes.iwae import IWAE
from genbench_vaes.ladder_vae import LadderVAE
from genbench_vaes.rae import RAE
from genbench_vaes.vae import VAE
from genbench_vaes.vae_gan import VAEGAN
from genbench_vaes.vamp_vae import VampVAE
from genbench_vaes.vq_vae import VQVAE
from genbench_vaes.wae_mmd import WAEMMD

# Few latents, so that N(0, I) covers them after minutes of training; steps cheap enough that thousands fit the budget.
VAE_MNIST = {"z_dim": 6, "hidden": 1000, "depth": 2, "optimizer": "adam", "lr": 1e-3}
CONV_MNIST = {"z_dim": 8, "width": 24, "likelihood": "bernoulli", "lr": 2e-3, "batch_size": 100}
BETA_MNIST = {"lr": 1e-3, "batch_size": 128}
TC_MNIST = {"z_dim": 8, "width": 24, "hidden": 256, "lr": 2e-3, "batch_size": 128}
IWAE_MNIST = {"k": 5, "z_dim": 6, "hidden": 500, "activation": "relu", "schedule": False, "batch_size": 100}
INFO_MNIST = {"z_dim": 8, "width": 24, "likelihood": "bernoulli", "lr": 2e-3, "batch_size": 100}
WAE_MNIST = {"lam": 400.0, "z_dim": 8, "width": 24, "lr": 2e-3}
CVAE_MNIST = {"z_dim": 8, "width": 24, "likelihood": "bernoulli", "lr": 2e-3, "batch_size": 100}
VAMP_MNIST = {"components": 200, "z_dim": 16, "pseudo_std": 0.3, "lr": 1e-3}
LADDER_MNIST = {"latents": "16,8,4", "hidden": "512,256,128", "lr": 2e-3, "batch_size": 128}
RAE_MNIST = {"width": 16, "components": 20, "lr": 2e-3, "batch_size": 64}
VQ_MNIST = {
    "codes": 32, "code_dim": 16, "width": 32, "codebook": "ema", "restart": 0.05, "prior_share": 0.7, "prior_width": 64, "prior_layers": 3,
    "prior_lr": 3e-3, "lr": 2e-3, "anneal": True, "batch_size": 32,
}  # fmt: skip
VAE_GAN_MNIST = {"z_dim": 16, "width": 16, "gamma": 0.01}
MNIST = ("mnist-60s", "mnist-3m", "mnist-10m")

# Why a step on a part of the batch is no part of the step on the whole
OPTIMAL_SIGMA = {"likelihood=gaussian sigma=none": "the optimal sigma is the error of a whole batch; with a fixed one it trains on several"}
MIXTURE = "the mixture is fitted to the latents of whole batches"

# Published set-ups of pythae's table of reproductions (github.com/clementchadebec/benchmark_VAE, examples/scripts/reproducibility):
# NLL on the test set of static binarised MNIST 89.78 for the VAE (200 samples; 500 passes, the learning rate times 10^(-1/5) after 200
# and after 350) and 86.82 for the IWAE (5000 samples; 3280 passes).
PYTHAE_VAE = {
    "z_dim": 40, "hidden": 400, "activation": "relu", "optimizer": "adam", "lr": 1e-4, "lr_decay": 10 ** (-1 / 5), "batch_size": 100,
}  # fmt: skip
PYTHAE_IWAE = {"k": 50, "z_dim": 50, "hidden": 200, "depth": 2, "activation": "tanh", "lr": 1e-3, "batch_size": 20}


@hookimpl
def genbench_models() -> list[ModelSpec]:
    """The models of this distribution."""
    return [
        ModelSpec(
            "vae", VAE, family="vae", paper="arXiv:1312.6114", description="variational autoencoder of two MLPs", trials=11,
            single_device=OPTIMAL_SIGMA,
            presets={
                **dict.fromkeys(MNIST, VAE_MNIST),
                "digits-20s": {"z_dim": 8, "hidden": 256, "optimizer": "adam", "lr": 1e-3},
                "reproduce-pythae-mnist": PYTHAE_VAE,
            },
        ),
        ModelSpec(
            "conv-vae", ConvVAE, family="vae", paper="arXiv:1512.09300", description="convolutional variational autoencoder", trials=6,
            single_device={**OPTIMAL_SIGMA, "prior=gmm": MIXTURE},
            presets={
                **dict.fromkeys(MNIST, CONV_MNIST),
                "digits-20s": {"z_dim": 8, "width": 32, "likelihood": "bernoulli", "lr": 1e-3},
            },
        ),
        ModelSpec(
            "beta-vae", BetaVAE, family="vae", paper="Higgins et al. 2017, ICLR (openreview.net/forum?id=Sy2fzU9gl)", trials=3,
            description="convolutional variational autoencoder with a weight on the KL term",
            single_device=OPTIMAL_SIGMA,
            presets={**dict.fromkeys(MNIST, BETA_MNIST), "digits-20s": {"beta": 1.0, "z_dim": 8, "lr": 2e-3}},
        ),
        ModelSpec(
            "beta-tc-vae", BetaTCVAE, family="vae", paper="arXiv:1802.04942", trials=1,
            description="weight on the total correlation part of the KL term",
            single_device="total correlation is estimated on the pairs of images of a whole batch",
            presets={
                **dict.fromkeys(MNIST, TC_MNIST),
                "digits-20s": {"beta": 1.0, "z_dim": 8, "lr": 2e-3, "batch_size": 64},
            },
        ),
        ModelSpec(
            "iwae", IWAE, family="vae", paper="arXiv:1509.00519", trials=1, description="importance-weighted bound of k samples",
            single_device=OPTIMAL_SIGMA,
            presets={
                **dict.fromkeys(MNIST, IWAE_MNIST),
                "digits-20s": {"k": 5, "z_dim": 8, "schedule": False, "batch_size": 64},
                "reproduce-pythae-mnist-iwae": PYTHAE_IWAE,
            },
        ),
        ModelSpec(
            "info-vae", InfoVAE, family="vae", paper="arXiv:1706.02262", trials=3,
            description="KL term and maximum mean discrepancy of the aggregate posterior",
            single_device="maximum mean discrepancy is estimated on the pairs of latents of a whole batch",
            presets={
                **dict.fromkeys(MNIST, INFO_MNIST),
                "digits-20s": {"lam": 100.0, "z_dim": 8, "width": 32, "likelihood": "bernoulli", "batch_size": 64},
            },
        ),
        ModelSpec(
            "wae-mmd", WAEMMD, family="vae", paper="arXiv:1711.01558", trials=2,
            description="Wasserstein autoencoder, codes matched to the prior by maximum mean discrepancy",
            single_device="maximum mean discrepancy is estimated on the pairs of latents of a whole batch",
            presets={
                **dict.fromkeys(MNIST, WAE_MNIST),
                "digits-20s": {"lam": 100.0, "z_dim": 6, "width": 32, "lr": 2e-3, "batch_size": 64},
                "celeba64-8h": {"lam": 100.0, "sigma2": 2.0, "z_dim": 64},
            },
        ),
        ModelSpec(
            "cvae", CVAE, family="vae", paper="Sohn et al. 2015, NeurIPS", trials=1,
            description="class-conditional variational autoencoder",
            single_device=OPTIMAL_SIGMA,
            presets={
                **dict.fromkeys(MNIST, CVAE_MNIST),
                "digits-20s": {"z_dim": 8, "width": 32, "likelihood": "bernoulli", "lr": 1e-3},
            },
        ),
        ModelSpec(
            "vamp-vae", VampVAE, family="vae", paper="arXiv:1705.07120", trials=1,
            description="prior is a mixture of the encoder's posteriors at learnt pseudo-inputs",
            single_device=OPTIMAL_SIGMA,
            presets={
                **dict.fromkeys(MNIST, VAMP_MNIST),
                "digits-20s": {"components": 100, "z_dim": 8, "hidden": 128, "pseudo_std": 0.3, "lr": 2e-3, "batch_size": 64},
            },
        ),
        ModelSpec(
            "ladder-vae", LadderVAE, family="vae", paper="arXiv:1602.02282", trials=1,
            description="hierarchy of latents, inferred bottom-up and top-down",
            single_device=OPTIMAL_SIGMA,
            presets={
                **dict.fromkeys(MNIST, LADDER_MNIST),
                "digits-20s": {"latents": "8,4", "hidden": "128,64", "lr": 2e-3, "batch_size": 64},
            },
        ),
        ModelSpec(
            "rae", RAE, family="vae", paper="arXiv:1903.12436", trials=3,
            description="deterministic autoencoder with a regularised decoder, mixture fitted to its latents",
            single_device=MIXTURE,
            presets={
                **dict.fromkeys(MNIST, RAE_MNIST),
                "digits-20s": {"z_dim": 8, "width": 16, "lr": 2e-3, "batch_size": 64},
            },
        ),
        ModelSpec(
            "vq-vae", VQVAE, family="vae", paper="arXiv:1711.00937", trials=4,
            description="discrete codes and a gated PixelCNN over them",
            single_device="the error is divided by the variance of a whole batch, and codes may follow it",
            presets={
                **dict.fromkeys(MNIST, VQ_MNIST),
                "digits-20s": {
                    "codes": 16, "code_dim": 8, "width": 32, "halvings": 1, "codebook": "ema", "restart": 0.05, "prior_width": 32,
                    "prior_layers": 3, "prior_lr": 3e-3, "lr": 2e-3, "batch_size": 32,
                },
            },
        ),
        ModelSpec(
            "aae", AAE, family="vae", paper="arXiv:1511.05644", trials=2,
            description="adversarial autoencoder, codes matched to the prior by a discriminator",
            presets={
                "digits-20s": {"hidden": 256, "prior_std": 1.0, "optimizer": "adam", "lr": 2e-3, "lr_adversarial": 5e-4, "batch_size": 64},
            },
        ),
        ModelSpec(
            "vae-gan", VAEGAN, family="vae", paper="arXiv:1512.09300", trials=7,
            description="VAE whose decoder is a GAN's generator, reconstruction in the discriminator's features",
            single_device="who steps is decided by the costs of a whole batch",
            presets={
                **dict.fromkeys(MNIST, VAE_GAN_MNIST),
                "digits-20s": {"z_dim": 8, "width": 16, "gamma": 0.1, "lr": 1e-3, "batch_size": 32},
            },
        ),
    ]  # fmt: skip
