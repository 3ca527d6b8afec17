"""StyleGAN2. Karras, Laine, Aittala, Hellsten, Lehtinen & Aila, "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020,
arXiv:1912.04958.

Configuration E/F of table 1: weight demodulation (equations 1 to 3), lazy regularisation (section 3.1), path length regularisation
(equation 4), skip generator and residual discriminator without progressive growing (section 4), in `stylegan2_networks`. Small by
default: ``channel_base=2048 channel_max=128`` are 1/16 and 1/4 of config F's 32768 and 512 (config E: 16384, 512).
What the paper leaves open follows the authors' releases (NVlabs/stylegan2; stylegan2-ada-pytorch for the weight of R1, which
the paper tunes to each data set: 0.0002 size^2 / batch_size). Path length regularisation is done every 8 steps as in appendix B
(every 4 in the release). G's step judges the images that D's step saw, as in Goodfellow et al., not new ones.
Scores in the paper are without truncation, so there is none here. Images are clipped to [-1, 1] when sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from math import ceil, gcd, log2, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genbench import Batches, ImageSpec, Optimizers, full_precision
from genbench_gans import diffaugment
from genbench_gans.stylegan2_networks import Discriminator, Generator


class StyleGAN2(nn.Module):
    """Maps of side r have min(`channel_base` // r, `channel_max`) channels; z and w have `z_dim` dimensions.

    `gamma` weighs R1 (None: by the heuristic above), every `r1_every` steps; `pl_weight` the path lengths, every `pl_every` steps; 0
    leaves either out. `style_mixing` is the share of images made of two latents, `ema_kimg` the half-life of G's average in thousands
    of images, `augment` a comma-separated list of `diffaugment`'s policies.
    """

    def __init__(
        self,
        image: ImageSpec,
        z_dim: int = 512,
        mapping_layers: int = 8,
        channel_base: int = 2048,
        channel_max: int = 128,
        style_mixing: float = 0.9,
        gamma: float | None = None,
        r1_every: int = 16,
        pl_weight: float = 2.0,
        pl_every: int = 8,
        ema_kimg: float = 10.0,
        augment: str = "",
        batch_size: int = 32,
        lr: float = 2e-3,
    ) -> None:
        super().__init__()
        self.z_dim, self.style_mixing, self.batch_size, self.lr = z_dim, style_mixing, batch_size, lr
        self.gamma = 0.0002 * image.size**2 / batch_size if gamma is None else gamma
        self.r1_every, self.pl_weight, self.pl_every = r1_every, pl_weight, pl_every
        self.policies = diffaugment.parse(augment)
        self.average = get_ema_multi_avg_fn(0.5 ** (batch_size / (1000 * ema_kimg)))
        maps = [min(channel_base >> power, channel_max) for power in range(2, max(3, ceil(log2(image.size))) + 1)]
        self.G = Generator(image, z_dim, mapping_layers, maps)
        self.D = Discriminator(image, maps, group=gcd(4, batch_size))
        self.G_ema = deepcopy(self.G).requires_grad_(False)
        self.register_buffer("a", torch.zeros(()))  # long-term mean of path lengths
        self.steps = 0

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Adam, corrected for the steps that lazy regularisation adds: lr' = c lr, beta' = beta^c with c = k / (k + 1), appendix B."""
        c_D = self.r1_every / (self.r1_every + 1) if self.gamma else 1.0
        c_G = self.pl_every / (self.pl_every + 1) if self.pl_weight else 1.0
        return {
            "D": Adam(self.D.parameters(), c_D * self.lr, (0.0, 0.99**c_D)),
            "G": Adam(self.G.parameters(), c_G * self.lr, (0.0, 0.99**c_G)),
        }

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """A step of D, a step of G through the updated D, each followed by its regulariser when that is due."""
        real = next(batches).images  # (B, C, H, W) in [-1, 1]
        fake, _ = self.generate(len(real))
        on_real, on_fake = self.judge(torch.cat([real, fake.detach()])).chunk(2)
        loss_D = softplus(-on_real).mean() + softplus(on_fake).mean()
        optimizers["D"].minimize(loss_D)
        if self.gamma and self.steps % self.r1_every == 0:
            with full_precision():
                optimizers["D"].minimize(self.r1_every * self.gamma / 2 * self.r1(real.float()))
        loss_G = softplus(-self.judge(fake)).mean()
        optimizers["G"].minimize(loss_G)
        if self.pl_weight and self.steps % self.pl_every == 0:
            with full_precision():
                lengths = path_lengths(*self.generate(max(1, len(real) // 2)))  # half a batch saves memory
                self.a.lerp_(lengths.detach().mean(), 0.01)
                optimizers["G"].minimize(self.pl_every * self.pl_weight * (lengths - self.a).square().mean())
        self.average(list(self.G_ema.parameters()), list(self.G.parameters()), None)
        self.steps += 1
        return {"loss_D": loss_D.detach(), "loss_G": loss_G.detach(), "path_length": self.a}

    def generate(self, n: int) -> tuple[Tensor, Tensor]:
        """n -> images (n, C, H, W) and the w of each layer (n, layers, z_dim); style mixing: some take another z from a random layer on."""
        layers = self.G.synthesis.layers
        ws = self.G.mapping(self.latent(n))[:, None].expand(-1, layers, -1)
        if self.style_mixing:
            other = self.G.mapping(self.latent(n))[:, None]
            crossover = torch.randint(1, layers, (n, 1, 1), device=ws.device)
            mixed = torch.rand(n, 1, 1, device=ws.device) < self.style_mixing
            ws = torch.where(mixed & (torch.arange(layers, device=ws.device)[:, None] >= crossover), other, ws)
        return self.G.synthesis(ws), ws

    def judge(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B,) of augmented images."""
        logits: Tensor = self.D(diffaugment.augment(images, self.policies))
        return logits

    def r1(self, real: Tensor) -> Tensor:
        """(B, C, H, W) -> E |grad D(x)|^2. Mescheder et al. 2018, arXiv:1801.04406, equation 9."""
        real = real.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.judge(real).sum(), real, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean()

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1], by the averaged G."""
        images: Tensor = self.G_ema(self.latent(n))
        return images.clamp(-1, 1)

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z ~ N(0, I)."""
        return torch.randn(n, self.z_dim, device=self.a.device)

    def get_extra_state(self) -> Any:
        """The number of steps taken: it says which regularisers are due."""
        return self.steps

    def set_extra_state(self, state: Any) -> None:
        """Go on from there."""
        self.steps = state


def path_lengths(images: Tensor, ws: Tensor) -> Tensor:
    """Images (B, C, H, W) made from w (B, layers, w_dim) -> (B,) |J_w^T y| of equation 4, RMS over layers.

    y ~ N(0, I) / sqrt(H W): the release's way to have one weight for all sizes.
    """
    y = torch.randn_like(images) / sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()
