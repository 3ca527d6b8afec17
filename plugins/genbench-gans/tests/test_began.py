"""BEGAN against the equations of section 3.4 and the architecture of section 3.5."""

from __future__ import annotations

import pytest
import torch
from genbench_gans.began import BEGAN, AutoEncoder, Block, Decoder, convergence, next_k, reconstruction_error
from torch import Tensor, nn
from torch.nn.functional import elu

from genbench import Batch, ImageSpec
from genbench.model import Optimizers


class Batches:
    """One batch for ever."""

    def __init__(self, images: Tensor, progress: float = 0.0) -> None:
        self.images, self.progress = images, progress

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        return Batch(self.images)


class Constant(nn.Module):
    """Says the same image of anything; one weight, and room for a carry."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor, carry: Tensor | None) -> Tensor:
        return self.value.expand(len(x), 1, 8, 8)


def build(**hparams: object) -> BEGAN:
    torch.manual_seed(0)
    return BEGAN(ImageSpec(1, 8), **{"n": 4, "z_dim": 3, "h_dim": 5, "batch_size": 6, **hparams})


def test_reconstruction_error_is_the_mean_over_pixels_of_each_image():
    v = torch.zeros(2, 3, 2, 2)
    v[0, 0], v[1, 2, 1, 1] = 1.5, -6.0
    assert reconstruction_error(v, torch.zeros_like(v)).tolist() == [0.5, 0.5]
    v[1, 0, 0, 0] = 3.0
    assert reconstruction_error(torch.zeros_like(v), v).tolist() == [0.5, 0.75]


def test_k_follows_the_equilibrium_and_stays_in_the_unit_interval():
    k, real = torch.tensor(0.3), torch.tensor(0.8)
    # gamma L(x) = 0.4: fakes at 0.1 are too easy, k grows; at 0.9 it shrinks
    assert next_k(k, real, torch.tensor(0.1), gamma=0.5, lambda_k=0.01).item() == pytest.approx(0.303)
    assert next_k(k, real, torch.tensor(0.9), gamma=0.5, lambda_k=0.01).item() == pytest.approx(0.295)
    assert next_k(k, real, torch.tensor(0.1), gamma=0.5, lambda_k=10).item() == 1
    assert next_k(k, real, torch.tensor(0.9), gamma=0.5, lambda_k=10).item() == 0


def test_convergence_is_the_real_loss_and_the_distance_from_equilibrium():
    assert convergence(torch.tensor(0.8), torch.tensor(0.1), gamma=0.5).item() == pytest.approx(0.8 + 0.3)
    assert convergence(torch.tensor(0.8), torch.tensor(0.6), gamma=0.5).item() == pytest.approx(0.8 + 0.2)
    assert convergence(torch.tensor(0.8), torch.tensor(0.4), gamma=0.5).item() == pytest.approx(0.8)


def test_a_step_is_the_objective_by_hand():
    # real images are 1, D says 0.25 of everything, G makes -0.5: L(x) = 0.75, L(G(z)) = 0.75
    model = build(gamma=0.2, lambda_k=0.1)
    model.D, model.G = Constant(0.25), Constant(-0.5)
    model.k.fill_(0.4)
    optimizers = Optimizers({name: torch.optim.SGD(net.parameters(), 1.0) for name, net in (("D", model.D), ("G", model.G))})
    scalars = model.training_step(Batches(torch.ones(6, 1, 8, 8)), optimizers)
    assert scalars["L_real"].item() == pytest.approx(0.75)
    assert scalars["L_fake"].item() == pytest.approx(0.75)
    # k + lambda_k (gamma 0.75 - 0.75), M = 0.75 + |gamma 0.75 - 0.75|
    assert model.k.item() == scalars["k"].item() == pytest.approx(0.4 - 0.1 * 0.6)
    assert scalars["M"].item() == pytest.approx(0.75 + 0.6)
    # SGD at lr 1e-4, which the schedule sets: dL_D/dD = -1 - k (+1), with the old k; dL_G/dG = sign(G - D) = -1
    assert (model.D.value.item() - 0.25) / 1e-4 == pytest.approx(1 + 0.4, rel=1e-2)
    assert (model.G.value.item() + 0.5) / 1e-4 == pytest.approx(1, rel=1e-2)


def test_k_starts_at_zero_and_is_part_of_the_state():
    model = build(lambda_k=0.5)
    assert model.state_dict()["k"].item() == 0
    with torch.no_grad():
        model.G.output.weight.zero_()  # black fakes are easy: k grows
    batches, optimizers = Batches(torch.ones(6, 1, 8, 8)), Optimizers(model.configure_optimizers())
    scalars = [model.training_step(batches, optimizers) for _ in range(3)]
    assert 0 < scalars[0]["k"] < scalars[1]["k"] < scalars[2]["k"] == model.state_dict()["k"]


def test_the_learning_rate_halves_at_equal_shares_of_the_budget():
    model = build(lr=0.08, halvings=3)
    optimizers = Optimizers(model.configure_optimizers())
    rates = []
    for progress in (0.0, 0.2, 0.3, 0.55, 0.99):
        model.training_step(Batches(torch.zeros(2, 1, 8, 8), progress), optimizers)
        rates.append((optimizers["D"].lr, optimizers["G"].lr))
    assert rates == [(lr, lr) for lr in (0.08, 0.08, 0.04, 0.02, 0.01)]


def test_vanishing_residuals_carry_the_input_at_first_and_nothing_in_the_end():
    torch.manual_seed(0)
    block, x = Block(3, 3), torch.randn(2, 3, 4, 4)
    plain = block(x, None)
    assert torch.equal(block(x, torch.tensor(1.0)), x)
    assert torch.allclose(block(x, torch.tensor(0.0)), plain)
    first = 0.25 * x + 0.75 * elu(block.layers[0](x))
    assert torch.allclose(block(x, torch.tensor(0.25)), 0.25 * first + 0.75 * elu(block.layers[1](first)), atol=1e-6)
    # between maps of different numbers there is nothing to carry in the first layer
    wide = Block(6, 3)
    y = torch.randn(2, 6, 4, 4)
    assert torch.allclose(wide(y, torch.tensor(1.0)), elu(wide.layers[0](y)))
    model = build(carry_steps=4)
    optimizers = Optimizers(model.configure_optimizers())
    carries = []
    for _ in range(6):
        carries.append(model.carry.item())
        model.training_step(Batches(torch.zeros(2, 1, 8, 8)), optimizers)
    assert carries == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_the_published_number_of_parameters():
    # section 4: n = 128 filters, 64 = N_h = N_z, "a total of 17.3 x 10^6 trainable parameters"
    with torch.device("meta"):
        model = BEGAN(ImageSpec(3, 64))
    assert sum(p.numel() for p in model.parameters()) == 17_334_214


def test_the_encoder_grows_by_n_to_8x8_maps_and_the_decoder_stays_at_n():
    D = AutoEncoder(ImageSpec(3, 64), 10, 4, skips=False)
    assert [block.layers[1].out_channels for block in D.blocks] == [4, 8, 12, 16]
    assert D.code[1].in_features == 16 * 8 * 8
    assert [block.layers[1].out_channels for block in D.decoder.blocks] == [4, 4, 4, 4]
    assert D.decoder.project[0].out_features == 4 * 8 * 8
    assert [len(Decoder(ImageSpec(1, size), 3, 4, False).blocks) for size in (8, 16, 28, 32, 33)] == [2, 2, 3, 3, 4]
    # a skip brings h_0 to every block but the first
    assert [block.layers[0].in_channels for block in Decoder(ImageSpec(1, 32), 3, 4, True).blocks] == [4, 8, 8]


def test_samples_are_clipped_and_come_from_uniform_z():
    model = build(carry_steps=0)
    with torch.no_grad():
        model.G.output.bias.fill_(1.5)
        model.G.output.weight.mul_(20)
    torch.manual_seed(0)
    assert model.sample(50).max() == 1
    assert model.G(model.latent(50)).max() > 1
    z = model.latent(2000)
    assert z.abs().max() <= 1
    assert z.var().item() == pytest.approx(1 / 3, rel=0.05)
