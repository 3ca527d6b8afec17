"""BEGAN. Berthelot, Schumm & Metz, "BEGAN: Boundary Equilibrium Generative Adversarial Networks", 2017, arXiv:1703.10717.

D is an auto-encoder with the pixel-wise loss L(v) = |v - D(v)|. The objective of section 3.4:

    L_D = L(x) - k_t L(G(z)),  L_G = L(G(z)),  k_{t+1} = k_t + lambda_k (gamma L(x) - L(G(z))),  k in [0, 1], k_0 = 0

which holds E L(G(z)) / E L(x) at gamma, the diversity ratio, and gives the measure of convergence M = L(x) + |gamma L(x) - L(G(z))|.

The networks of section 3.5: 3x3 convolutions with ELU, twice at each size, from the image down to 8x8 maps (4x4 for 8 pixels); the
encoder's maps grow by n at each halving, the decoder's stay at n, up-sampling is nearest-neighbour, the codes are linear, and G has the
decoder's shape. With n = 128 that makes the paper's 17.3 million parameters (at 64 pixels, where the strided convolution of a halving has
the wider size's maps). Its two "optional improvements" are `carry_steps`, the vanishing residuals that its experiments start from, and
`skips`. The paper halves the learning rate when M stalls; here, as in github.com/carpedm20/BEGAN-tensorflow, at equal distances: `halvings`
times over the budget. From there too: one z for both players' losses, Glorot's initialisation, an output that no non-linearity bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, interpolate
from torch.optim import Adam

from genbench import Batches, ImageSpec, Optimizers


class BEGAN(nn.Module):
    """Generator G and auto-encoder D; `n` is the number of maps, `gamma` the diversity ratio, `h_dim` the size of D's code."""

    k: Tensor
    carry: Tensor

    def __init__(
        self,
        image: ImageSpec,
        gamma: float = 0.5,
        lambda_k: float = 0.001,
        n: int = 128,
        z_dim: int = 64,
        h_dim: int = 64,
        carry_steps: int = 16_000,
        skips: bool = False,
        batch_size: int = 16,
        lr: float = 1e-4,
        halvings: int = 4,
    ) -> None:
        super().__init__()
        self.gamma, self.lambda_k, self.z_dim, self.carry_steps = gamma, lambda_k, z_dim, carry_steps
        self.batch_size, self.lr, self.halvings = batch_size, lr, halvings
        self.G = Decoder(image, z_dim, n, skips)
        self.D = AutoEncoder(image, h_dim, n, skips)
        self.apply(initialise)
        self.register_buffer("k", torch.tensor(0.0))
        self.register_buffer("carry", torch.tensor(1.0 if carry_steps else 0.0))

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each player."""
        return {"D": Adam(self.D.parameters(), self.lr), "G": Adam(self.G.parameters(), self.lr)}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Both players on one pass through D, then k and the carry move."""
        for optimizer in optimizers.values():
            optimizer.lr = self.lr * 0.5 ** int(batches.progress * (self.halvings + 1))
        carry = self.carry if self.carry_steps else None
        real = next(batches).images  # (B, C, H, W) in [-1, 1]
        v = torch.cat([real, self.G(self.latent(len(real)), carry)])
        L_real, L_fake = reconstruction_error(v, self.D(v, carry)).unflatten(0, (2, -1)).mean(1)
        optimizers.minimize({"D": L_real - self.k * L_fake, "G": L_fake})
        L_real, L_fake = L_real.detach(), L_fake.detach()
        M = convergence(L_real, L_fake, self.gamma)
        self.k.copy_(next_k(self.k, L_real, L_fake, self.gamma, self.lambda_k))
        if self.carry_steps:
            self.carry.sub_(1 / self.carry_steps).clamp_(min=0)
        return {"L_real": L_real, "L_fake": L_fake, "k": self.k.clone(), "M": M}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W), clipped to [-1, 1]."""
        images: Tensor = self.G(self.latent(n), self.carry if self.carry_steps else None)
        return images.clamp(-1, 1)

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z, uniform in [-1, 1]."""
        return torch.rand(n, self.z_dim, device=self.k.device) * 2 - 1


