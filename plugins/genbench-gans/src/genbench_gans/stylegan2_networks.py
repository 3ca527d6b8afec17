"""The networks of StyleGAN2: figure 2c's weight demodulation, figure 7's skip generator and residual discriminator.

All layers have an equalised learning rate (Karras et al. 2018, arXiv:1710.10196): weights of unit variance, multiplied by their He
constant whenever they are used. Since leaky ReLU is homogeneous, its factor of sqrt(2) sits in that constant.
"""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, linear

from genbench import ImageSpec, full_precision


class Linear(nn.Module):
    """(B, inputs) -> (B, outputs). Adam moves what the layer does `lr_multiplier` times as fast; biases start at `bias`."""

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0, lr_multiplier: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.weight_gain, self.bias_gain = gain * lr_multiplier / sqrt(inputs), gain * lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Affine map."""
        return linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


class Blur(nn.Module):
    """The separable low-pass filter [1, 3, 3, 1] of every resampling, on each map by itself (section 4; Zhang 2019)."""

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", taps[:, None] * taps)

    def forward(self, x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
        """Filter; sides shrink by 3 less twice the padding."""
        return conv2d(x, (self.kernel * gain).to(x.dtype).expand(x.shape[1], 1, 4, 4), padding=padding, groups=x.shape[1])

    def double(self, x: Tensor) -> Tensor:
        """Double the sides."""
        kernel = (self.kernel * 4).to(x.dtype).expand(x.shape[1], 1, 4, 4)
        return conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


class Conv(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H, W), or half the sides where `down`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, gain: float, down: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.blur = Blur() if down else None
        self.weight_gain, self.gain, self.kernel = gain / sqrt(inputs * kernel**2), gain, kernel

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        weight = self.weight * self.weight_gain
        bias = None if self.bias is None else self.bias * self.gain
        if self.blur is None:
            return conv2d(x, weight, bias, padding=self.kernel // 2)
        return conv2d(self.blur(x, padding=1 + self.kernel // 2), weight, bias, stride=2)


class ModulatedConv(nn.Module):
    """Convolution whose weights each image's style scales: equations 1 to 3.

    The scales act on activations, before and after one convolution with the same weights for all images; that is the same and faster.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, w_dim: int, demodulate: bool = True, up: bool = False) -> None:
        super().__init__()
        self.affine = Linear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.blur = Blur() if up else None
        self.gain, self.kernel, self.demodulate = 1 / sqrt(inputs * kernel**2), kernel, demodulate

    def forward(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, inputs, H, W), (B, w_dim) w -> (B, outputs, H, W) or twice the sides, and factors (B, outputs, 1, 1) yet to be applied."""
        with full_precision():
            weight = self.weight * self.gain
            s = self.affine(w.float())  # (B, inputs)
            # eq. 3: sum over i, k of (s_i w_ijk)^2 = sum_i s_i^2 (sum_k w_ijk^2)
            factors = (s.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()[:, :, None, None] if self.demodulate else None
        x = x * s[:, :, None, None].to(x.dtype)  # eq. 1
        if self.blur is None:
            return conv2d(x, weight, padding=self.kernel // 2), factors
        return self.blur(conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4), factors


class StyleLayer(nn.Module):
    """Modulated 3x3 convolution, noise broadcast to all maps with a learned strength, bias, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, w_dim, up=up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, inputs, H, W), (B, w_dim) -> (B, outputs, H, W); fresh noise for each image and pixel."""
        x, factors = self.conv(x, w)
        noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device) * (sqrt(2) * self.strength)
        x = torch.addcmul(noise.to(x.dtype), x, (sqrt(2) * factors).to(x.dtype))
        return leaky_relu(x + (sqrt(2) * self.bias).to(x.dtype)[:, None, None], 0.2)


class Mapping(nn.Sequential):
    """(B, z_dim) z -> (B, z_dim) w: z on a sphere, then `layers` fully connected layers that learn at a hundredth of the rate."""

    def __init__(self, z_dim: int, layers: int) -> None:
        super().__init__()
        for _ in range(layers):
            self.extend([Linear(z_dim, z_dim, gain=sqrt(2), lr_multiplier=0.01), nn.LeakyReLU(0.2)])

    def forward(self, z: Tensor) -> Tensor:
        """In float32."""
        with full_precision():
            return super().forward(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())


class Synthesis(nn.Module):
    """(B, layers, w_dim) w of each layer -> (B, C, H, W) images, unbounded. A size that is no power of two is cropped from the next."""

    def __init__(self, image: ImageSpec, w_dim: int, maps: list[int]) -> None:
        super().__init__()
        self.size, self.layers = image.size, 2 * len(maps)
        self.const = nn.Parameter(torch.randn(1, maps[0], 4, 4))
        self.first = StyleLayer(maps[0], maps[0], w_dim)
        self.ups = nn.ModuleList(StyleLayer(i, o, w_dim, up=True) for i, o in pairwise(maps))
        self.convs = nn.ModuleList(StyleLayer(o, o, w_dim) for o in maps[1:])
        self.to_rgb = nn.ModuleList(ModulatedConv(o, image.channels, 1, w_dim, demodulate=False) for o in maps)
        self.rgb_bias = nn.Parameter(torch.zeros(len(maps), image.channels))
        self.blur = Blur()

    def forward(self, ws: Tensor) -> Tensor:
        """Sum of the RGB outputs of all resolutions (figure 7b)."""
        x = self.first(self.const.expand(len(ws), -1, -1, -1), ws[:, 0])
        rgb = self.rgb(0, x, ws[:, 1])
        for i, (up, conv) in enumerate(zip(self.ups, self.convs, strict=True), start=1):
            x = conv(up(x, ws[:, 2 * i - 1]), ws[:, 2 * i])
            rgb = self.blur.double(rgb) + self.rgb(i, x, ws[:, 2 * i + 1])
        return rgb[:, :, : self.size, : self.size].float()

    def rgb(self, i: int, x: Tensor, w: Tensor) -> Tensor:
        """(B, maps, H, W) of the i-th resolution -> (B, C, H, W)."""
        return self.to_rgb[i](x, w)[0] + self.rgb_bias[i, :, None, None]


class Generator(nn.Module):
    """(B, z_dim) z -> (B, C, H, W) images, unbounded."""

    def __init__(self, image: ImageSpec, z_dim: int, mapping_layers: int, maps: list[int]) -> None:
        super().__init__()
        self.mapping = Mapping(z_dim, mapping_layers)
        self.synthesis = Synthesis(image, z_dim, maps)

    def forward(self, z: Tensor) -> Tensor:
        """The same w for all layers."""
        images: Tensor = self.synthesis(self.mapping(z)[:, None].expand(-1, self.synthesis.layers, -1))
        return images


class ResidualBlock(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H/2, W/2): two convolutions beside a linear path, their sum divided by sqrt(2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = Conv(inputs, inputs, 3, gain=sqrt(2))
        self.conv1 = Conv(inputs, outputs, 3, gain=1.0, down=True)
        self.skip = Conv(inputs, outputs, 1, gain=sqrt(0.5), down=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Both paths."""
        return leaky_relu(self.conv1(leaky_relu(self.conv0(x), 0.2)), 0.2) + self.skip(x)


