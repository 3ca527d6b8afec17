"""R3GAN. Huang, Gokaslan, Kuleshov & Tompkin, "The GAN is dead; long live the GAN! A Modern Baseline GAN", NeurIPS 2024,
arXiv:2501.05441.

The loss: a relativistic pairing GAN (equation 2) under zero-centred gradient penalties on real and on fake images (R1 and R2,
equation 3). The networks: Config E of section 3, G and D mirror images of one another; two residual blocks a resolution, each an
inverted bottleneck around a grouped convolution, bilinear resampling, leaky ReLU, fix-up initialisation and no normalisation. The
training: appendix D, whose schedules run over the first part of it, the burn-in. Defaults are table 9's for CIFAR-10; at 64 and 256
pixels they build table 9's networks for FFHQ. What the paper leaves open (z normal, a learnt 4x4 basis at either end, gains) is
as in the authors' release (github.com/brownvc/R3GAN).

Departures: no labels (table 9's CIFAR-10 networks are conditional, those for Stacked MNIST and FFHQ are not), no augmentation and
no flips; one batch and one draw of z serve both players, where the release draws anew for G. `ema_kimg` is as published, for 250 Mimg of
training: a short one wants a shorter half-life.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import pairwise
from math import ceil, cos, log2, pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad, softplus
from torch.optim import Adam
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genbench import Batches, ImageSpec, Optimizers, full_precision


class R3GAN(nn.Module):
    """G and D of `width` maps at each resolution up to `wide` pixels, halved with every doubling beyond.

    Grouped convolutions have `group_size` channels a group. From its start to its end, the `burn_in` (a share of the training), a
    cosine takes the learning rate, gamma and Adam's beta2 from their first value to their second, and the half-life of G's moving
    average from 0 to `ema_kimg` thousand images.
    """

    def __init__(
        self,
        image: ImageSpec,
        z_dim: int = 64,
        width: int = 768,
        wide: int = 32,
        blocks: int = 2,
        group_size: int = 16,
        batch_size: int = 512,
        lr: float = 2e-4,
        lr_end: float = 5e-5,
        gamma: float = 0.05,
        gamma_end: float = 0.005,
        beta2: float = 0.9,
        beta2_end: float = 0.99,
        ema_kimg: float = 5000.0,
        burn_in: float = 0.08,
    ) -> None:
        super().__init__()
        self.z_dim, self.batch_size, self.burn_in, self.ema_kimg = z_dim, batch_size, burn_in, ema_kimg
        self.lr, self.gamma, self.beta2 = (lr, lr_end), (gamma, gamma_end), (beta2, beta2_end)
        sides = [2**i for i in range(2, max(3, ceil(log2(image.size))) + 1)]  # 4, 8, ... pixels
        widths = [width * wide // max(wide, side) for side in sides]
        self.G = Generator(image, z_dim, widths, blocks, group_size)
        self.D = Discriminator(image, widths[::-1], blocks, group_size)
        self.G_ema = copy.deepcopy(self.G).requires_grad_(False)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam without momentum for each player."""
        return {name: Adam(net.parameters(), self.lr[0], (0.0, self.beta2[0])) for name, net in (("D", self.D), ("G", self.G))}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """A step of D, a step of G through the updated D, a step of the average."""
        t = min(batches.progress / self.burn_in, 1.0) if self.burn_in else 1.0
        for optimizer in optimizers.values():
            optimizer.lr = schedule(*self.lr, t)
            for group in optimizer.torch.param_groups:
                group["betas"] = (0.0, schedule(*self.beta2, t))

        real = next(batches).images  # (B, C, H, W) in [-1, 1]
        fake = self.G(self.latent(len(real)))
        logits_real, logits_fake, r1, r2 = penalised_logits(self.D, real, fake)
        loss_D = relativistic_loss(logits_real, logits_fake)
        optimizers["D"].minimize(loss_D + schedule(*self.gamma, t) / 2 * (r1 + r2))

        with torch.no_grad():
            logits_real = self.D(real)
        loss_G = relativistic_loss(self.D(fake), logits_real)
        optimizers["G"].minimize(loss_G)

        half_life = schedule(0.0, 1000 * self.ema_kimg, t)
        decay = 0.5 ** (len(real) / half_life) if half_life > 0 else 0.0  # table 9's caption
        get_ema_multi_avg_fn(decay)(list(self.G_ema.parameters()), list(self.G.parameters()), 0)
        return {"loss_D": loss_D.detach(), "loss_G": loss_G.detach(), "R1": r1.detach(), "R2": r2.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1], from the average of G."""
        images: Tensor = self.G_ema(self.latent(n))
        return images.clamp(-1, 1)

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z ~ N(0, I)."""
        return torch.randn(n, self.z_dim, device=next(self.parameters()).device)


def relativistic_loss(wanted: Tensor, other: Tensor) -> Tensor:
    """Logits of D at paired images, (B,) each -> E log(1 + exp(other - wanted)), small where the wanted ones look more real.

    Equation 2 with f(t) = -log(1 + exp(-t)): D wants the real images above the fake, G the fake above the real.
    """
    return softplus(other - wanted).mean()


