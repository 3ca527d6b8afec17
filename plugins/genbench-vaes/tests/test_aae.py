"""Adversarial autoencoder: what each phase moves and by how much, the saddle of its game, the published networks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from genbench_vaes.aae import AAE
from torch import Tensor, nn
from torch.nn.functional import softplus

from genbench import Batch, ImageSpec, Optimizers


class OneBatch:
    """The same images for ever."""

    progress = 0.0

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __next__(self) -> Batch:
        return Batch(self.images)


class Recorder(Optimizers):
    """Optimizers that note which parameters each step moved."""

    def __init__(self, model: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        super().__init__(optimizers)
        self.model, self.moved = model, []

    def __getitem__(self, name: str) -> Recorder:
        self.name = name
        return self

    def minimize(self, loss: Tensor) -> None:  # type: ignore[override]
        before = {key: value.clone() for key, value in self.model.named_parameters()}
        super().__getitem__(self.name).minimize(loss)
        moved = {key.split(".")[0] for key, value in self.model.named_parameters() if not torch.equal(before[key], value)}
        self.moved.append((self.name, moved))


def small(**hparams: object) -> AAE:
    torch.manual_seed(0)
    return AAE(ImageSpec(1, 8), **{"hidden": 16, "z_dim": 2, **hparams})


def test_each_phase_moves_its_own_networks() -> None:
    """Reconstruction: encoder and decoder. Regularisation: D alone, then the encoder alone."""
    model = small()
    recorder = Recorder(model, model.configure_optimizers())
    model.training_step(OneBatch(torch.rand(6, 1, 8, 8)), recorder)
    assert recorder.moved == [("AE", {"encoder", "decoder"}), ("D", {"D"}), ("E", {"encoder"})]


def test_step_by_hand() -> None:
    """The three plain SGD steps of one minibatch, written out; the momenta are empty at the first."""
    model, hand = small(prior_std=2.0), small(prior_std=2.0)
    images = torch.rand(6, 1, 8, 8) * 2 - 1
    torch.manual_seed(5)
    losses = model.training_step(OneBatch(images), Optimizers(model.configure_optimizers()))
    torch.manual_seed(5)
    x = (images + 1) / 2
    steps: list[Tensor] = []

    def descend(loss: Tensor, parameters: list[nn.Parameter], lr: float) -> None:
        steps.append(loss.detach())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= lr * gradient

    E, G, D = list(hand.encoder.parameters()), list(hand.decoder.parameters()), list(hand.D.parameters())
    descend(0.5 * (hand.decoder(hand.encoder(x)) - x).square().sum() / 6, E + G, 0.01)
    real, fake = hand.D(2 * torch.randn(6, 2)), hand.D(hand.encoder(x))
    descend(-(real.sigmoid().log() + (1 - fake.sigmoid()).log()).mean(), D, 0.1)
    descend(-hand.D(hand.encoder(x)).sigmoid().log().mean(), E, 0.1)
    torch.testing.assert_close(list(losses.values()), steps)
    torch.testing.assert_close(dict(model.named_parameters()), dict(hand.named_parameters()))


class Blank(nn.Module):
    """Ten black images, whatever the codes."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.zeros(10, 1, 8, 8)


def test_saddle() -> None:
    """On three codes with p = (1/2, 3/10, 1/5) and q = (1/5, 1/5, 3/5) D's loss is least at D = p / (p + q), there 2 log 2 - 2 JSD."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    model = small()
    captured: dict[str, Tensor] = {}

    class Capture(dict):  # stands for the optimizers
        def __missing__(self, name: str) -> Capture:
            self.name = name
            return self

        def minimize(self, loss: Tensor) -> None:
            captured[self.name] = loss

    logits = torch.zeros(3, requires_grad=True)
    codes = torch.tensor([0] * 5 + [1] * 3 + [2] * 2), torch.tensor([0] * 2 + [1] * 2 + [2] * 6)
    model.latent = lambda n: codes[0]
    model.q = lambda images: codes[1]
    model.decoder = Blank()
    model.logits = lambda z: logits[z]

    def gradient_at(values: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits.copy_(values)
        model.training_step(OneBatch(torch.zeros(10, 1, 8, 8)), Capture())
        return captured["D"].detach(), torch.autograd.grad(captured["D"], logits)[0]

    loss, gradient = gradient_at(torch.log(p / q))
    torch.testing.assert_close(gradient, torch.zeros(3), atol=1e-6, rtol=0)
    m = (p + q) / 2
    jsd = 0.5 * (p * (p / m).log()).sum() + 0.5 * (q * (q / m).log()).sum()
    torch.testing.assert_close(loss, 2 * math.log(2) - 2 * jsd)
    assert gradient_at(torch.log(q / p))[0] > loss
    # the encoder descends -log D of its own codes
    gradient_at(torch.log(p / q))
    torch.testing.assert_close(captured["E"].detach(), -(q * (p / (p + q)).log()).sum())


def test_posteriors() -> None:
    """Deterministic codes repeat; Gaussian ones vary about the mean that `encode` gives."""
    images = torch.rand(3, 1, 8, 8)
    fixed = small()
    torch.testing.assert_close(fixed.q(images), fixed.encode(images))
    gaussian = small(posterior="gaussian")
    assert gaussian.encode(images).shape == (3, 2)
    z = torch.stack([gaussian.q(images) for _ in range(4000)])
    mu, logvar = gaussian.encoder((images + 1) / 2).chunk(2, dim=1)
    torch.testing.assert_close(z.mean(0), mu, atol=0.1, rtol=0)
    torch.testing.assert_close(z.std(0), (logvar / 2).exp(), atol=0.1, rtol=0)


def test_published_set_up() -> None:
    """Appendix A.1: two layers of 1000 in each network, 8 codes from N(0, 5^2 I), weights from N(0, 0.01^2)."""
    torch.manual_seed(0)
    model = AAE(ImageSpec(1, 28))
    shapes = [[tuple(p.shape) for p in net.parameters() if p.ndim == 2] for net in (model.encoder, model.decoder, model.D)]
    assert shapes == [[(1000, 784), (1000, 1000), (8, 1000)], [(1000, 8), (1000, 1000), (784, 1000)], [(1000, 8), (1000, 1000), (1, 1000)]]
    assert float(model.encoder[3].weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert float(model.latent(20_000).std()) == pytest.approx(5, rel=0.02)
    assert model.prior == "N(0, 25 I)"
    momenta = {name: (o.param_groups[0]["lr"], o.param_groups[0]["momentum"]) for name, o in model.configure_optimizers().items()}
    assert momenta == {"AE": (0.01, 0.9), "D": (0.1, 0.1), "E": (0.1, 0.1)}


def test_logits_of_a_certain_discriminator_are_finite() -> None:
    model = small()
    model.logits = lambda z: torch.full((len(z),), 1e4) + 0 * z.sum(1)
    with torch.no_grad():
        assert softplus(-model.logits(torch.zeros(2, 2))).isfinite().all()
