"""Conv-VAE's networks."""

from __future__ import annotations

from genbench_vaes.conv_vae import ConvVAE
from torch import nn

from genbench import ImageSpec


def test_maps_double_at_every_halving() -> None:
    model = ConvVAE(ImageSpec(3, 64))
    assert [layer.out_channels for layer in model.encoder if isinstance(layer, nn.Conv2d)] == [64, 128, 256, 512]
