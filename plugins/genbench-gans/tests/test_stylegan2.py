"""StyleGAN2 against the paper's equations and the parameter counts of the authors' release."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import pytest
import torch
from genbench_gans import stylegan2
from genbench_gans.stylegan2 import StyleGAN2, path_lengths
from genbench_gans.stylegan2_networks import Blur, Conv, Linear, ModulatedConv, StyleLayer, minibatch_stddev
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu

from genbench import Batch, ImageSpec
from genbench.model import Optimizers

TINY = {"z_dim": 8, "mapping_layers": 2, "channel_max": 6, "batch_size": 4}


class Batches:
    """Noise as images."""

    progress = 0.0

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        return Batch(torch.rand(4, 1, 8, 8) * 2 - 1)


def build(size: int = 8, **hparams: object) -> StyleGAN2:
    torch.manual_seed(0)
    return StyleGAN2(ImageSpec(1, size), **{**TINY, **hparams})


# ---- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution_is_that_of_each_images_own_weights(demodulate, up):
    torch.manual_seed(0)
    layer = ModulatedConv(3, 5, 3, w_dim=4, demodulate=demodulate, up=up)
    x, w = torch.randn(2, 3, 6, 6), torch.randn(2, 4)
    out, factors = layer(x, w)
    out = out * factors if demodulate else out
    for i in range(2):
        weight = layer.weight / sqrt(3 * 9) * layer.affine(w)[i, :, None, None]  # eq. 1
        if demodulate:
            weight = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()  # eq. 3
            assert torch.allclose(weight.flatten(1).norm(dim=1), torch.ones(5))
        if up:
            naive = layer.blur(conv_transpose2d(x[i : i + 1], weight.transpose(0, 1), stride=2), padding=1, gain=4)
        else:
            naive = conv2d(x[i : i + 1], weight, padding=1)
        assert torch.allclose(out[i : i + 1], naive, atol=1e-5)


def test_modulated_convolution_equals_the_grouped_form_of_the_release():
    torch.manual_seed(1)
    layer = ModulatedConv(4, 3, 3, w_dim=5)
    x, w = torch.randn(6, 4, 5, 5), torch.randn(6, 5)
    weights = layer.weight * layer.gain * layer.affine(w)[:, None, :, None, None]  # (B, 3, 4, 3, 3)
    weights = weights * (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    grouped = conv2d(x.reshape(1, 24, 5, 5), weights.flatten(0, 1), padding=1, groups=6).view(6, 3, 5, 5)
    out, factors = layer(x, w)
    assert torch.allclose(out * factors, grouped, atol=1e-5)


def test_a_style_of_one_is_where_training_starts():
    layer = ModulatedConv(4, 3, 1, w_dim=5)
    assert torch.equal(layer.affine(torch.zeros(1, 5)), torch.ones(1, 4))


def test_demodulation_keeps_unit_variance_whatever_the_style():
    torch.manual_seed(0)
    layer = ModulatedConv(32, 64, 3, w_dim=4)
    out, factors = layer(torch.randn(8, 32, 16, 16), 10 * torch.randn(8, 4))
    assert (out * factors)[:, :, 1:-1, 1:-1].std().item() == pytest.approx(1, abs=0.05)


def test_style_layer_adds_scaled_noise_of_one_value_for_all_maps():
    torch.manual_seed(0)
    layer = StyleLayer(2, 3, w_dim=4)
    x, w = torch.randn(1, 2, 8, 8).expand(2, -1, -1, -1), torch.randn(1, 4).expand(2, -1)
    quiet = layer(x, w)
    assert torch.equal(quiet[0], quiet[1])  # the strength starts at 0
    with torch.no_grad():
        layer.strength.fill_(0.5)
        layer.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    torch.manual_seed(3)
    noisy = layer(x, w)
    torch.manual_seed(3)
    noise = torch.randn(2, 1, 8, 8)
    out, factors = layer.conv(x, w)
    assert torch.allclose(noisy, sqrt(2) * leaky_relu(out * factors + 0.5 * noise + layer.bias[:, None, None], 0.2), atol=1e-6)


def test_equalised_learning_rate():
    torch.manual_seed(0)
    layer = Linear(256, 64, gain=sqrt(2), lr_multiplier=0.01, bias=1.0)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.02)  # 1 / multiplier
    x = torch.randn(512, 256)
    assert torch.allclose(layer(x), x @ layer.weight.T * (sqrt(2) * 0.01 / 16) + sqrt(2), atol=1e-4)
    assert layer(x).std().item() == pytest.approx(sqrt(2), rel=0.03)  # He's gain
    conv = Conv(16, 8, 3, gain=1.0)
    assert conv.weight.std().item() == pytest.approx(1, rel=0.05)
    image = torch.randn(2, 16, 6, 6)
    assert torch.allclose(conv(image), conv2d(image, conv.weight / 12, padding=1), atol=1e-5)  # sqrt(16 * 9) = 12


def test_resampling_with_1_3_3_1():
    blur = Blur()
    assert blur.kernel.sum().item() == pytest.approx(1)
    dot = torch.zeros(1, 2, 5, 5)
    dot[0, 1, 2, 2] = 1
    column = torch.tensor([0, 0, 0, 1, 3, 3, 1, 0, 0, 0]) / 4
    assert torch.allclose(blur.double(dot)[0, 1], column[:, None] * column)
    assert not blur.double(dot)[0, 0].any()
    # halving: the 1x1 convolution of the filtered image at every other pixel
    skip = Conv(2, 3, 1, gain=1.0, down=True, bias=False)
    x = torch.randn(1, 2, 8, 8)
    kernel = torch.tensor([1.0, 3, 3, 1])
    filtered = conv2d(x, (kernel[:, None] * kernel / 64).expand(2, 1, 4, 4), stride=2, padding=1, groups=2)
    assert torch.allclose(skip(x), conv2d(filtered, skip.weight / sqrt(2)), atol=1e-6)
    assert Conv(2, 3, 3, gain=1.0, down=True)(torch.zeros(1, 2, 33, 33)).shape == (1, 3, 16, 16)


def test_minibatch_stddev_by_hand():
    x = torch.zeros(4, 2, 1, 2)
    x[0], x[1] = 1.0, 3.0  # a group of deviation 1 everywhere
    x[3, 1, 0, 0] = 8.0  # a group of deviation 4 at one of four places
    out = minibatch_stddev(x, group=2)
    assert torch.equal(out[:, :2], x)
    assert torch.allclose(out[:, 2].flatten(1), torch.tensor([1.0, 1, 1, 1]).repeat_interleave(2).view(4, 2), atol=1e-3)
    x[3, 1, 0, 0] = 2.0
    assert torch.allclose(minibatch_stddev(x, group=2)[:, 2, 0, 0], torch.tensor([1, 1, 0.25, 0.25]), atol=1e-3)
    assert torch.allclose(minibatch_stddev(x, group=1)[:, 2], torch.full((4, 1, 2), 1e-4))


def test_a_discriminators_groups_do_not_mix_the_two_halves_of_its_step():
    model = build(batch_size=6)
    assert model.D.group == 2
    real, fake = torch.rand(6, 1, 8, 8), torch.rand(6, 1, 8, 8)
    assert torch.allclose(model.D(torch.cat([real, fake])), torch.cat([model.D(real), model.D(fake)]), atol=1e-5)


# ---- networks -------------------------------------------------------------------------------------------------------


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("size", "mapping_layers", "parameters_G", "parameters_D"),
    # the tables that stylegan2-ada-pytorch prints as training starts; config F's channels
    [(32, 8, 21_523_475, 21_507_073), (1024, 2, 28_794_124, 29_012_513)],
)
def test_published_numbers_of_parameters(size, mapping_layers, parameters_G, parameters_D):
    with torch.device("meta"):
        model = StyleGAN2(ImageSpec(3, size), mapping_layers=mapping_layers, channel_base=32768, channel_max=512)
    assert (count(model.G), count(model.D)) == (parameters_G, parameters_D)


def test_rgb_outputs_of_all_resolutions_are_summed():
    model = build(16)
    synthesis = model.G.synthesis
    with torch.no_grad():
        for to_rgb in synthesis.to_rgb:
            to_rgb.weight.zero_()
        synthesis.rgb_bias.copy_(torch.tensor([[1.0], [10.0], [100.0]]))
        images = model.G(torch.randn(2, 8))
    assert torch.allclose(images[:, :, 4:-4, 4:-4], torch.tensor(111.0))  # the filter fades to zero at the border


def test_w_is_the_same_for_z_of_any_length():
    model = build()
    z = torch.randn(3, 8)
    assert torch.allclose(model.G.mapping(z), model.G.mapping(7 * z), atol=1e-4)


def test_samples_are_the_average_generators_and_independent_of_each_other():
    model = build(16)
    with torch.no_grad():
        for p in model.G.parameters():
            p.zero_()
        z = torch.randn(5, 8)
        assert torch.allclose(model.G_ema(z)[:2], model.G_ema(z[:2]), atol=1e-5)
        model.G_ema.synthesis.rgb_bias.fill_(50.0)
        assert (model.sample(3) == 1).all()  # clipped


def test_style_mixing_takes_another_latent_from_some_layer_on():
    torch.manual_seed(0)
    model = build(16, style_mixing=0.5)
    _, ws = model.generate(400)
    changes = torch.stack([(a != b).any(1) for a, b in pairwise(ws.unbind(1))], 1)  # (n, layers - 1)
    assert changes.sum(1).max() == 1
    assert changes.any(1).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert changes.any(0).all()  # at every layer
    _, ws = build(16, style_mixing=0.0).generate(3)
    assert (ws == ws[:, :1]).all()


# ---- regularisation and training ------------------------------------------------------------------------------------


def test_r1_of_a_quadratic():
    # D(x) = sum over c k_c x_c^2 / 2 has gradient k x
    model = build()
    k = torch.tensor([1.0, 3.0])[:, None, None]
    model.D = nn.Module()
    model.D.forward = lambda x: (k * x.square()).sum((1, 2, 3)) / 2
    x = torch.randn(6, 2, 4, 4)
    assert model.r1(x).item() == pytest.approx((k * x).square().sum().item() / 6, rel=1e-5)


def test_the_weight_of_r1_by_the_heuristic_of_the_release():
    assert build(16, batch_size=8).gamma == pytest.approx(0.0002 * 256 / 8)
    assert build(gamma=10.0).gamma == 10.0


def test_path_lengths_of_a_linear_generator():
    # G(w) = sum over l A_l w_l with A_l orthogonal but for its scale a_l: |A_l^T y| = a_l |y|
    torch.manual_seed(0)
    scales = torch.tensor([1.0, 3.0], requires_grad=True)
    A = [torch.linalg.qr(torch.randn(16, 16))[0] for _ in scales]
    ws = torch.randn(500, 2, 16, requires_grad=True)
    images = sum(s * ws[:, i] @ a.T for i, (s, a) in enumerate(zip(scales, A, strict=True))).view(500, 1, 4, 4)
    lengths = path_lengths(images, ws)
    # E|y|^2 = 1 for one channel: E length^2 = (1 + 9) / 2
    assert lengths.square().mean().item() == pytest.approx(5, rel=0.05)
    torch.manual_seed(7)
    lengths = path_lengths(images, ws)
    torch.manual_seed(7)
    y = torch.randn(500, 16) / 4
    assert torch.allclose(lengths, y.norm(dim=1) * sqrt(5), atol=1e-4)
    (gradient,) = torch.autograd.grad(lengths.mean(), scales)
    assert torch.allclose(gradient, y.norm(dim=1).mean() / (2 * sqrt(5)) * scales.detach(), atol=1e-4)


def test_regularisers_are_lazy_and_the_mean_length_runs(monkeypatch):
    model = build(r1_every=4, pl_every=3, pl_weight=2.0, style_mixing=0.0)
    asked: list[str] = []
    weight = model.G.synthesis.rgb_bias

    def lengths(images: Tensor, ws: Tensor) -> Tensor:
        asked.append(f"pl {model.steps} of {len(images)}")
        return torch.tensor([1.0, 3.0]) + weight.sum()

    def r1(real: Tensor) -> Tensor:
        asked.append(f"r1 {model.steps}")
        return StyleGAN2.r1(model, real)

    monkeypatch.setattr(stylegan2, "path_lengths", lengths)
    monkeypatch.setattr(model, "r1", r1)
    optimizers = Optimizers(model.configure_optimizers())
    means = []
    for _ in range(6):
        model.training_step(Batches(), optimizers)
        means.append(model.a.item())
    assert asked == ["r1 0", "pl 0 of 2", "pl 3 of 2", "r1 4"]  # half a batch for path lengths
    # each is a step of its own: two more for what it reaches
    assert int(optimizers["D"].torch.state[model.D.from_rgb.weight]["step"]) == 6 + 2
    assert int(optimizers["G"].torch.state[weight]["step"]) == 6 + 2
    assert int(optimizers["G"].torch.state[model.G.synthesis.const]["step"]) == 6
    # a moves by a hundredth of the way to the mean length, 2 but for the bias
    assert means == pytest.approx([0.02] * 3 + [0.02 + 0.01 * (2 - 0.02)] * 3, abs=5e-4)


def test_the_penalty_of_path_lengths_pulls_them_to_their_mean(monkeypatch):
    # lengths (1, 3) + b lie above a = 0.02: the gradient of E (l - a)^2 in b is positive
    model = build(gamma=0.0, pl_weight=100.0, style_mixing=0.0, lr=0.01)
    bias = nn.Parameter(torch.zeros(()))
    model.G.register_parameter("b", bias)
    model.G_ema.register_parameter("b", nn.Parameter(torch.zeros(()), requires_grad=False))
    monkeypatch.setattr(stylegan2, "path_lengths", lambda images, ws: torch.tensor([1.0, 3.0]) + bias)
    model.training_step(Batches(), Optimizers(model.configure_optimizers()))
    assert model.a.item() == pytest.approx(0.02)
    assert bias.item() == pytest.approx(-0.01 * 8 / 9, rel=1e-4)  # one step of Adam at the corrected rate


def test_adam_is_corrected_for_lazy_regularisation():
    optimizers = build(r1_every=16, pl_every=8, lr=2e-3).configure_optimizers()
    for name, c in (("D", 16 / 17), ("G", 8 / 9)):
        group = optimizers[name].param_groups[0]
        assert group["lr"] == pytest.approx(2e-3 * c)
        assert group["betas"] == pytest.approx((0, 0.99**c))
    plain = build(gamma=0.0, pl_weight=0.0).configure_optimizers()
    assert {optimizer.param_groups[0]["lr"] for optimizer in plain.values()} == {2e-3}


def test_the_average_follows_with_its_half_life():
    model = build(ema_kimg=0.004, gamma=0.0, pl_weight=0.0)  # 4 images: half the way in a step
    before = model.G_ema.synthesis.const.clone()
    model.training_step(Batches(), Optimizers(model.configure_optimizers()))
    assert not torch.equal(model.G.synthesis.const, before)
    assert torch.allclose(model.G_ema.synthesis.const, (before + model.G.synthesis.const) / 2, atol=1e-6)
    assert not model.G_ema.synthesis.const.requires_grad


def test_the_count_of_steps_is_kept_with_the_state():
    model = build()
    model.training_step(Batches(), Optimizers(model.configure_optimizers()))
    other = build()
    other.load_state_dict(model.state_dict())
    assert other.steps == 1


def test_augmentation_stands_before_the_discriminator(monkeypatch):
    model = build(augment="translation,cutout")
    seen: list[tuple[int, tuple[str, ...]]] = []

    def augment(images: Tensor, policies: tuple[str, ...]) -> Tensor:
        seen.append((len(images), policies))
        return images

    monkeypatch.setattr(stylegan2.diffaugment, "augment", augment)
    model.training_step(Batches(), Optimizers(model.configure_optimizers()))
    assert seen == [(n, ("translation", "cutout")) for n in (8, 4, 4)]  # D's step, R1, G's step
    with pytest.raises(ValueError, match="flip"):
        build(augment="flip")
