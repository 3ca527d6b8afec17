"""Eq. 11 by hand, in the authors' units too; penalties of networks whose answer is known; the two phases; published sizes."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from genbench_vaes.rae import RAE, gradient_penalty, sum_of_squares
from torch import Tensor, nn

from genbench import Batch, ImageSpec, Optimizers


class Images:
    """The same images for ever, at one share of the budget."""

    def __init__(self, images: Tensor, progress: float = 0.0) -> None:
        self.images, self.progress = images, progress

    def __next__(self) -> Batch:
        return Batch(self.images)


def linear(regulariser: Literal["l2", "gp"], **hparams: float) -> tuple[RAE, Tensor, Tensor]:
    """RAE of 8 x 8 images with linear maps E (3, 64) and D (64, 3) for networks, no biases; the maps."""
    torch.manual_seed(0)
    model = RAE(ImageSpec(1, 8), regulariser, z_dim=3, width=4, **hparams)
    E, D = 0.3 * torch.randn(3, 64), 0.1 * torch.randn(64, 3)
    model.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False))
    model.decoder = nn.Sequential(nn.Linear(3, 64, bias=False), nn.Unflatten(1, (1, 8, 8)))
    with torch.no_grad():
        model.encoder[1].weight.copy_(E)
        model.decoder[0].weight.copy_(D)
    return model, E, D


@pytest.mark.parametrize("regulariser", ["l2", "gp"])
def test_loss_by_hand(regulariser: Literal["l2", "gp"]) -> None:
    model, E, D = linear(regulariser, beta=0.7, lam=0.03)
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    z = images.flatten(1) @ E.T
    output = z @ D.T
    L_REC = (output - (images.flatten(1) + 1) / 2).square().sum(1).mean()
    L_Z = 0.5 * z.square().sum(1).mean()
    # d/dz ||D z||^2 = 2 D^T D z
    L_REG = D.square().sum() if regulariser == "l2" else (2 * z @ D.T @ D).square().sum(1).mean()
    scalars = model.training_step(Images(images), Optimizers(model.configure_optimizers()))
    for name, expected in {"L_REC": L_REC, "L_Z": L_Z, "L_REG": L_REG, "loss": L_REC + 0.7 * L_Z + 0.03 * L_REG}.items():
        torch.testing.assert_close(scalars[name], expected, msg=name)


@pytest.mark.parametrize("regulariser", ["l2", "gp"])
def test_default_weights_are_the_release(regulariser: Literal["l2", "gp"]) -> None:
    """Its objective averages: squared error over 1024 pixels + 1e-4 z^2 over 16 latents + 1e-7 theta^2, or 0.5e-7 times the mean
    square of the 16 derivatives of the summed squared outputs. Eq. 11 is 1024 times that.
    """
    torch.manual_seed(0)
    model = RAE(ImageSpec(1, 32), regulariser, width=4)
    images = torch.rand(6, 1, 32, 32) * 2 - 1
    z = model.encoder(images)
    output = model.decoder(z)
    if regulariser == "l2":
        penalty = 1e-7 * sum_of_squares(model.decoder)
    else:
        penalty = 0.5e-7 * torch.autograd.grad(output.square().sum(), z, retain_graph=True)[0].square().mean()
    released = (output - (images + 1) / 2).square().mean() + 1e-4 * z.square().mean() + penalty
    scalars = model.training_step(Images(images), Optimizers(model.configure_optimizers()))
    torch.testing.assert_close(scalars["loss"], 1024 * released.detach(), rtol=1e-3, atol=0)


def test_gradient_penalty_trains_the_decoder() -> None:
    """D(z) = w z, one pixel and one latent: the penalty is (2 w^2 z)^2, its derivative in w 16 w^3 z^2."""
    w, z = torch.tensor([[1.5]], requires_grad=True), torch.tensor([[0.8]], requires_grad=True)
    penalty = gradient_penalty(z @ w, z)
    assert float(penalty.detach()) == pytest.approx((2 * 1.5**2 * 0.8) ** 2)
    assert float(torch.autograd.grad(penalty, w)[0]) == pytest.approx(16 * 1.5**3 * 0.8**2)


def test_tikhonov_leaves_biases_and_normalisation_out() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    nn.init.constant_(net[0].weight, 2.0)
    nn.init.constant_(net[0].bias, 7.0)
    assert float(sum_of_squares(net).detach()) == 6 * 4


def test_spectral_norm() -> None:
    """After some steps no layer of either network stretches by more than 1."""
    torch.manual_seed(0)
    model = RAE(ImageSpec(1, 8), "sn", z_dim=3, width=4, lr=0.05)
    optimizers, images = Optimizers(model.configure_optimizers()), torch.rand(8, 1, 8, 8) * 2 - 1
    for _ in range(30):
        model.training_step(Images(images), optimizers)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 3 + 1 + 1 + 2 + 1
    for layer in layers:
        weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
        assert float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2)) == pytest.approx(1, abs=0.25)


def test_two_phases() -> None:
    """Until a tenth is left the networks learn; then they stand still, batch statistics included, and the mixture learns."""
    torch.manual_seed(0)
    model = RAE(ImageSpec(1, 8), z_dim=3, width=4, components=2)
    assert model.prior == "GMM(2)"
    optimizers, images = Optimizers(model.configure_optimizers()), torch.rand(16, 1, 8, 8) * 2 - 1
    before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    model.training_step(Images(images, 0.89), optimizers)
    after = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    assert {name for name in after if name.startswith("mixture") and not torch.equal(before[name], after[name])} == set()
    assert not torch.equal(before["encoder.0.weight"], after["encoder.0.weight"])
    assert not torch.equal(before["decoder.0.2.weight"], after["decoder.0.2.weight"])
    assert set(model.training_step(Images(images, 0.9), optimizers)) == {"log_prior"}
    changed = {name for name, value in after.items() if not torch.equal(value, model.state_dict()[name])}
    assert changed == {"mixture.ring", "mixture.pi", "mixture.mu", "mixture.Sigma"}
    assert model.encoder.training
    # what the mixture is fitted to is what `encode` says of the images, and samples are decoded from it
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model.mixture.ring[:16], model.encode(images))
        torch.manual_seed(2)
        samples = model.sample(3)
        torch.manual_seed(2)
        assert torch.equal(samples, model.decode(model.mixture.sample(3)))
        assert torch.equal(model.reconstruct(images), model.decode(model.encode(images)))
    assert -1 <= samples.min() < samples.max() <= 1


def test_published_size() -> None:
    """The layers of the release's rae_mnist.py for 32 x 32 x 1 and 16 latents, counted by hand."""
    with torch.device("meta"):
        model = RAE(ImageSpec(1, 32))
    conv = [16 * i * o + o + 2 * o for i, o in ((1, 128), (128, 256), (256, 512), (512, 1024))]
    assert sum(p.numel() for p in model.encoder.parameters()) == sum(conv) + 2 * 2 * 1024 * 16 + 16
    transposed = [16 * i * o + o + 2 * o for i, o in ((1024, 512), (512, 256))]
    assert sum(p.numel() for p in model.decoder.parameters()) == 16 * 65536 + 65536 + sum(transposed) + 16 * 256 + 1


@pytest.mark.parametrize("size", [8, 10, 13, 16, 28, 64])
def test_other_sizes(size: int) -> None:
    model = RAE(ImageSpec(3, size), z_dim=2, width=2)
    assert model.reconstruct(torch.rand(2, 3, size, size)).shape == (2, 3, size, size)