class Discriminator(nn.Module):
    """(B, C, H, W) images -> (B,) float32 logits; B a multiple of `group`, the images of a group in sequence."""

    def __init__(self, image: ImageSpec, maps: list[int], group: int) -> None:
        super().__init__()
        self.group = group
        self.from_rgb = Conv(image.channels, maps[-1], 1, gain=sqrt(2))
        self.blocks = nn.Sequential(*(ResidualBlock(i, o) for i, o in pairwise(reversed(maps))))
        self.conv = Conv(maps[0] + 1, maps[0], 3, gain=sqrt(2))
        self.hidden = Linear(maps[0] * (image.size >> len(maps) - 1) ** 2, maps[0], gain=sqrt(2))
        self.output = Linear(maps[0], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images -> logits, each a function of its group."""
        x = self.blocks(leaky_relu(self.from_rgb(images), 0.2))
        x = leaky_relu(self.conv(minibatch_stddev(x, self.group)), 0.2).flatten(1)
        with full_precision():
            logits: Tensor = self.output(leaky_relu(self.hidden(x.float()), 0.2))
        return logits.flatten()


def minibatch_stddev(x: Tensor, group: int) -> Tensor:
    """(B, C, H, W) -> (B, C + 1, H, W): the last map is the mean standard deviation among each `group` images in sequence.

    Karras et al. 2018, section 3.
    """
    groups = x.float().unflatten(0, (-1, group))  # (B / group, group, C, H, W)
    stddev = ((groups - groups.mean(1, keepdim=True)).square().mean(1) + 1e-8).sqrt().mean((1, 2, 3)).to(x.dtype)
    return torch.cat([x, stddev.repeat_interleave(group, output_size=len(x))[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)
