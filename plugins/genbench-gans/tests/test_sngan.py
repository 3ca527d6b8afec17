"""SNGAN: singular values that are known, Algorithm 1 by hand, the losses of equations 16 and 17."""

from __future__ import annotations

import pytest
import torch
from genbench_gans.sngan import SNGAN, SpectralNorm, hinge_loss, spectral_norm
from torch import Tensor, nn

from genbench import Batch, ImageSpec
from genbench.model import Optimizers


class Batches:
    """The same four images for ever; counts what was drawn."""

    def __init__(self, images: Tensor, progress: float = 0.0) -> None:
        self.images, self.progress, self.drawn = images, progress, 0

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        self.drawn += 4
        return Batch(self.images)


def tiny(**hparams: object) -> SNGAN:
    torch.manual_seed(0)
    return SNGAN(ImageSpec(1, 8), **{"z_dim": 5, "width_G": 4, "width_D": 4, "batch_size": 4, **hparams})


def matrix(*singular_values: float, rows: int, columns: int) -> Tensor:
    """A matrix of these singular values, in random bases."""
    U, V = (torch.linalg.qr(torch.randn(n, n))[0] for n in (rows, columns))
    k = len(singular_values)
    return U[:, :k] @ torch.diag(torch.tensor(singular_values)) @ V[:, :k].T


def test_the_weight_is_divided_by_its_largest_singular_value():
    torch.manual_seed(0)
    W = matrix(5.0, 2.0, 1.0, rows=3, columns=7)
    norm = SpectralNorm(W)
    for _ in range(30):
        scaled = norm(W)
    assert torch.allclose(scaled, W / 5, atol=1e-6)


def test_a_convolution_counts_as_the_matrix_of_its_filters():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3)
    with torch.no_grad():
        layer.weight.copy_(matrix(4.0, 1.0, 0.5, rows=3, columns=18).view(3, 2, 3, 3))
    W = layer.weight.detach().clone()
    spectral_norm(layer)
    for _ in range(30):
        scaled = layer.weight
    assert torch.allclose(scaled, W / 4, atol=1e-6)
    # the same after channels_last has changed the strides, and in the layer's output
    layer.to(memory_format=torch.channels_last)
    x = torch.randn(1, 2, 5, 5)
    assert torch.allclose(layer(x), nn.functional.conv2d(x, W / 4, layer.bias), atol=1e-5)


def test_one_power_iteration_by_hand():
    # W = diag(2, 1), u = (0.6, 0.8): v = W'u / |W'u| = (3, 2) / sqrt(13), u = Wv / |Wv| = (3, 1) / sqrt(10), sigma = u'Wv = 20 / sqrt(130)
    W = torch.diag(torch.tensor([2.0, 1.0]))
    norm = SpectralNorm(W)
    norm.u.copy_(torch.tensor([0.6, 0.8]))
    scaled = norm(W)
    assert torch.allclose(norm.u, torch.tensor([3.0, 1.0]) / 10**0.5)
    assert scaled[0, 0].item() == pytest.approx(2 / (20 / 130**0.5), rel=1e-6)


def test_the_gradient_goes_through_sigma_with_u_and_v_held():
    # equation 9: d(W / sigma) = (dW - (u' dW v) W / sigma) / sigma
    torch.manual_seed(0)
    W = matrix(3.0, 1.0, rows=4, columns=5).requires_grad_()
    norm, G = SpectralNorm(W), torch.randn(4, 5)
    for _ in range(30):
        scaled = norm(W)
    (gradient,) = torch.autograd.grad((scaled * G).sum(), W)
    U, S, Vh = torch.linalg.svd(W.detach())
    expected = (G - (G * W.detach()).sum() / S[0] * torch.outer(U[:, 0], Vh[0])) / S[0]
    assert torch.allclose(gradient, expected, atol=1e-5)


def test_evaluation_and_precision_leave_u_and_sigma_alone():
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(6, 4))
    with torch.autocast("cpu", torch.bfloat16):
        in_bf16 = layer.train().weight
    assert in_bf16.dtype is torch.float32
    u = layer.parametrizations.weight[0].u.clone()
    layer.eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.weight, layer.weight)
        in_bf16 = layer.weight
    assert torch.equal(in_bf16, layer.weight)
    assert torch.equal(u, layer.parametrizations.weight[0].u)
    assert "parametrizations.weight.0.u" in layer.state_dict()


def test_hinge_loss_of_given_logits():
    # E max(0, 1 - D(x)) = (0 + 0.5 + 3) / 3 and E max(0, 1 + D(G(z))) = (0 + 1.5) / 2
    real, fake = torch.tensor([1.5, 0.5, -2.0]), torch.tensor([-4.0, 0.5])
    assert hinge_loss(real, fake).item() == pytest.approx(3.5 / 3 + 0.75, abs=1e-6)
    assert hinge_loss(fake, real).item() == pytest.approx((5 + 0.5) / 2 + (2.5 + 1.5 + 0) / 3, abs=1e-6)


def test_losses_of_a_step_are_those_of_equations_16_and_17():
    model = tiny(n_dis=1, lr=0.0).eval()  # a step that changes nothing
    real, z = torch.rand(4, 1, 8, 8), [torch.randn(4, 5), torch.randn(4, 5)]
    draws = iter(z)
    model.latent = lambda n: next(draws)
    scalars = model.training_step(Batches(real), Optimizers(model.configure_optimizers()))
    with torch.no_grad():
        assert scalars["loss_D"].item() == pytest.approx(hinge_loss(model.D(real), model.D(model.G(z[0]))).item(), abs=1e-5)
        assert scalars["loss_G"].item() == pytest.approx(-model.D(model.G(z[1])).mean().item(), abs=1e-5)


def test_every_layer_of_D_is_normalised_and_none_of_G():
    model = tiny()
    layers = [layer for layer in model.D.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 3 * 2 + 1 + 1
    assert all(nn.utils.parametrize.is_parametrized(layer) for layer in layers)
    assert not any(nn.utils.parametrize.is_parametrized(layer) for layer in model.G.modules())
    for _ in range(60):
        weights = [layer.weight for layer in layers]
    assert all(torch.linalg.matrix_norm(w.flatten(1), 2).item() == pytest.approx(1, abs=0.02) for w in weights)


def test_a_turn_draws_n_dis_batches_and_decays_linearly():
    for linear_decay, lr in ((True, 0.5e-4), (False, 2e-4)):
        model = tiny(n_dis=3, linear_decay=linear_decay)
        batches, optimizers = Batches(torch.rand(4, 1, 8, 8), progress=0.75), Optimizers(model.configure_optimizers())
        model.training_step(batches, optimizers)
        assert batches.drawn == 12
        assert optimizers["G"].lr == optimizers["D"].lr == pytest.approx(lr)


def test_defaults_and_parameters_are_the_published_ones():
    with torch.device("meta"):
        model = SNGAN(ImageSpec(3, 32))
    # counted from mimicry's sngan_32.py; see test_resnet.py for the sum by layers
    assert sum(p.numel() for p in model.G.parameters()) == 4_276_739
    assert sum(p.numel() for p in model.D.parameters()) == 1_053_825
    assert (model.z_dim, model.batch_size, model.n_dis, model.linear_decay) == (128, 64, 5, True)
    for optimizer in model.configure_optimizers().values():
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"]) == (2e-4, (0.0, 0.9))
