"""The networks of BigGAN: figure 15 and appendix B, all weights divided by their largest singular values.

Widths at 32, 64 and 128 pixels are those of the authors' PyTorch release (github.com/ajbrock/BigGAN-PyTorch).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import ceil, log2
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, normalize, relu, scaled_dot_product_attention
from torch.nn.utils.parametrize import register_parametrization

from genbench import ImageSpec, full_precision

Initialisation = Literal["orthogonal", "N02"]


def widths(size: int, ch: int) -> list[int]:
    """Image size -> maps of G at sides 4, 8, ..., size: constant up to 32 pixels, else 16 ch at first and halved from side 16 on."""
    if size <= 32:
        return [4 * ch] * max(2, ceil(log2(size)) - 1)
    return [ch * min(16, max(1, 128 >> power)) for power in range(2, ceil(log2(size)) + 1)]


class Generator(nn.Module):
    """(B, z_dim) z, (B,) y -> (B, C, H, W) images in [-1, 1]. A size that is no power of two is cropped from the next one."""

    def __init__(self, image: ImageSpec, z_dim: int, ch: int, shared_dim: int, attention: int, init: Initialisation) -> None:
        super().__init__()
        self.size, maps = image.size, widths(image.size, ch)
        blocks = len(maps) - 1
        # skip-z: a part of z for the bottom and one for each block
        part = max(1, z_dim // (blocks + 1)) if shared_dim else z_dim
        self.z_dim = part * (blocks + 1) if shared_dim else z_dim
        self.embed = initialised(nn.Embedding(image.num_classes, shared_dim), init) if shared_dim else None

        def condition(maps: int) -> nn.Module:
            """Layer from a block's condition to as many gains or biases: (class, part of z), or the class by itself."""
            if shared_dim:
                return linear(shared_dim + part, maps, init, bias=False)
            return initialised(nn.Embedding(image.num_classes, maps), init)

        self.project = linear(part, maps[0] * 4 * 4, init)
        self.blocks = nn.ModuleList(GBlock(i, o, condition, init) for i, o in pairwise(maps))
        self.attention = place_attention(attention, [8 << i for i in range(blocks)], maps[1:], init)
        self.norm = nn.BatchNorm2d(maps[-1])
        self.output = conv(maps[-1], image.channels, 3, init)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """z, y -> images."""
        if self.embed is None:
            conditions = [y] * len(self.blocks)
        else:
            shared = self.embed(y)
            z, *rest = z.chunk(len(self.blocks) + 1, dim=1)
            conditions = [torch.cat([shared, part], 1) for part in rest]
        h = self.project(z).unflatten(1, (-1, 4, 4))
        for block, attend, c in zip(self.blocks, self.attention, conditions, strict=True):
            h = attend(block(h, c))
        return torch.tanh(self.output(relu(self.norm(h)))).float()[:, :, : self.size, : self.size]


class Discriminator(nn.Module):
    """(B, C, H, W) images, (B,) y -> (B,) float32 logits: a linear one plus the inner product of features and class (projection)."""

    def __init__(self, image: ImageSpec, ch: int, attention: int, init: Initialisation) -> None:
        super().__init__()
        power = ceil(log2(image.size))
        maps, halvings = ([4 * ch] * 4, 2) if power <= 5 else ([ch * min(16, 1 << i) for i in range(power - 1)], power - 2)
        self.blocks = nn.ModuleList(
            DBlock(i, o, init, down=position < halvings, first=position == 0)
            for position, (i, o) in enumerate(pairwise([image.channels, *maps]))
        )
        sides = [1 << power - min(position + 1, halvings) for position in range(len(maps))]
        self.attention = place_attention(attention, sides, maps, init)
        self.output = linear(maps[-1], 1, init)
        self.embed = normalised(initialised(nn.Embedding(image.num_classes, maps[-1]), init))

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        """Images, classes -> logits."""
        h = images
        for block, attend in zip(self.blocks, self.attention, strict=True):
            h = attend(block(h))
        with full_precision():
            h = relu(h).float().sum((2, 3))
            logits: Tensor = self.output(h).flatten() + (self.embed(y) * h).sum(1)
        return logits


