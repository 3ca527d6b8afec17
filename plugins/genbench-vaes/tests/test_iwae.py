"""The importance-weighted bound and its gradient, the paper's schedule and networks."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_vaes import genbench_models
from genbench_vaes.iwae import IWAE, stage
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal

from genbench import Batch, ImageSpec, Optimizers

TRACKS = {"vae": "reproduce-pythae-mnist", "iwae": "reproduce-pythae-mnist-iwae"}
PYTHAE = {spec.name: (spec.cls, spec.presets[TRACKS[spec.name]]) for spec in genbench_models() if spec.name in TRACKS}


class OneBatch:
    def __init__(self, images: Tensor, progress: float = 0.0) -> None:
        self.images, self.progress = images, progress

    def __next__(self) -> Batch:
        return Batch(self.images)


def binary(n: int) -> Tensor:
    return torch.randint(0, 2, (n, 1, 8, 8)) * 2.0 - 1


def build(**hparams: object) -> IWAE:
    torch.manual_seed(0)
    return IWAE(ImageSpec(1, 8), **{"z_dim": 4, "hidden": 32, **hparams})


def test_weights_are_joint_over_posterior() -> None:
    """log p(x|z) + log p(z) - log q(z|x), each from torch.distributions, at the same z."""
    model, images = build(), binary(5)
    torch.manual_seed(7)
    found = model.draw(images, 3)
    torch.manual_seed(7)
    mu, logvar = model.posterior(images)
    q = Normal(mu, (logvar / 2).exp())
    z = q.mean + q.stddev * torch.randn(3, 5, 4)
    logits = model.decoder(z.flatten(0, 1)).unflatten(0, (3, 5))
    log_likelihood = Independent(Bernoulli(logits=logits), 3).log_prob((images + 1) / 2)
    torch.testing.assert_close(found, log_likelihood + (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(2), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 5])
def test_loss_is_the_bound_of_k_samples(k: int) -> None:
    """-L_k = -log 1/k sum_i w_i, averaged over images; of one sample it is the ELBO."""
    model, images = build(k=k), binary(6)
    torch.manual_seed(1)
    log_w = model.log_weights(images, k)
    torch.manual_seed(1)
    scalars = model.training_step(OneBatch(images), Optimizers(model.configure_optimizers()))
    torch.testing.assert_close(scalars["loss"], -bound(log_w).detach())
    torch.testing.assert_close(scalars["elbo"], log_w.detach().mean())
    assert bool(scalars["loss"] == -scalars["elbo"]) == (k == 1)


def bound(log_w: Tensor) -> Tensor:
    """(k, B) -> L_k averaged over images, in float64."""
    return log_w.double().exp().mean(0).log().mean().float()


def test_gradient_is_weighted_by_the_normalised_weights() -> None:
    """Eq. 14."""
    model, images = build(k=5), binary(6)
    log_w = model.draw(images, 5)
    expected = (log_w.softmax(0).detach() * log_w).sum(0).mean()
    of_bound, by_hand = (torch.autograd.grad(value, model.encoder[1].weight, retain_graph=True)[0] for value in (bound(log_w), expected))
    assert float(by_hand.abs().max()) > 1e-3
    torch.testing.assert_close(of_bound, by_hand, atol=1e-5, rtol=1e-3)


def test_bounds_are_ordered() -> None:
    """L_1 <= L_5 <= L_50: theorem 1."""
    model, images = build().eval(), binary(8)
    with torch.inference_mode():
        log_w = model.log_weights(images, 1000)
    one, five, fifty = (float((log_w.unflatten(0, (-1, k)).logsumexp(1) - math.log(k)).mean()) for k in (1, 5, 50))
    assert one + 0.1 < five
    assert five + 0.1 < fifty


def test_portions_of_weights_are_independent() -> None:
    """Drawn in portions of k; the last may be smaller."""
    model, images = build(k=4), binary(3)
    log_w = model.log_weights(images, 10)
    assert log_w.shape == (10, 3)
    assert len(log_w.unique()) == 30


def test_schedule() -> None:
    """The i-th rate serves for 3^i of 3280 passes: 1, 3, 9 ... 2187."""
    stages = [stage(done / 3280) for done in range(3280)]
    assert [stages.count(i) for i in range(8)] == [3**i for i in range(8)]
    assert stages == sorted(stages)
    assert stage(1.0) == 7
    rates = []
    for schedule, progress in [(True, 0.0), (True, 2 / 3280), (True, 0.9), (False, 0.9)]:
        model = build(schedule=schedule)
        optimizers = Optimizers(model.configure_optimizers())
        model.training_step(OneBatch(binary(2), progress), optimizers)
        rates.append(optimizers["IWAE"].lr)
    assert rates == pytest.approx([1e-3, 1e-3 * 10 ** (-1 / 7), 1e-4, 1e-3])


def test_published_network() -> None:
    """Two tanh layers of 200 a side, 50 latents, Glorot's uniform weights and biases of 0."""
    model = IWAE(ImageSpec(1, 28))
    linear = [layer for layer in [*model.encoder, *model.decoder] if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(200, 784), (200, 200), (100, 200), (200, 50), (200, 200), (784, 200)]
    for layer in linear:
        limit = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.98 * limit < float(layer.weight.detach().abs().max()) <= limit
        assert not layer.bias.any()
    assert sum(isinstance(layer, nn.Tanh) for layer in [*model.encoder, *model.decoder]) == 4
    group = model.configure_optimizers()["IWAE"].param_groups[0]
    assert (model.k, model.batch_size, group["lr"], group["eps"]) == (50, 20, 1e-3, 1e-4)


@pytest.mark.parametrize(("name", "parameters"), [("vae", 676_864), ("iwae", 425_284)])
def test_presets_that_reproduce_pythae(name: str, parameters: int) -> None:
    """Parameters of the networks in github.com/clementchadebec/benchmark_VAE, examples/scripts/reproducibility/{vae,iwae}.py."""
    cls, hparams = PYTHAE[name]
    model = cls(ImageSpec(1, 28), **hparams)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.density == "bernoulli"
    optimizer = next(iter(model.configure_optimizers().values()))
    assert isinstance(optimizer, torch.optim.Adam)
    assert (optimizer.param_groups[0]["lr"], model.batch_size) == {"vae": (1e-4, 100), "iwae": (1e-3, 20)}[name]
    assert {"vae": nn.ReLU, "iwae": nn.Tanh}[name] in map(type, model.decoder)
