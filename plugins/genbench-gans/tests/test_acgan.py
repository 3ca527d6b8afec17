"""AC-GAN against equations 2 and 3 and the networks of its appendix."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from genbench_gans.acgan import ACGAN, class_likelihood
from torch import Tensor, nn

from genbench import Batch, ImageSpec

TINY = {"z_dim": 6, "width_G": 8, "width_D": 4}
LN3, LN4 = math.log(3), math.log(4)


class Batches:
    """The same labelled images again and again."""

    progress = 0.0

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.batch = Batch(images, labels)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        return self.batch


class Recorder:
    """In an optimizer's place: keeps the loss."""

    def minimize(self, loss: Tensor) -> None:
        self.loss = loss.item()


def build(size: int = 8, classes: int = 4, **hparams: object) -> ACGAN:
    torch.manual_seed(0)
    return ACGAN(ImageSpec(1, size, num_classes=classes), **{**TINY, **hparams})


def test_class_likelihood_of_given_logits():
    logits = torch.tensor([[LN3, 0.0], [0.0, LN4]])
    assert class_likelihood(logits, torch.tensor([0, 0])).item() == pytest.approx((math.log(3 / 4) + math.log(1 / 5)) / 2, abs=1e-6)
    assert class_likelihood(logits, torch.tensor([0, 1])).item() == pytest.approx((math.log(3 / 4) + math.log(4 / 5)) / 2, abs=1e-6)


@pytest.mark.parametrize("loss", ["minimax", "non-saturating"])
def test_what_the_players_ascend(loss):
    # P(S = real) and P(C = c) of two images; the order of D's calls: real images, G's images for D's step, for G's step
    said = [
        (torch.tensor([LN3, 0.0]), torch.tensor([[LN3, 0.0], [0.0, 0.0]])),  # 3/4, 1/2; 3/4, 1/2
        (torch.tensor([-LN3, -LN4]), torch.tensor([[0.0, LN4], [0.0, LN4]])),  # 1/4, 1/5; 1/5, 4/5
        (torch.tensor([LN4, -LN3]), torch.tensor([[0.0, LN3], [LN3, 0.0]])),  # 4/5, 1/4; 1/4, 1/4
    ]

    class Oracle(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return said.pop(0)

    model = build(classes=2, loss=loss)
    model.D = Oracle()
    players = {"D": Recorder(), "G": Recorder()}
    scalars = model.training_step(Batches(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])), players)
    L_S = (math.log(3 / 4) + math.log(1 / 2)) / 2 + (math.log(3 / 4) + math.log(4 / 5)) / 2
    L_C = (math.log(3 / 4) + math.log(1 / 2)) / 2 + (math.log(1 / 5) + math.log(4 / 5)) / 2
    assert scalars["L_S"].item() == pytest.approx(L_S, abs=1e-6)
    assert scalars["L_C"].item() == pytest.approx(L_C, abs=1e-6)
    assert players["D"].loss == pytest.approx(-(L_S + L_C), abs=1e-6)
    source = (math.log(1 / 5) + math.log(3 / 4)) / 2 if loss == "minimax" else -(math.log(4 / 5) + math.log(1 / 4)) / 2
    assert players["G"].loss == pytest.approx(source - math.log(1 / 4), abs=1e-6)  # the paper's L_S - L_C
    assert not said


def test_networks_are_the_appendixs_for_cifar_10():
    with torch.device("meta"):
        model = ACGAN(ImageSpec(3, 32, num_classes=10))
    # G: 110 - 384 maps of 4x4 - 192 - 96 - 3, kernels of 5, BatchNorm on the two in between
    maps = (110 + 1) * 384 * 16 + (384 * 25 + 3) * 192 + (192 * 25 + 3) * 96 + (96 * 25 + 1) * 3
    assert sum(p.numel() for p in model.G.parameters()) == maps
    # D: six layers of kernel 3, BatchNorm on all but the first, one output for the source and ten for the class
    widths = [3, 16, 32, 64, 128, 256, 512]
    layers = sum((i * 9 + (3 if i > 3 else 1)) * o for i, o in pairwise(widths))
    assert sum(p.numel() for p in model.D.parameters()) == layers + (512 * 16 + 1) * 11
    convolutions = [layer for layer in model.D.net if isinstance(layer, nn.Conv2d)]
    assert [layer.stride[0] for layer in convolutions] == [2, 1, 2, 1, 2, 1]
    assert [layer.p for layer in model.D.net if isinstance(layer, nn.Dropout)] == [0.5] * 6
    assert model.batch_size == 100


def test_training_is_the_appendixs():
    torch.manual_seed(0)
    model = ACGAN(ImageSpec(1, 16, num_classes=10), width_G=32)
    weights = torch.cat([p.flatten() for name, p in model.G.named_parameters() if p.ndim > 1])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    for optimizer in model.configure_optimizers().values():
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"]) == (2e-4, (0.5, 0.999))


@pytest.mark.parametrize(("size", "features"), [(8, 1), (12, 4), (32, 16), (64, 64)])
def test_D_gives_a_source_and_a_class_at_every_size(size, features):
    model = build(size)
    source, classes = model.D(torch.rand(3, 1, size, size))
    assert (source.shape, classes.shape) == ((3,), (3, 4))
    assert model.D.net[-1].in_features == 4 * 32 * features


def test_labels_change_samples():
    model = build(size=16).eval()
    draws = []
    for labels in ([0, 1, 2], [0, 1, 3]):
        torch.manual_seed(5)
        draws.append(model.sample(3, torch.tensor(labels)))
    assert torch.equal(draws[0][:2], draws[1][:2])
    assert not torch.equal(draws[0][2], draws[1][2])
