"""BigGAN's losses, conditioning and attention by hand; its size against the authors' and compare_gan's counts."""

from __future__ import annotations

import pytest
import torch
from genbench_gans.biggan import BigGAN, hinge_loss
from genbench_gans.biggan_networks import Attention, ConditionalNorm, DBlock, GBlock, SpectralNorm, linear, normalised
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, relu

from genbench import Batch, ImageSpec
from genbench.model import Optimizers

TINY = {"z_dim": 8, "ch": 2, "shared_dim": 3, "n_dis": 2, "batch_size": 4}


class Batches:
    """Noise as images of classes 0 to 3; counts what was drawn."""

    progress = 0.0

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        self.drawn += 4
        return Batch(torch.rand(4, 1, 8, 8) * 2 - 1, torch.arange(4))


def build(size: int = 8, **hparams: object) -> BigGAN:
    torch.manual_seed(0)
    return BigGAN(ImageSpec(1, size, 10), **{**TINY, **hparams})


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ---- networks -------------------------------------------------------------------------------------------------------


def test_number_of_parameters_of_the_cifar10_script():
    # launch_cifar_ema.sh: no shared embedding, no skip-z, 64 channels; its log says 4.3M and 4.2M (issue 78 of the release)
    with torch.device("meta"):
        model = BigGAN(ImageSpec(3, 32, 10), shared_dim=0)
    block = 2 * (256 * 256 * 9 + 256) + 256 * 256 + 256
    assert count(model.G) == 129 * 4096 + 3 * (block + 4 * 10 * 256) + 2 * 256 + 256 * 9 * 3 + 3 == 4_304_387
    first = 3 * 256 * 9 + 256 + 256 * 256 * 9 + 256 + 3 * 256 + 256
    assert count(model.D) == first + block + 2 * 2 * (256 * 256 * 9 + 256) + 257 + 10 * 256 == 4_207_361


def test_number_of_parameters_of_the_paper_at_128_pixels():
    # table 1's ch = 96 with shared embedding and skip-z; the counts that google/compare_gan's resnet_biggan_test.py asserts
    with torch.device("meta"):
        model = BigGAN(ImageSpec(3, 128, 1000), z_dim=120, ch=96, attention=64)
    assert (count(model.G), count(model.D)) == (70_433_988, 87_982_370)


def test_blocks_are_those_of_figure_15_though_1x1_convolutions_move():
    torch.manual_seed(0)
    condition = lambda maps: linear(3, maps, "orthogonal", bias=False)  # noqa: E731
    up, down = GBlock(4, 6, condition, "N02").eval(), DBlock(4, 6, "N02", down=True, first=False).eval()
    x, c = torch.randn(2, 4, 4, 4), torch.randn(2, 3)
    h = up.conv1(interpolate(relu(up.norm1(x, c)), scale_factor=2))
    h = up.conv2(relu(up.norm2(h, c))) + up.skip(interpolate(x, scale_factor=2))
    assert torch.allclose(up(x, c), h, atol=1e-6)
    h = avg_pool2d(down.conv2(relu(down.conv1(relu(x)))), 2) + avg_pool2d(down.skip(x), 2)
    assert torch.allclose(down(x), h, atol=1e-6)
    same = DBlock(4, 4, "N02", down=False, first=True).eval()
    assert torch.allclose(same(x), same.conv2(relu(same.conv1(x))) + x)


def test_conditional_norm_scales_and_shifts_by_class():
    norm = ConditionalNorm(2, lambda maps: nn.Embedding(3, maps))
    with torch.no_grad():
        norm.gain.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0], [0.0, 2.0]]))
        norm.bias.weight.copy_(torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 7.0]]))
    x = torch.randn(3, 2, 4, 4)
    out = norm(x, torch.tensor([0, 1, 2]))
    z = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(out[0], z[0], atol=1e-5)
    assert torch.allclose(out[1], torch.stack([2 * z[1, 0] + 5, 0 * z[1, 1]]), atol=1e-5)
    assert torch.allclose(out[2], torch.stack([z[2, 0], 3 * z[2, 1] + 7]), atol=1e-5)


