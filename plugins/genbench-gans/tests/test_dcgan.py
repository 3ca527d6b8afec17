"""DCGAN against the guidelines of section 3, the set-up of section 4 and the authors' release."""

from __future__ import annotations

import pytest
import torch
from genbench_gans.dcgan import DCGAN
from torch import nn

from genbench import ImageSpec


def test_dcgan_has_the_published_number_of_parameters():
    # 64x64x3, 64 maps: the sizes of the authors' Torch release as counted for PyTorch's port, examples/dcgan
    model = DCGAN(ImageSpec(3, 64))
    assert sum(p.numel() for p in model.G.parameters()) == 3_576_704
    assert sum(p.numel() for p in model.D.parameters()) == 2_765_568


def test_dcgan_follows_the_guidelines():
    model = DCGAN(ImageSpec(3, 64), width=8)
    kinds_G = [type(layer).__name__ for layer in (*model.G.hidden, *model.G.output)]
    kinds_D = [type(layer).__name__ for layer in model.D.net]
    up, down = ["ConvTranspose2d", "BatchNorm2d", "ReLU"], ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds_G == ["BatchNorm2d", "ReLU", *up * 3, "ConvTranspose2d", "Tanh"]
    assert kinds_D == ["Conv2d", "LeakyReLU", *down * 3, "Flatten", "Linear"]
    assert {layer.negative_slope for layer in model.D.net if isinstance(layer, nn.LeakyReLU)} == {0.2}
    ups = [layer for layer in model.G.hidden if isinstance(layer, nn.ConvTranspose2d)]
    assert [tuple(layer.weight.shape[:2]) for layer in ups] == [(64, 32), (32, 16), (16, 8)]


def test_dcgan_starts_from_the_papers_initialisation_and_optimizer():
    torch.manual_seed(0)
    model = DCGAN(ImageSpec(1, 32), width=32)
    weights = torch.cat([p.flatten() for name, p in model.named_parameters() if p.ndim > 1])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert abs(weights.mean().item()) < 2e-4
    for optimizer in model.configure_optimizers().values():
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"]) == (2e-4, (0.5, 0.999))


@pytest.mark.parametrize("size", [9, 12, 28, 33])
def test_sizes_that_are_no_power_of_two_are_cut_from_the_next_one(size):
    model = DCGAN(ImageSpec(3, size), z_dim=6, width=4).eval()
    with torch.inference_mode():
        images = model.sample(2)
        assert model.D(images).shape == (2,)
    assert images.shape == (2, 3, size, size)
