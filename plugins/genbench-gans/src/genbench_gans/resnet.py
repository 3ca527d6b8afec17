"""The ResNets that WGAN-GP, SNGAN and cGAN-PD share: Gulrajani et al. 2017 (arXiv:1704.00028), section 5.4; Miyato, Kataoka, Koyama
& Yoshida 2018 (arXiv:1802.05957), table 4.

At 32 pixels G is a linear layer to 4x4 maps, three blocks that double the side, BatchNorm, ReLU and a convolution; D is two blocks
that halve it, two that keep it, ReLU, pooling and a linear layer; every block has the same number of maps. Smaller images drop
doublings and halvings. Larger ones follow the authors' 64- and 128-pixel networks (github.com/pfnet-research/sngan_projection): as
the side doubles the maps halve, from 1024 to 64 in G, and D mirrors that. A size that is no power of two is cropped from the next.

`blocks` chooses between two published readings: ``authors`` copies pixels to double the side (as both papers' releases);
``mimicry`` (Lee & Town 2020, arXiv:2005.02494) interpolates between them, and its ReLUs work in place, so that the shortcuts of D past
the first block carry rectified maps.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import ceil, log2, sqrt
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from genbench import ImageSpec

Blocks = Literal["authors", "mimicry"]
Pool = Literal["sum", "mean"]
Wrap = Callable[[nn.Module], nn.Module]


def plain(layer: nn.Module) -> nn.Module:
    """The layer as it is."""
    return layer


class Generator(nn.Module):
    """(B, z_dim) z, (B,) labels where `norm` takes them -> (B, C, H, W) images in [-1, 1]."""

    def __init__(
        self, image: ImageSpec, z_dim: int, width: int, blocks: Blocks = "authors", norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.size = image.size
        maps = generator_maps(image.size, width)
        self.project = nn.Sequential(linear(z_dim, maps[0] * 16), nn.Unflatten(1, (maps[0], 4, 4)))
        self.blocks = nn.ModuleList(UpBlock(i, o, norm, "bilinear" if blocks == "mimicry" else "nearest") for i, o in pairwise(maps))
        self.output = nn.Sequential(nn.BatchNorm2d(maps[-1]), nn.ReLU(inplace=True), conv(maps[-1], image.channels, 3), nn.Tanh())

    def forward(self, z: Tensor, *labels: Tensor) -> Tensor:
        """z -> images."""
        h = self.project(z)
        for block in self.blocks:
            h = block(h, *labels)
        images: Tensor = self.output(h)
        return images[:, :, : self.size, : self.size]


class Features(nn.Module):
    """(B, C, H, W) images -> (B, maps) features: D without its last layer. `wrap` is put around every convolution."""

    def __init__(self, image: ImageSpec, width: int, blocks: Blocks = "authors", pool: Pool = "sum", wrap: Wrap = plain) -> None:
        super().__init__()
        maps, halvings = discriminator_maps(image.size, width)
        self.maps, self.pool = maps[-1], pool
        self.net = nn.Sequential()
        for n, (i, o) in enumerate(pairwise([image.channels, *maps])):
            self.net.append(DownBlock(i, o, wrap, halve=n < halvings, first=n == 0, rectify=blocks == "mimicry"))

    def forward(self, images: Tensor) -> Tensor:
        """Images -> features."""
        h = relu(self.net(images))
        return h.sum((2, 3)) if self.pool == "sum" else h.mean((2, 3))


class Discriminator(nn.Module):
    """(B, C, H, W) images -> (B,) float32 logits."""

    def __init__(self, image: ImageSpec, width: int, blocks: Blocks = "authors", pool: Pool = "sum", wrap: Wrap = plain) -> None:
        super().__init__()
        self.features = Features(image, width, blocks, pool, wrap)
        self.output = wrap(linear(self.features.maps, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images -> logits."""
        logits: Tensor = self.output(self.features(images))
        return logits.float().flatten()


class UpBlock(nn.Module):
    """(B, i, H, W) -> (B, o, 2H, 2W): norm, ReLU, doubling, convolution, norm, ReLU, convolution; beside them a 1x1 convolution."""

    def __init__(self, i: int, o: int, norm: Callable[[int], nn.Module], mode: str) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(i), conv(i, o, 3, gain=sqrt(2))
        self.norm2, self.conv2 = norm(o), conv(o, o, 3, gain=sqrt(2))
        self.shortcut = conv(i, o, 1)
        self.mode = mode

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        """Maps -> maps of twice the side."""
        h = self.conv1(interpolate(relu(self.norm1(x, *labels)), scale_factor=2, mode=self.mode))
        h = self.conv2(relu(self.norm2(h, *labels)))
        # a 1x1 convolution commutes with the doubling: this order costs a quarter
        return h + interpolate(self.shortcut(x), scale_factor=2, mode=self.mode)


class DownBlock(nn.Module):
    """(B, i, H, W) -> (B, o, H/2, W/2) or (B, o, H, W): twice ReLU and convolution, averaging; no ReLU on the `first` block's images."""

    def __init__(self, i: int, o: int, wrap: Wrap, halve: bool, first: bool, rectify: bool) -> None:
        super().__init__()
        hidden = o if first else i
        self.conv1, self.conv2 = wrap(conv(i, hidden, 3, gain=sqrt(2))), wrap(conv(hidden, o, 3, gain=sqrt(2)))
        self.shortcut = wrap(conv(i, o, 1)) if halve or i != o else nn.Identity()
        self.halve, self.first, self.rectify = halve, first, rectify

    def forward(self, x: Tensor) -> Tensor:
        """Maps -> maps."""
        active = x if self.first else relu(x)
        h = self.conv2(relu(self.conv1(active)))
        x = active if self.rectify else x
        if self.halve:  # a 1x1 convolution commutes with averaging too
            h, x = avg_pool2d(h, 2), avg_pool2d(x, 2)
        return h + self.shortcut(x)


def generator_maps(size: int, width: int) -> list[int]:
    """Image size -> maps at 4x4 and after each block: width everywhere up to 32 pixels; 4 width ... width / 4 beyond."""
    doublings = max(1, ceil(log2(size)) - 2)
    if size <= 32:
        return [width] * (doublings + 1)
    return [min(4 * width, ceil(width / 4) * 2**i) for i in reversed(range(doublings + 1))]


def discriminator_maps(size: int, width: int) -> tuple[list[int], int]:
    """Image size -> maps after each block, and how many blocks, from the first on, halve the side."""
    depth = ceil(log2(size))
    if size <= 32:
        halvings = max(1, depth - 3)
        return [width] * (halvings + 2), halvings
    return [min(8 * width, ceil(width / 2) * 2**i) for i in range(depth - 1)], 5


def conv(i: int, o: int, kernel: int, gain: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the side; Glorot's initialisation times `gain`, biases zero."""
    layer = nn.Conv2d(i, o, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def linear(i: int, o: int) -> nn.Linear:
    """A linear layer, initialised likewise."""
    layer = nn.Linear(i, o)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