def test_attention_is_a_softmax_over_pooled_pixels_and_starts_as_nothing():
    torch.manual_seed(0)
    attention = Attention(16, "orthogonal").eval()
    x = torch.randn(2, 16, 4, 6)
    assert torch.equal(attention(x), x)
    with torch.no_grad():
        attention.gamma.fill_(0.5)
    query = attention.query(x).flatten(2)
    key, value = (max_pool2d(t, 2).flatten(2) for t in (attention.key(x), attention.value(x)))
    beta = torch.softmax(torch.einsum("bci,bcj->bij", query, key), 2)  # pixel i attends to pooled pixel j
    o = attention.output(torch.einsum("bij,bcj->bci", beta, value).view(2, 8, 4, 6))
    assert torch.allclose(attention(x), x + 0.5 * o, atol=1e-5)


def test_attention_stands_at_one_resolution_of_both_networks():
    model = build(32, attention=16)
    assert [isinstance(module, Attention) for module in model.G.attention] == [False, True, False]  # sides 8, 16, 32
    assert [isinstance(module, Attention) for module in model.D.attention] == [True, False, False, False]  # sides 16, 8, 8, 8
    with pytest.raises(ValueError, match="attention=24"):
        build(32, attention=24)


def test_spectral_norm_finds_the_largest_singular_value_in_training_only():
    torch.manual_seed(0)
    weight = torch.randn(6, 3, 2, 2)
    norm = SpectralNorm(weight)
    for _ in range(200):
        scaled = norm(weight)
    assert torch.linalg.matrix_norm(scaled.flatten(1), 2).item() == pytest.approx(1, abs=1e-4)
    assert torch.allclose(scaled * torch.linalg.matrix_norm(weight.flatten(1), 2), weight, atol=1e-3)
    u = norm.u.clone()
    norm.eval()
    norm(torch.randn(6, 3, 2, 2))
    assert torch.equal(norm.u, u)
    # the gradient of w / sigma in w with sigma = u^T W v: (1 - u v^T <w / sigma, .>) / sigma
    w = weight.clone().requires_grad_()
    g = torch.randn_like(w)
    (gradient,) = torch.autograd.grad((norm(w) * g).sum(), w)
    U, S, V = torch.linalg.svd(weight.flatten(1))
    uv = (U[:, :1] @ V[:1]).view_as(w)
    assert torch.allclose(gradient, (g - (g * weight / S[0]).sum() * uv) / S[0], atol=1e-3)


def test_weights_start_orthogonal_or_normal():
    model = build(ch=4)
    W = model.D.blocks[1].conv1.parametrizations.weight.original.flatten(1)
    assert torch.allclose(W @ W.T, torch.eye(len(W)), atol=1e-5)
    W = build(ch=8, init="N02").D.blocks[1].conv1.parametrizations.weight.original
    assert W.std().item() == pytest.approx(0.02, rel=0.05)


def test_each_block_reads_the_class_and_its_own_part_of_z():
    model = build(32)  # a part of 2 for the bottom and for each of three blocks
    inputs: dict[int, Tensor] = {}
    for i, block in enumerate(model.G.blocks):
        block.register_forward_hook(lambda module, args, out, i=i: inputs.__setitem__(i, args[1]))
    z, y = torch.randn(2, 8), torch.tensor([3, 7])
    model.G(z, y)
    for i in range(3):
        assert torch.equal(inputs[i][:, :3], model.G.embed(y))
        assert torch.equal(inputs[i][:, 3:], z[:, 2 * i + 2 : 2 * i + 4])
    # what z cannot be divided into evenly is dropped
    assert build(32, z_dim=11).latent(5).shape == (5, 8)


