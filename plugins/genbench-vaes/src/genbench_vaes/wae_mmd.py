"""Wasserstein autoencoder with maximum mean discrepancy.

Ilya Tolstikhin, Olivier Bousquet, Sylvain Gelly and Bernhard Schoelkopf, "Wasserstein Auto-Encoders", ICLR 2018, arXiv:1711.01558,
algorithm 2. The encoder is a function, not a distribution, and its codes together have to look like draws from the prior:

    minimise  E|x - G(Q(x))|^2 + lambda MMD_k(Q(x), z),   z ~ N(0, sigma_z^2 I)

The kernel is the inverse multiquadratic k(x, y) = C / (C + |x - y|^2) with C = 2 d sigma_z^2, the expected squared distance of two draws
from the prior of d dimensions; as in the authors' code it is the sum over seven multiples of that C.

The set-up is that of MNIST in section 4 and appendix C: 8 latents, sigma_z = 1, lambda = 10, Adam at 1e-3 with beta_1 = 0.5, halved at 30
of 100 epochs and divided by 5 more at 50 (here: at these shares of the budget), minibatches of 100. For CelebA it is 64 latents,
sigma_z^2 = 2, lambda = 100. The networks are `conv-vae`'s: at 64 x 64 and a width of 128 the paper's encoder for CelebA, while the
paper's decoder ends with a convolution of stride 1 where this one doubles once more. Pixels are in [-1, 1], as for CelebA there. The
authors' code has lambda = 10 throughout and takes 0.05 of the squared error.

No density comes with it: the codes are points, and the squared error is a cost, not a likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers
from genbench_vaes.conv_vae import decoder, encoder

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class WAEMMD(nn.Module):
    """`lam` is the paper's lambda, `sigma2` the prior's variance sigma_z^2; `width` channels after the first convolution."""

    def __init__(
        self, image: ImageSpec, lam: float = 10.0, sigma2: float = 1.0, z_dim: int = 8, width: int = 128,
        lr: float = 1e-3, batch_size: int = 100,
    ) -> None:  # fmt: skip
        super().__init__()
        self.lam, self.sigma2, self.z_dim, self.lr, self.batch_size = lam, sigma2, z_dim, lr, batch_size
        self.Q = encoder(image, width, z_dim)
        self.G = decoder(image, width, z_dim)
        self.prior = "N(0, I)" if sigma2 == 1 else f"N(0, {sigma2:g} I)"

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One over both networks."""
        return {"WAE": torch.optim.Adam(self.parameters(), lr=self.lr, betas=(0.5, 0.999))}

    def latent(self, n: int) -> Tensor:
        """n -> z (n, z_dim), normal."""
        return self.sigma2**0.5 * torch.randn(n, self.z_dim, device=next(self.parameters()).device)

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """One turn of algorithm 2's loop."""
        optimizers["WAE"].lr = self.lr * (1.0 if batches.progress < 0.3 else 0.5 if batches.progress < 0.5 else 0.1)
        x = next(batches).images
        z, codes = self.latent(len(x)), self.encode(x)
        cost = (x - self.decode(codes)).square().flatten(1).sum(1).mean()
        mmd = maximum_mean_discrepancy(z, codes, 2 * self.z_dim * self.sigma2)
        loss = cost + self.lam * mmd
        optimizers["WAE"].minimize(loss)
        return {"loss": loss.detach(), "cost": cost.detach(), "mmd": mmd.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> images G(z) (n, C, H, W) in [-1, 1]."""
        return self.decode(self.latent(n))

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> codes Q(x) (B, z_dim)."""
        return self.Q(images).float()

    def decode(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> G(z) (B, C, H, W) in [-1, 1]."""
        return torch.tanh(self.G(z).float())

    def reconstruct(self, images: Tensor) -> Tensor:
        """G(Q(x))."""
        return self.decode(self.encode(images))


def kernel(x: Tensor, y: Tensor, C: float) -> Tensor:
    """(n, d), (m, d) -> sum over scales s of sC / (sC + |x_i - y_j|^2) (n, m)."""
    squared = (x[:, None] - y).square().sum(2)
    return torch.stack([s * C / (s * C + squared) for s in SCALES]).sum(0)


def maximum_mean_discrepancy(x: Tensor, y: Tensor, C: float) -> Tensor:
    """(n, d), (n, d) -> unbiased estimate of the squared MMD, as in algorithm 2: no point is paired with itself; may be below 0."""
    n = len(x)
    within = kernel(x, x, C) + kernel(y, y, C)
    return (within.sum() - within.diagonal().sum()) / (n * (n - 1)) - 2 * kernel(x, y, C).mean()
