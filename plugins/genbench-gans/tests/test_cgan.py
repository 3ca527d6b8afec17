"""The conditional GAN against section 4.1: networks told the class by a one-hot vector, and the game of equation 2."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_gans.cgan import CGAN
from torch import Tensor, nn

from genbench import Batch, ImageSpec
from genbench.model import Optimizers

TINY = {"z_dim": 5, "hidden_z": 8, "hidden_y": 12, "width": 32, "maxout": 16, "maxout_y": 8}


class Batches:
    """Random batches of a fixed set of labelled images."""

    progress = 0.0

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        i = torch.randint(len(self.images), (self.batch_size,))
        return Batch(self.images[i], self.labels[i])


class Recorder:
    """In an optimizer's place: keeps the loss."""

    def minimize(self, loss: Tensor) -> None:
        self.loss = loss.item()


def build(classes: int = 4, **hparams: object) -> CGAN:
    torch.manual_seed(0)
    return CGAN(ImageSpec(1, 8, num_classes=classes), **{**TINY, **hparams})


def test_networks_are_those_of_section_4_1():
    with torch.device("meta"):
        model = CGAN(ImageSpec(1, 28, num_classes=10))
    # G: z 100-200, y 10-1000, joint 1200-1200-784. D: x 784-(240x5), y 10-(50x5), joint 290-(240x4)-1
    assert sum(p.numel() for p in model.G.parameters()) == 101 * 200 + 11 * 1000 + 1201 * 1200 + 1201 * 784
    assert sum(p.numel() for p in model.D.parameters()) == 785 * 1200 + 11 * 250 + 291 * 960 + 241
    for net in (model.G, model.D):
        assert {layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)} == {0.5}
    assert model.batch_size == 100


@pytest.mark.parametrize("player", ["G", "D"])
def test_the_class_enters_each_network_as_a_one_hot_vector(player):
    model = build().eval()
    y = torch.tensor([2, 2, 0])
    out = model.G(model.latent(3), y) if player == "G" else model.D(torch.rand(3, 1, 8, 8), y)
    layer = model.G.y[0] if player == "G" else model.D.y[0].affine
    (gradient,) = torch.autograd.grad(out.sum(), layer.weight)
    assert (gradient.abs().sum(0) > 0).tolist() == [True, False, True, False]  # a column a class


def test_labels_change_samples_and_judgements():
    model = build().eval()
    z, x = model.latent(1).expand(4, -1), torch.rand(1, 1, 8, 8).expand(4, -1, -1, -1)
    images, logits = model.G(z, torch.arange(4)), model.D(x, torch.arange(4))
    assert all(not torch.equal(images[0], images[i]) and logits[0] != logits[i] for i in range(1, 4))
    torch.manual_seed(5)
    first = model.sample(3, torch.tensor([0, 1, 2]))
    torch.manual_seed(5)
    second = model.sample(3, torch.tensor([0, 1, 3]))
    assert torch.equal(first[:2], second[:2])
    assert not torch.equal(first[2], second[2])
    assert first.abs().max() <= 1


def test_z_is_uniform_in_the_unit_hypercube():
    z = build().latent(2000)
    assert 0 <= z.min() < 0.01
    assert 0.99 < z.max() <= 1
    assert z.mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("loss", "loss_G"), [("minimax", math.log(3 / 4)), ("non-saturating", math.log(4))])
def test_the_value_of_the_game_and_the_classes_that_D_is_told(loss, loss_G):
    # D(x|y) = 4/5 for real and 1/4 for fake images, which only an oracle of the labels and of the order of calls would give
    told = []

    class Oracle(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            told.append(y)
            return torch.full((len(x),), math.log(4) if len(told) == 1 else -math.log(3))

    model = build(loss=loss)
    model.D = Oracle()
    players = {"D": Recorder(), "G": Recorder()}
    labels = torch.tensor([3, 1, 2, 0, 0])
    scalars = model.training_step(Batches(torch.zeros(5, 1, 8, 8), labels, 5), players)
    value = math.log(4 / 5) + math.log(3 / 4)
    assert scalars["value"].item() == pytest.approx(value, abs=1e-6)
    assert players["D"].loss == pytest.approx(-value, abs=1e-6)
    assert players["G"].loss == pytest.approx(loss_G, abs=1e-6)
    assert len(told) == 3
    assert torch.equal(told[0], told[1])  # the classes of the real images, given to G and with its images to D
    assert torch.equal(told[0], told[2])


def test_learns_which_class_is_bright():
    images = torch.full((64, 1, 8, 8), -0.9)
    labels = torch.arange(64) % 2
    images[labels == 1] = 0.9
    model = build(classes=2, loss="non-saturating", lr=2e-3, dropout=0.2)
    batches = Batches(images + 0.05 * torch.randn_like(images), labels, 16)
    optimizers = Optimizers(model.configure_optimizers())
    for _ in range(500):
        model.training_step(batches, optimizers)
    with torch.inference_mode():
        means = model.eval().sample(64, torch.arange(64) % 2).view(32, 2, -1).mean((0, 2))
    assert means[0] < -0.5
    assert means[1] > 0.5