def test_the_discriminator_projects_features_on_the_class():
    model = build().eval()
    features: list[Tensor] = []
    model.D.attention[-1].register_forward_hook(lambda module, args, out: features.append(relu(out).sum((2, 3))))
    x = torch.randn(3, 1, 8, 8)
    y, other = torch.tensor([1, 2, 3]), torch.tensor([4, 2, 0])
    with torch.no_grad():
        difference = model.D(x, y) - model.D(x, other)
        by_hand = ((model.D.embed(y) - model.D.embed(other)) * features[0]).sum(1)
    assert torch.allclose(difference, by_hand, atol=1e-5)
    assert difference[1] == 0
    assert difference[0] != 0


def test_an_embedding_is_normalised_as_a_matrix():
    table = normalised(nn.Embedding(4, 6))
    for _ in range(100):
        table(torch.tensor([0]))
    assert torch.linalg.matrix_norm(table.weight, 2).item() == pytest.approx(1, abs=1e-3)


# ---- training -------------------------------------------------------------------------------------------------------


def test_hinge_loss_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.5])
    assert hinge_loss(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2.5) / 3)
    assert hinge_loss(fake, real).item() != pytest.approx(hinge_loss(real, fake).item(), abs=0.1)


def test_defaults_are_those_of_the_cifar10_script():
    model = BigGAN(ImageSpec(1, 8, 10), ch=1)
    assert (model.n_dis, model.batch_size, model.ema, model.ema_start, model.G.z_dim) == (4, 50, 0.9999, 1000, 128)
    for optimizer in model.configure_optimizers().values():
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]) == (2e-4, (0.0, 0.999))


def test_a_step_draws_a_batch_for_each_step_of_D_and_judges_images_with_their_classes():
    model = build(n_dis=3)
    judged: list[tuple[int, list[int]]] = []
    model.D.register_forward_hook(lambda module, args, out: judged.append((len(args[0]), args[1][:4].tolist())))
    batches = Batches()
    model.training_step(batches, Optimizers(model.configure_optimizers()))
    assert batches.drawn == 12
    assert [n for n, _ in judged] == [8, 8, 8, 4]
    assert all(labels == [0, 1, 2, 3] for n, labels in judged if n == 8)


def test_the_average_copies_G_at_first_and_lags_later():
    model = build(ema=0.5, ema_start=1)
    optimizers = Optimizers(model.configure_optimizers())
    model.training_step(Batches(), optimizers)
    assert all(torch.equal(a, b) for a, b in zip(model.G_ema.parameters(), model.G.parameters(), strict=True))
    before = model.G_ema.project.bias.clone()
    model.training_step(Batches(), optimizers)
    assert torch.allclose(model.G_ema.project.bias, (before + model.G.project.bias) / 2, atol=1e-7)
    assert not torch.equal(before, model.G.project.bias)


def test_the_average_has_its_own_batch_statistics():
    model = build(lr_G=0.0)
    optimizers = Optimizers(model.configure_optimizers())
    with torch.no_grad():
        model.G.project.bias.fill_(3.0)
    for _ in range(100):  # the variance of 1 that they start from is forgotten
        model.training_step(Batches(), optimizers)
    mean, spread = model.G_ema.blocks[0].norm1.norm.running_mean, model.G_ema.blocks[0].norm1.norm.running_var.sqrt()
    with torch.no_grad():
        h = model.G_ema.project(torch.randn(2000, 4)).unflatten(1, (-1, 4, 4))
    assert torch.allclose(mean, h.mean((0, 2, 3)), atol=0.1)
    assert torch.allclose(spread, h.std((0, 2, 3)), rtol=0.2)


def test_the_count_of_steps_is_kept_with_the_state():
    model = build()
    model.training_step(Batches(), Optimizers(model.configure_optimizers()))
    other = build()
    other.load_state_dict(model.state_dict())
    assert other.steps == 1
