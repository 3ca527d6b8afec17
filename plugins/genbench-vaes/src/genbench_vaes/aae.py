"""Adversarial autoencoder.

Alireza Makhzani, Jonathon Shlens, Navdeep Jaitly, Ian Goodfellow and Brendan Frey, "Adversarial Autoencoders", ICLR 2016 workshop,
arXiv:1511.05644. Section 2: no divergence term; instead a discriminator on the codes z makes the aggregated posterior
q(z) = E q(z|x) match the prior p(z). Every minibatch is used in two phases:

    reconstruction:  encoder and decoder descend the reconstruction error
    regularisation:  D ascends log D(z) + log(1 - D(q(x))), z ~ p(z); then the encoder, as its generator, descends -log D(q(x))

Networks and settings are those of appendix A.1 on MNIST: two ReLU layers of 1000 units in each network, weights from N(0, 0.01^2), a
sigmoid on the images, half the squared error, minibatches of 100, 8 dimensions of z, prior N(0, 5^2 I). q(z|x) is `deterministic` or
`gaussian` (section 2). The paper steps by SGD with momentum; A.1 gives no rates, the defaults are those with which the authors start
their semi-supervised experiments: 0.01 and momentum 0.9 for the reconstruction, 0.1 and momentum 0.1 for the adversarial steps. There
is no likelihood p(x|z) here, and so no bound of log p(x).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from genbench import Batches, ImageSpec, Optimizers
from genbench_vaes.observation import reparameterise


class AAE(nn.Module):
    """Three MLPs. `lr` is the reconstruction's learning rate, `lr_adversarial` that of D and of the encoder against D."""

    def __init__(
        self, image: ImageSpec, z_dim: int = 8, hidden: int = 1000, prior_std: float = 5.0,
        posterior: Literal["deterministic", "gaussian"] = "deterministic", optimizer: Literal["sgd", "adam"] = "sgd",
        lr: float = 0.01, lr_adversarial: float = 0.1, batch_size: int = 100,
    ) -> None:  # fmt: skip
        super().__init__()
        self.z_dim, self.prior_std, self.gaussian = z_dim, prior_std, posterior == "gaussian"
        self.optimizer, self.lr, self.lr_adversarial, self.batch_size = optimizer, lr, lr_adversarial, batch_size
        self.prior = f"N(0, {prior_std**2:g} I)"
        pixels = prod(image.shape)
        self.encoder = nn.Sequential(nn.Flatten(), *mlp(pixels, hidden, hidden, 2 * z_dim if self.gaussian else z_dim))
        self.decoder = nn.Sequential(*mlp(z_dim, hidden, hidden, pixels), nn.Sigmoid(), nn.Unflatten(1, image.shape))
        self.D = nn.Sequential(*mlp(z_dim, hidden, hidden, 1), nn.Flatten(0))

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The encoder has two: with its decoder, and against D."""
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        if self.optimizer == "adam":
            return {
                "AE": torch.optim.Adam(autoencoder, self.lr),
                "D": torch.optim.Adam(self.D.parameters(), self.lr_adversarial, (0.5, 0.999)),
                "E": torch.optim.Adam(self.encoder.parameters(), self.lr_adversarial, (0.5, 0.999)),
            }
        return {
            "AE": torch.optim.SGD(autoencoder, self.lr, momentum=0.9),
            "D": torch.optim.SGD(self.D.parameters(), self.lr_adversarial, momentum=0.1),
            "E": torch.optim.SGD(self.encoder.parameters(), self.lr_adversarial, momentum=0.1),
        }

    def q(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> z ~ q(z|x) (B, z_dim)."""
        if not self.gaussian:
            return self.encode(images)
        mu, logvar = self.encoder((images + 1) / 2).float().chunk(2, dim=1)
        return reparameterise(mu, logvar)

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """The two phases on one minibatch."""
        images = next(batches).images
        # Reconstruction phase: half the squared error of pixels in [0, 1]
        errors = self.decoder(self.q(images)).float() - (images + 1) / 2
        reconstruction = 0.5 * errors.square().flatten(1).sum(1).mean()
        optimizers["AE"].minimize(reconstruction)
        # Regularisation phase: D tells samples of the prior (real) from codes (fake), then the encoder confuses D
        z = self.q(images)
        loss_D = softplus(-self.logits(self.latent(len(z)))).mean() + softplus(self.logits(z.detach())).mean()
        optimizers["D"].minimize(loss_D)
        loss_E = softplus(-self.logits(z)).mean()
        optimizers["E"].minimize(loss_E)
        return {"reconstruction": reconstruction.detach(), "loss_D": loss_D.detach(), "loss_E": loss_E.detach()}

    def logits(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B,) float32 logits: D(z) = sigmoid(logit)."""
        logits: Tensor = self.D(z)
        return logits.float()

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z ~ N(0, prior_std^2 I)."""
        return self.prior_std * torch.randn(n, self.z_dim, device=next(self.parameters()).device)

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1], decoded from the prior."""
        return self.decode(self.latent(n))

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> mean of q(z|x) (B, z_dim)."""
        return self.encoder((images + 1) / 2).float()[:, : self.z_dim]

    def decode(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, C, H, W) in [-1, 1]."""
        return 2 * self.decoder(z).float() - 1

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the mean code."""
        return self.decode(self.encode(images))


def mlp(*widths: int) -> list[nn.Module]:
    """Linear layers from each width to the next, ReLU between them; weights from N(0, 0.01^2)."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        linear = nn.Linear(wide, narrow)
        nn.init.normal_(linear.weight, 0.0, 0.01)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return layers[:-1]