class GBlock(nn.Module):
    """(B, inputs, H, W), condition -> (B, outputs, 2H, 2W). Figure 15b."""

    def __init__(self, inputs: int, outputs: int, condition: Callable[..., nn.Module], init: Initialisation) -> None:
        super().__init__()
        self.norm1, self.norm2 = ConditionalNorm(inputs, condition), ConditionalNorm(outputs, condition)
        self.conv1, self.conv2 = conv(inputs, outputs, 3, init), conv(outputs, outputs, 3, init)
        self.skip = conv(inputs, outputs, 1, init)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Both paths; the 1x1 convolution commutes with repeating pixels and goes first."""
        h = self.conv1(interpolate(relu(self.norm1(x, c)), scale_factor=2))
        h = self.conv2(relu(self.norm2(h, c)))
        return h + interpolate(self.skip(x), scale_factor=2)


class DBlock(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H/2, W/2), or the same sides where not `down`. Figure 15c."""

    def __init__(self, inputs: int, outputs: int, init: Initialisation, down: bool, first: bool) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1, self.conv2 = conv(inputs, outputs, 3, init), conv(outputs, outputs, 3, init)
        self.skip = conv(inputs, outputs, 1, init) if down or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Both paths; the 1x1 convolution commutes with pooling and comes second."""
        h = self.conv2(relu(self.conv1(x if self.first else relu(x))))
        if self.down:
            h, x = avg_pool2d(h, 2), avg_pool2d(x, 2)
        return h + self.skip(x)


class ConditionalNorm(nn.Module):
    """BatchNorm whose gain (around 1) and bias are functions of the condition."""

    def __init__(self, maps: int, condition: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(maps, affine=False)
        self.gain, self.bias = condition(maps), condition(maps)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, maps, H, W), condition -> as many."""
        x = self.norm(x)
        gain, bias = (1 + self.gain(c)).to(x.dtype), self.bias(c).to(x.dtype)
        return torch.addcmul(bias[:, :, None, None], x, gain[:, :, None, None])


class Attention(nn.Module):
    """Self-attention over pixels, its gain learned from 0; keys pooled as in the release. Zhang et al. 2019, arXiv:1805.08318."""

    def __init__(self, maps: int, init: Initialisation) -> None:
        super().__init__()
        inner, values = max(1, maps // 8), max(1, maps // 2)
        self.query, self.key = conv(maps, inner, 1, init, bias=False), conv(maps, inner, 1, init, bias=False)
        self.value, self.output = conv(maps, values, 1, init, bias=False), conv(values, maps, 1, init, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, maps, H, W) -> as many."""
        query, key, value = self.query(x), max_pool2d(self.key(x), 2), max_pool2d(self.value(x), 2)
        tokens = [t.flatten(2).mT for t in (query, key, value)]
        attended = scaled_dot_product_attention(*tokens, scale=1.0).mT.unflatten(2, x.shape[2:])
        return x + self.gamma.to(x.dtype) * self.output(attended)


def place_attention(side: int, sides: list[int], maps: list[int], init: Initialisation) -> nn.ModuleList:
    """Attention after the first of the blocks whose outputs have this side, nothing after the others."""
    where = sides.index(side) if side in sides else None
    return nn.ModuleList(Attention(maps[i], init) if i == where else nn.Identity() for i in range(len(maps)))


class SpectralNorm(nn.Module):
    """W -> W / sigma(W), with a power iteration for each use in training. Miyato et al. 2018, arXiv:1802.05957, algorithm 1."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("u", normalize(torch.randn(len(weight), device=weight.device), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """(outputs, ...) -> as many, of largest singular value 1."""
        with full_precision():
            matrix = weight.flatten(1)
            with torch.no_grad():
                v = normalize(matrix.T @ self.u, dim=0)
            Wv = matrix @ v
            sigma = Wv.norm()  # u^T W v for u = W v / |W v|
            if self.training:
                self.u.copy_(Wv.detach() / sigma.detach())
            return weight / sigma


def initialised(layer: nn.Module, init: Initialisation) -> nn.Module:
    """Make weights orthogonal, or normal with a standard deviation of 0.02; biases stay as torch has them."""
    if init == "orthogonal":
        nn.init.orthogonal_(layer.weight)
    else:
        nn.init.normal_(layer.weight, 0, 0.02)
    return layer


def normalised(layer: nn.Module) -> nn.Module:
    """Divide a layer's weight by its largest singular value from now on."""
    register_parametrization(layer, "weight", SpectralNorm(layer.weight))
    return layer


def conv(inputs: int, outputs: int, kernel: int, init: Initialisation, bias: bool = True) -> nn.Module:
    """Spectrally normalised convolution that keeps the sides."""
    return normalised(initialised(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias), init))


def linear(inputs: int, outputs: int, init: Initialisation, bias: bool = True) -> nn.Module:
    """Spectrally normalised affine map."""
    return normalised(initialised(nn.Linear(inputs, outputs, bias=bias), init))
