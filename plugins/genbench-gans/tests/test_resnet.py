"""The shared ResNets against the published tables, by hand, and against the order of operations as printed."""

from __future__ import annotations

import pytest
import torch
from genbench_gans import genbench_models
from genbench_gans.resnet import Discriminator, DownBlock, Features, Generator, UpBlock, discriminator_maps, generator_maps, plain
from genbench_gans.wgan_gp import WGANGP
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from genbench import Batch, ImageSpec
from genbench.model import Optimizers


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_at_32_pixels_are_the_published_ones():
    # SNGAN's table 4 as mimicry builds it (torch_mimicry/nets/sngan/sngan_32.py: ngf=256, ndf=128, nz=128), layer by layer
    with torch.device("meta"):
        G, D = Generator(ImageSpec(3, 32), 128, 256), Discriminator(ImageSpec(3, 32), 128)
    linear, norm, conv1, conv3 = 129 * 4096, 2 * 256, 257 * 256, (9 * 256 + 1) * 256
    assert count(G) == linear + 3 * (2 * conv3 + conv1 + 2 * norm) + norm + (9 * 256 + 1) * 3 == 4_276_739
    first, conv1, conv3 = (9 * 3 + 1) * 128, 129 * 128, (9 * 128 + 1) * 128
    assert count(D) == (first + conv3 + 4 * 128) + (2 * conv3 + conv1) + 2 * 2 * conv3 + 129 == 1_053_825


def test_parameters_at_64_pixels_are_the_published_ones():
    # mimicry's sngan_64.py: G 1024-512-256-128-64 maps, D 64-128-256-512-1024, all of its blocks halving
    with torch.device("meta"):
        G, D = Generator(ImageSpec(3, 64), 128, 256), Discriminator(ImageSpec(3, 64), 128)
    up = sum(9 * i * o + o + 9 * o * o + o + i * o + o + 2 * i + 2 * o for i, o in ((1024, 512), (512, 256), (256, 128), (128, 64)))
    assert count(G) == 129 * 16 * 1024 + up + 2 * 64 + (9 * 64 + 1) * 3
    down = sum(9 * i * i + i + 9 * i * o + o + i * o + o for i, o in ((64, 128), (128, 256), (256, 512), (512, 1024)))
    assert count(D) == (9 * 3 * 64 + 64 + 9 * 64 * 64 + 64 + 3 * 64 + 64) + down + 1025
    assert [block.halve for block in D.features.net] == [True] * 5


@pytest.mark.parametrize(
    ("size", "G", "D", "halvings"),
    [
        (8, [256] * 2, [128] * 3, 1), (16, [256] * 3, [128] * 3, 1), (28, [256] * 4, [128] * 4, 2), (32, [256] * 4, [128] * 4, 2),
        (48, [1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024], 5), (64, [1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024], 5),
        (128, [1024, 1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024, 1024], 5),
    ],
)  # fmt: skip
def test_maps_and_depth_follow_the_size(size, G, D, halvings):
    assert generator_maps(size, 256) == G
    assert discriminator_maps(size, 128) == (D, halvings)


@pytest.mark.parametrize("size", [8, 12, 16, 32, 33, 64])
@pytest.mark.parametrize("blocks", ["authors", "mimicry"])
def test_images_and_logits_at_every_size(blocks, size):
    image = ImageSpec(1, size)
    G, D = Generator(image, 5, 4, blocks), Discriminator(image, 4, blocks)
    images = G(torch.randn(3, 5))
    assert images.shape == (3, 1, size, size)
    assert images.abs().max() <= 1
    assert D(images).shape == (3,)


def test_up_block_is_the_printed_order():
    torch.manual_seed(0)
    block, x = UpBlock(3, 5, nn.BatchNorm2d, "nearest").eval(), torch.randn(2, 3, 4, 4)
    block.norm1.running_mean.copy_(torch.tensor([0.5, -0.5, 0.2]))
    with torch.no_grad():
        nn.init.normal_(block.shortcut.bias)
        h = (x - block.norm1.running_mean[:, None, None]) / (1 + 1e-5) ** 0.5
        h = interpolate(h.relu(), scale_factor=2)
        h = conv2d(h, block.conv1.weight, block.conv1.bias, padding=1) / (1 + 1e-5) ** 0.5
        expected = block.conv2(h.relu()) + block.shortcut(interpolate(x, scale_factor=2))
        assert torch.allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize(("halve", "first", "rectify"), [(1, 1, 0), (1, 0, 0), (1, 0, 1), (0, 0, 0), (0, 0, 1)])