def penalised_logits(D: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """D, two batches (B, C, H, W) -> logits (B,) at real and at fake, E ||grad D||^2 at real and at fake: equation 3's expectations.

    What reaches the images, and so G, is cut off: the penalties are D's.
    """
    with full_precision():
        images = torch.cat([real, fake]).detach().float().requires_grad_()  # D sees each image by itself: one pass serves all
        logits = D(images)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        (logits_real, logits_fake), (r1, r2) = logits.chunk(2), gradient.square().flatten(1).sum(1).chunk(2)
        return logits_real, logits_fake, r1.mean(), r2.mean()


def schedule(start: float, end: float, t: float) -> float:
    """Cosine from `start` at t = 0 to `end` at t = 1, the end of the burn-in."""
    return end + (start - end) * (1 + cos(pi * t)) / 2


class Generator(nn.Module):
    """(B, z_dim) z -> (B, C, H, W) float32 images, unbounded. A size that is no power of two is cropped from the next one."""

    def __init__(self, image: ImageSpec, z_dim: int, widths: list[int], blocks: int, group_size: int) -> None:
        super().__init__()
        self.size = image.size
        self.basis = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.modulate = linear(z_dim, widths[0])
        depth = blocks * len(widths)
        self.stages = nn.Sequential(*(Block(widths[0], group_size, depth) for _ in range(blocks)))
        for i, o in pairwise(widths):
            self.stages.extend([convolution(i, o) if i != o else nn.Identity(), Upsample()])
            self.stages.extend(Block(o, group_size, depth) for _ in range(blocks))
        self.output = convolution(widths[-1], image.channels)

    def forward(self, z: Tensor) -> Tensor:
        """z -> images."""
        maps = self.basis * self.modulate(z)[:, :, None, None]  # (B, width, 4, 4)
        images: Tensor = self.output(self.stages(maps))
        return images[:, :, : self.size, : self.size].float()


class Discriminator(nn.Module):
    """(B, C, H, W) images -> (B,) float32 logits, of meaning only beside other images' logits."""

    def __init__(self, image: ImageSpec, widths: list[int], blocks: int, group_size: int) -> None:
        super().__init__()
        self.border = (4 << len(widths) - 1) - image.size
        self.input = convolution(image.channels, widths[0])
        depth = blocks * len(widths)
        self.stages = nn.Sequential()
        for i, o in pairwise(widths):
            self.stages.extend(Block(i, group_size, depth) for _ in range(blocks))
            self.stages.extend([Downsample(), convolution(i, o) if i != o else nn.Identity()])
        self.stages.extend(Block(widths[-1], group_size, depth) for _ in range(blocks))
        self.basis = convolution(widths[-1], widths[-1], kernel=4, groups=widths[-1])
        self.output = linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images -> logits."""
        maps = self.stages(self.input(pad(images, (0, self.border, 0, self.border))))
        logits: Tensor = self.output(self.basis(maps).flatten(1))
        return logits.float().flatten()


class Block(nn.Module):
    """Maps -> maps of the same shape: x + W3 lrelu(W2 * lrelu(W1 x)), twice as wide inside. `depth` blocks make the network.

    Fix-up (Zhang et al. 2019, arXiv:1901.09321): the last of m = 3 layers starts at zero, the others scaled by depth^(-1/(2m - 2)).
    """

    def __init__(self, width: int, group_size: int, depth: int) -> None:
        super().__init__()
        inner, gain = 2 * width, sqrt(2 / (1 + 0.2**2)) * depth**-0.25
        groups = max(1, inner // group_size)
        self.residual = nn.Sequential(
            convolution(width, inner, gain=gain, bias=True), nn.LeakyReLU(0.2, inplace=True),
            convolution(inner, inner, kernel=3, groups=groups, gain=gain, bias=True), nn.LeakyReLU(0.2, inplace=True),
            convolution(inner, width, gain=0.0),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        """Maps -> maps."""
        out: Tensor = self.residual(maps) + maps
        return out


class Upsample(nn.Module):
    """(B, C, H, W) -> (B, C, 2H, 2W), bilinear."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps -> maps."""
        return interpolate(maps, scale_factor=2, mode="bilinear")


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, C, H/2, W/2), bilinear: the transpose of `Upsample`, a filter of [1, 3, 3, 1] each way."""

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps -> maps."""
        channels = maps.shape[1]
        return conv2d(maps, self.kernel.expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


def convolution(i: int, o: int, *, kernel: int = 1, groups: int = 1, gain: float = 1.0, bias: bool = False) -> nn.Conv2d:
    """A convolution of `i` to `o` maps whose weights start normal with variance gain^2 / fan-in, its bias at zero."""
    layer = nn.Conv2d(i, o, kernel, padding=1 if kernel == 3 else 0, groups=groups, bias=bias)
    nn.init.normal_(layer.weight, 0.0, gain / sqrt(i // groups * kernel**2))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def linear(i: int, o: int) -> nn.Linear:
    """A linear layer without bias whose weights start normal with variance 1 / fan-in."""
    layer = nn.Linear(i, o, bias=False)
    nn.init.normal_(layer.weight, 0.0, 1 / sqrt(i))
    return layer
