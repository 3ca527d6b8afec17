"""R3GAN against its paper: the loss of equations 2 and 3, the networks and schedules of table 9."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_gans.r3gan import R3GAN, Block, Downsample, Upsample, penalised_logits, relativistic_loss, schedule
from torch import Tensor, nn

from genbench import Batch, ImageSpec
from genbench.model import Optimizers

TINY = {"z_dim": 6, "width": 8, "blocks": 1, "group_size": 4, "batch_size": 4}


class Batches:
    """The same images again and again, at a chosen moment of the training."""

    def __init__(self, images: Tensor, progress: float) -> None:
        self.images, self.progress = images, progress

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        return Batch(self.images)


def build(size: int = 8, **hparams: object) -> R3GAN:
    torch.manual_seed(0)
    return R3GAN(ImageSpec(1, size), **{**TINY, **hparams})


REAL = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1


def step(model: R3GAN, progress: float) -> tuple[Optimizers, dict[str, Tensor]]:
    optimizers = Optimizers(model.configure_optimizers())
    torch.manual_seed(1)  # the first that is drawn is z
    return optimizers, dict(model.training_step(Batches(REAL, progress), optimizers))


# ---- the loss -------------------------------------------------------------------------------------------------------


def test_relativistic_loss_of_given_logits():
    # pairs: the wanted one above by ln 3, below by ln 4: ln(1 + 1/3) and ln(1 + 4)
    wanted, other = torch.tensor([math.log(3), 0.0]), torch.tensor([0.0, math.log(4)])
    assert relativistic_loss(wanted, other).item() == pytest.approx((math.log(4 / 3) + math.log(5)) / 2, abs=1e-6)
    assert relativistic_loss(other, wanted).item() == pytest.approx((math.log(4) + math.log(5 / 4)) / 2, abs=1e-6)


def test_relativistic_loss_knows_pairs_only():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.0])
    assert relativistic_loss(real + 7, fake + 7).item() == pytest.approx(relativistic_loss(real, fake).item(), abs=1e-6)
    assert relativistic_loss(real.flip(0), fake).item() != pytest.approx(relativistic_loss(real, fake).item(), abs=0.1)


def test_penalties_of_a_quadratic_critic():
    # D(x) = 3 |x|^2 / 2 has gradient 3 x: 9 |x|^2 on average over either batch
    real, fake = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    real[0, 0, 0, 1], real[1, 0, 1, 1], fake[1, 0, 1, 0] = 1.0, -2.0, 4.0
    logits_real, logits_fake, r1, r2 = penalised_logits(lambda x: 3 * x.square().flatten(1).sum(1) / 2, real, fake)
    assert (r1.item(), r2.item()) == (pytest.approx(9 * (1 + 4) / 2), pytest.approx(9 * 16 / 2))
    assert (logits_real.tolist(), logits_fake.tolist()) == ([1.5, 6.0], [0.0, 24.0])


def test_penalties_teach_the_critic_and_nothing_else():
    # D(x) = w.x: both penalties are |w|^2, their gradient 2 w; the images' maker gets none
    w = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    maker = torch.ones((), requires_grad=True)
    real, fake = torch.rand(5, 3, 4, 4), maker * torch.rand(5, 3, 4, 4)
    _, logits_fake, r1, r2 = penalised_logits(lambda x: (x * w).flatten(1).sum(1), real, fake)
    for penalty in (r1, r2):
        assert penalty.item() == pytest.approx(w.detach().square().sum().item(), rel=1e-5)
        (gradient,) = torch.autograd.grad(penalty, w, retain_graph=True)
        assert torch.allclose(gradient, 2 * w.detach(), atol=1e-5)
    assert torch.autograd.grad(logits_fake.sum() + r2, maker, allow_unused=True) == (None,)


def test_penalties_are_exact_under_autocast():
    model = build(size=16)
    real, fake = torch.rand(2, 4, 1, 16, 16)

    def gradients(enabled: bool) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits_real, logits_fake, r1, r2 = penalised_logits(model.D, real, fake)
            loss = relativistic_loss(logits_real, logits_fake) + r1 + 2 * r2
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.D.parameters()))])

    assert gradients(False).norm() > 1e-3
    assert torch.equal(gradients(True), gradients(False))


@pytest.mark.parametrize(("progress", "gamma"), [(0.0, 2.0), (0.05, 1.25), (1.0, 0.5)])
def test_D_descends_the_relativistic_loss_and_half_gamma_of_each_penalty(monkeypatch, progress, gamma):
    descended = {}
    model = build(gamma=2.0, gamma_end=0.5, burn_in=0.1)
    monkeypatch.setattr("genbench.model.Optimizer.minimize", lambda self, loss: descended.setdefault(id(self), loss.item()))
    optimizers, scalars = step(model, progress)
    penalty = gamma / 2 * (scalars["R1"] + scalars["R2"])
    assert penalty > 0
    assert descended[id(optimizers["D"])] == pytest.approx((scalars["loss_D"] + penalty).item(), rel=1e-6)
    assert descended[id(optimizers["G"])] == scalars["loss_G"].item()
    # no step was taken, so both players judged the same pairs: ln(1 + e^d) and ln(1 + e^-d) differ by d
    with torch.no_grad():
        torch.manual_seed(1)
        gap = (model.D(REAL) - model.D(model.G(model.latent(4)))).mean()
    assert (scalars["loss_G"] - scalars["loss_D"]).item() == pytest.approx(gap.item(), abs=1e-5)


# ---- the schedules --------------------------------------------------------------------------------------------------


def test_schedule_is_a_cosine():
    assert [schedule(8.0, 2.0, t) for t in (0.0, 1 / 3, 0.5, 1.0)] == pytest.approx([8.0, 6.5, 5.0, 2.0])


@pytest.mark.parametrize(("progress", "lr", "beta2"), [(0.0, 2e-4, 0.9), (0.04, 1.25e-4, 0.945), (0.08, 5e-5, 0.99), (0.9, 5e-5, 0.99)])
def test_learning_rate_and_beta2_follow_table_9(progress, lr, beta2):
    optimizers, _ = step(build(), progress)
    for optimizer in optimizers.values():
        assert optimizer.lr == pytest.approx(lr)
        assert optimizer.torch.param_groups[0]["betas"] == (0.0, pytest.approx(beta2))


def test_the_average_forgets_half_in_its_half_life():
    # table 9's caption: 0.5^(4 / 8) a step of 4 images at a half-life of 8; half of that in the middle of the burn-in; 0 at its start
    for progress, decay in ((0.0, 0.0), (0.25, 0.5), (0.5, 0.5**0.5), (1.0, 0.5**0.5)):
        model = build(ema_kimg=0.008, burn_in=0.5, lr=1e-2, lr_end=1e-2)
        before = [p.clone() for p in model.G_ema.parameters()]
        step(model, progress)
        for old, new, average in zip(before, model.G.parameters(), model.G_ema.parameters(), strict=True):
            assert torch.allclose(average, decay * old + (1 - decay) * new, atol=1e-6)
    assert not torch.equal(old, new)


def test_samples_come_from_the_average_and_stay_in_range():
    model = build()
    for p in model.G_ema.parameters():
        p.data.mul_(20)
    samples = model.sample(4)
    assert samples.abs().max() == 1
    for p in model.G.parameters():
        p.data.zero_()
    assert model.sample(4).abs().max() == 1


# ---- the networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "millions_G", "millions_D"),
    [(32, "20.73", "20.68"), (64, "22.43", "22.38"), (256, "23.06", "23.01")],  # Stacked MNIST, FFHQ-64, FFHQ-256
)
def test_sizes_of_the_networks_are_table_9s(size, millions_G, millions_D):
    with torch.device("meta"):
        model = R3GAN(ImageSpec(3, size))
    count_G, count_D = (sum(p.numel() for p in net.parameters()) for net in (model.G, model.D))
    assert (f"{count_G / 1e6:.2f}", f"{count_D / 1e6:.2f}") == (millions_G, millions_D)


def test_number_of_parameters_block_by_block():
    with torch.device("meta"):
        model = R3GAN(ImageSpec(3, 32))
    # 768-1536-1536-768 with 96 groups of 16 and two biases; two blocks at each of 4, 8, 16 and 32 pixels; 768 maps throughout
    block = 768 * 1536 + 1536 * 16 * 9 + 1536 * 768 + 2 * 1536
    assert sum(p.numel() for p in model.G.parameters()) == 8 * block + 64 * 768 + 768 * 16 + 768 * 3
    assert sum(p.numel() for p in model.D.parameters()) == 8 * block + 3 * 768 + 768 * 16 + 768
    grouped = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]
    assert {layer.groups for layer in grouped} == {96}


def test_widths_halve_beyond_the_widest_resolution():
    model = R3GAN(ImageSpec(1, 32), width=32, wide=8, blocks=1)
    assert [block.residual[0].in_channels for block in model.G.stages if isinstance(block, Block)] == [32, 32, 16, 8]
    assert [block.residual[0].in_channels for block in model.D.stages if isinstance(block, Block)] == [8, 16, 32, 32]


def test_fix_up_starts_blocks_as_the_identity_with_scaled_weights():
    torch.manual_seed(0)
    block = Block(64, group_size=16, depth=16)
    maps = torch.randn(2, 64, 4, 4)
    assert torch.equal(block(maps), maps)
    gain = math.sqrt(2 / 1.04) / 2  # of a leaky ReLU of 0.2, over the fourth root of 16
    assert block.residual[0].weight.std().item() == pytest.approx(gain / 8, rel=0.03)
    assert block.residual[2].weight.std().item() == pytest.approx(gain / 12, rel=0.03)  # fan-in 16 x 3 x 3


def test_nothing_is_normalised():
    kinds = {type(layer).__name__ for layer in build(size=16).modules() if not list(layer.children())}
    assert kinds == {"Conv2d", "Linear", "LeakyReLU", "Upsample", "Downsample", "Identity"}


def test_resampling_is_bilinear_and_its_own_transpose():
    point = torch.zeros(1, 2, 4, 4)
    point[0, 1, 1, 2] = 1.0
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    spread = Upsample()(point)
    assert torch.allclose(spread[0, 1, 1:5, 3:7], torch.outer(taps, taps), atol=1e-6)
    assert spread.sum().item() == pytest.approx(4.0)
    # <Up(point), y> = 4 <point, Down(y)>, away from the border
    y = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    assert (spread * y).sum().item() == pytest.approx(4 * (point * Downsample()(y)).sum().item(), abs=1e-5)