def test_down_block_is_the_printed_order(halve, first, rectify):
    torch.manual_seed(0)
    block, x = DownBlock(4, 4, plain, halve, first, rectify), torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        active = x if first else x.relu()
        shortcut = block.shortcut(active if rectify else x)
        h = block.conv2(block.conv1(active).relu())
        expected = avg_pool2d(h, 2) + avg_pool2d(shortcut, 2) if halve else h + shortcut
        assert torch.allclose(block(x), expected, atol=1e-5)
    assert isinstance(block.shortcut, nn.Conv2d) == halve


def test_the_input_of_a_block_survives_it():
    # an in-place ReLU would rectify the shortcut's input as well, which is mimicry's reading, not the papers'
    x = torch.randn(1, 4, 4, 4)
    kept = x.clone()
    for rectify in (False, True):
        DownBlock(4, 4, plain, False, False, rectify)(x)
    UpBlock(4, 4, nn.BatchNorm2d, "nearest")(x)
    assert torch.equal(x, kept)


def test_pooling_by_sum_and_by_mean():
    image, x = ImageSpec(1, 16), torch.rand(2, 1, 16, 16)
    total, mean = Features(image, 4), Features(image, 4, pool="mean")
    mean.load_state_dict(total.state_dict())
    assert torch.allclose(total(x), 64 * mean(x), rtol=1e-5)  # 8x8 maps


def test_residual_convolutions_start_larger_than_the_others():
    # Glorot's uniform bound sqrt(6 / (fan_in + fan_out)), times sqrt 2 inside the blocks
    torch.manual_seed(0)
    block = DownBlock(32, 32, plain, True, False, False)
    assert block.conv1.weight.abs().max().item() == pytest.approx((2 * 6 / (2 * 9 * 32)) ** 0.5, rel=0.01)
    assert block.shortcut.weight.abs().max().item() == pytest.approx((6 / 64) ** 0.5, rel=0.01)
    assert not block.conv1.bias.any()


# ---- WGAN-GP on these networks --------------------------------------------------------------------------------------


class Ones:
    """Batches of white images."""

    progress = 0.25

    def __iter__(self) -> Ones:
        return self

    def __next__(self) -> Batch:
        return Batch(torch.ones(4, 1, 8, 8))


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("wgan-gp", (4_276_739, 1_053_825)), ("sngan", (4_276_739, 1_053_825)), ("cgan-pd", (4_304_387, 1_055_105))],
)
def test_presets_build_mimicrys_set_ups(name, parameters):
    # mimicry's README, CIFAR-10: batches of 64, Adam (2e-4, 0, 0.9), linear decay, five steps of D
    spec = {spec.name: spec for spec in genbench_models()}[name]
    with torch.device("meta"):
        model = spec.cls(ImageSpec(3, 32, num_classes=10), **spec.presets["reproduce-mimicry-cifar10"])
    assert (count(model.G), count(model.D)) == parameters
    assert (model.batch_size, model.lr, model.betas, model.linear_decay) == (64, 2e-4, (0.0, 0.9), True)
    assert (model.n_critic if name == "wgan-gp" else model.n_dis) == 5
    assert {block.mode for block in model.G.blocks} == {"bilinear"}
    assert {block.rectify for block in model.D.modules() if isinstance(block, DownBlock)} == {True}


def test_wgan_gp_pools_by_the_mean_and_normalises_nothing_in_D():
    model = WGANGP(ImageSpec(3, 32), network="resnet", width=4)
    assert model.D.features.pool == "mean"
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.D.modules())


def test_wgan_gp_decays_linearly_where_asked():
    for linear_decay, lr in ((False, 1e-4), (True, 0.75e-4)):
        model = WGANGP(ImageSpec(1, 8), network="resnet", width=4, n_critic=1, batch_size=4, linear_decay=linear_decay)
        before, optimizers = parameters(model), Optimizers(model.configure_optimizers())
        model.training_step(Ones(), optimizers)
        assert optimizers["G"].lr == optimizers["D"].lr == pytest.approx(lr)
        moved = {name for name, p in model.named_parameters() if not torch.equal(before[name], p)}
        # the critic's last bias cancels in D(x) - D(G(z)) and has no part in the penalty
        assert {name for name in before if name.startswith("D.")} - moved <= {"D.output.bias"}