def reconstruction_error(v: Tensor, reconstruction: Tensor) -> Tensor:
    """(B, C, H, W), (B, C, H, W) -> L(v) = |v - D(v)| (B,), the mean over pixels. Equation 1 with eta = 1."""
    return (v.float() - reconstruction.float()).abs().flatten(1).mean(1)


def next_k(k: Tensor, L_real: Tensor, L_fake: Tensor, gamma: float, lambda_k: float) -> Tensor:
    """k_t and the two losses -> k_{t+1} in [0, 1]: more weight on fakes where they are easier to reconstruct than gamma asks."""
    return (k + lambda_k * (gamma * L_real - L_fake)).clamp(0, 1)


def convergence(L_real: Tensor, L_fake: Tensor, gamma: float) -> Tensor:
    """The two losses -> M, the global measure of convergence; lower is better. Section 3.4.1."""
    return L_real + (gamma * L_real - L_fake).abs()


class AutoEncoder(nn.Module):
    """(B, C, H, W) images -> code of `h_dim` -> (B, C, H, W) reconstructions, unbounded."""

    def __init__(self, image: ImageSpec, h_dim: int, n: int, skips: bool) -> None:
        super().__init__()
        count = sizes(image.size)
        side = ceil(image.size / 2 ** (count - 1))
        self.input = nn.Conv2d(image.channels, n, 3, padding=1)
        self.blocks = nn.ModuleList(Block(n * i, n * i) for i in range(1, count + 1))
        self.halve = nn.ModuleList(nn.Conv2d(n * i, n * (i + 1), 3, 2, 1) for i in range(1, count))
        self.code = nn.Sequential(nn.Flatten(), nn.Linear(n * count * side**2, h_dim))
        self.decoder = Decoder(image, h_dim, n, skips)

    def forward(self, images: Tensor, carry: Tensor | None = None) -> Tensor:
        """Images, carry of the vanishing residuals -> reconstructions."""
        x = self.blocks[0](elu(self.input(images)), carry)
        for halve, block in zip(self.halve, list(self.blocks)[1:], strict=True):
            x = block(elu(halve(x)), carry)
        reconstructions: Tensor = self.decoder(self.code(x), carry)
        return reconstructions


class Decoder(nn.Module):
    """(B, inputs) code or z -> (B, C, H, W), unbounded. A size that is no power of two is cropped from the next one."""

    def __init__(self, image: ImageSpec, inputs: int, n: int, skips: bool) -> None:
        super().__init__()
        self.size, self.skips = image.size, skips
        count = sizes(image.size)
        side = 2 ** ceil(log2(image.size)) >> (count - 1)
        self.project = nn.Sequential(nn.Linear(inputs, n * side**2), nn.Unflatten(1, (n, side, side)))
        self.blocks = nn.ModuleList(Block(2 * n if skips and i else n, n) for i in range(count))
        self.output = nn.Conv2d(n, image.channels, 3, padding=1)

    def forward(self, h: Tensor, carry: Tensor | None = None) -> Tensor:
        """Code, carry of the vanishing residuals -> images."""
        x = h_0 = self.project(h)
        for i, block in enumerate(self.blocks):
            if i:
                x = interpolate(x, scale_factor=2.0)
                if self.skips:  # h_0 enlarged beside it
                    x = torch.cat([x, interpolate(h_0, x.shape[2:])], 1)
            x = block(x, carry)
        images: Tensor = self.output(x)
        return images[:, :, : self.size, : self.size]


class Block(nn.Module):
    """Two convolutions with ELU. A layer that keeps its shape gives carry * in + (1 - carry) * out, carry falling from 1 to 0."""

    def __init__(self, inputs: int, n: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(inputs, n, 3, padding=1), nn.Conv2d(n, n, 3, padding=1)])

    def forward(self, x: Tensor, carry: Tensor | None) -> Tensor:
        """(B, inputs, H, W), carry or None for none -> (B, n, H, W)."""
        for layer in self.layers:
            out = elu(layer(x))
            x = out if carry is None or x.shape != out.shape else torch.lerp(out, x, carry.to(out.dtype))
        return x


def sizes(size: int) -> int:
    """Image size -> how many sizes of maps a network has: 8, 16, ... up to the image's, but two at least (8 pixels end at 4x4)."""
    return max(2, ceil(log2(size)) - 2)


def initialise(module: nn.Module) -> None:
    """Glorot & Bengio 2010, biases zero."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
