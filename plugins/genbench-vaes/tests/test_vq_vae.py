"""Eq. 1 to 3 and appendix A.1 by hand: nearest entries, straight-through gradients, both terms, moving averages, two phases."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from genbench_vaes.vq_vae import VQVAE, Codebook
from torch import Tensor, nn

from genbench import Batch, ImageSpec, Optimizers

TINY = {"codes": 5, "code_dim": 3, "width": 4, "prior_width": 4, "prior_layers": 2}


class Images:
    """The same images for ever, at one share of the budget."""

    def __init__(self, images: Tensor, progress: float = 0.0) -> None:
        self.images, self.progress = images, progress

    def __next__(self) -> Batch:
        return Batch(self.images)


class Fixed(nn.Module):
    """An encoder whose output is its parameter."""

    def __init__(self, z_e: Tensor) -> None:
        super().__init__()
        self.z_e = nn.Parameter(z_e)

    def forward(self, images: Tensor) -> Tensor:
        return self.z_e


def descend(model: VQVAE, images: Tensor) -> dict[str, Tensor]:
    """One step at rate 1 without momentum: parameters move by minus their gradients."""
    sgd = {name: torch.optim.SGD(optimizer.param_groups[0]["params"], lr=1.0) for name, optimizer in model.configure_optimizers().items()}
    return dict(model.training_step(Images(images), Optimizers(sgd)))


def test_nearest() -> None:
    codebook = Codebook(3, 2, ema=False, decay=0.99, restart=0.0)
    e = torch.tensor([[0.0, 0.0], [2.0, 1.0], [-1.0, 3.0]])
    codebook.e.data.copy_(e)
    torch.manual_seed(0)
    z_e = 3 * torch.randn(4, 2, 5, 3)
    codes = codebook.nearest(z_e)
    assert codes.shape == (4, 5, 3)
    distances = (z_e[:, None] - e[None, :, :, None, None]).square().sum(2)
    assert torch.equal(codes, distances.argmin(1))
    assert torch.equal(codebook(codes)[1, :, 2, 1], e[codes[1, 2, 1]])


@pytest.mark.parametrize("codebook", ["loss", "ema"])
def test_terms_and_gradients(codebook: str) -> None:
    """z_e gets the decoder's input gradient at z_q (straight through) and 2 beta (z_e - e) / n; an entry 2 sum (e - z_e) / n."""
    torch.manual_seed(0)
    model = VQVAE(ImageSpec(1, 8), beta=0.3, codebook=codebook, **TINY)  # type: ignore[arg-type]
    with torch.no_grad():
        model.codebook.e.copy_(torch.randn(5, 3))
    images, z_e = torch.rand(6, 1, 8, 8) * 2 - 1, torch.randn(6, 3, 2, 2)
    model.encoder = Fixed(z_e.clone())
    e_before = model.codebook.e.detach().clone()
    codes = model.codebook.nearest(z_e)
    z_q = e_before[codes].permute(0, 3, 1, 2).clone().requires_grad_()
    n = z_e.numel()
    reconstruction = (model.decoder(z_q) - images).square().mean() / images.var()
    (through,) = torch.autograd.grad(reconstruction, z_q)
    term = (z_e - z_q.detach()).square().mean()
    scalars = descend(model, images)
    torch.testing.assert_close(scalars["reconstruction"], reconstruction.detach())
    torch.testing.assert_close(scalars["commitment"], term)
    torch.testing.assert_close(scalars["loss"], reconstruction.detach() + (0.3 if codebook == "ema" else 1.3) * term)
    torch.testing.assert_close(z_e - model.encoder.z_e.detach(), through + 2 * 0.3 * (z_e - z_q.detach()) / n, atol=1e-6, rtol=1e-4)
    if codebook == "loss":
        flat, chosen = z_e.permute(0, 2, 3, 1).reshape(-1, 3), codes.flatten()
        gradient = torch.stack([2 * (e_before[k] - flat[chosen == k]).sum(0) / n for k in range(5)])
        torch.testing.assert_close(e_before - model.codebook.e.detach(), gradient, atol=1e-6, rtol=1e-4)
    else:
        assert not any(name.startswith("codebook") for name, _ in model.named_parameters())


def test_moving_averages() -> None:
    """N <- g N + (1 - g) n, m <- g m + (1 - g) sum z_e, e = m / N. Appendix A.1, from counts of one."""
    codebook = Codebook(3, 2, ema=True, decay=0.9, restart=0.0)
    e = torch.tensor([[0.0, 0.0], [2.0, 1.0], [-1.0, 3.0]])
    codebook.e.copy_(e)
    codebook.m.copy_(e)
    z = torch.tensor([[0.4, -0.2], [2.5, 1.0], [1.5, 1.5], [2.0, 0.5]])
    codes = torch.tensor([0, 1, 1, 1])
    codebook.follow(z.T.reshape(1, 2, 2, 2), codes.view(1, 2, 2))
    N = torch.tensor([0.9 + 0.1 * 1, 0.9 + 0.1 * 3, 0.9])
    m = 0.9 * e + 0.1 * torch.stack([z[0], z[1:].sum(0), torch.zeros(2)])
    torch.testing.assert_close(codebook.N, N)
    torch.testing.assert_close(codebook.m, m)
    torch.testing.assert_close(codebook.e, m / N[:, None], atol=1e-4, rtol=1e-4)  # but for the smoothing of 1e-5 counts


def test_unused_entries_start_again() -> None:
    """Below `restart` times the average use an entry becomes a vector of the batch; the others only follow."""
    torch.manual_seed(0)
    codebook = Codebook(4, 2, ema=True, decay=0.5, restart=0.2)
    e = torch.tensor([[0.0, 0.0], [9.0, 9.0], [5.0, -5.0], [-7.0, 7.0]])
    codebook.e.copy_(e)
    codebook.N.copy_(torch.tensor([4.0, 0.5, 0.1, 3.0]))  # the average use of 8 vectors among 4 entries is 2
    codebook.m.copy_(e * codebook.N[:, None])
    z = torch.randn(8, 2)
    codebook.follow(z.T.reshape(1, 2, 2, 4), torch.zeros(1, 2, 4, dtype=torch.int64))
    assert codebook.N.tolist() == pytest.approx([6.0, 2.0, 2.0, 1.5])
    for k in (1, 2):
        assert float((z - codebook.e[k]).norm(dim=1).min()) < 1e-3
    torch.testing.assert_close(codebook.e[3], e[3], atol=1e-3, rtol=0)


def test_first_entries_are_of_the_first_batch() -> None:
    torch.manual_seed(0)
    model = VQVAE(ImageSpec(1, 8), codebook="ema", restart=0.1, **TINY)  # type: ignore[arg-type]
    images = torch.rand(6, 1, 8, 8) * 2 - 1
    z = model.embed(images).detach().permute(0, 2, 3, 1).reshape(-1, 3)
    descend(model, images)
    distances = torch.cdist(model.codebook.e, z).amin(1)
    assert int((distances < 1e-3).sum()) >= 4


def test_two_phases() -> None:
    """Until `prior_share` is left the autoencoder learns and the prior stands still; then the other way round."""
    torch.manual_seed(0)
    model = VQVAE(ImageSpec(1, 8), codebook="ema", restart=0.1, prior_share=0.6, prior_lr=0.01, **TINY)  # type: ignore[arg-type]
    optimizers, images = Optimizers(model.configure_optimizers()), torch.rand(6, 1, 8, 8) * 2 - 1
    states = [{name: value.clone() for name, value in model.state_dict().items()}]
    for progress in (0.39, 0.4):
        scalars = model.training_step(Images(images, progress), optimizers)
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    first, second = ({name.split(".")[0] for name in a if not torch.equal(a[name], b[name])} for a, b in pairwise(states))
    assert first == {"encoder", "decoder", "codebook"}
    assert second == {"pixelcnn"}
    # nats per code, at first about those of a guess
    assert float(scalars["prior_nll"]) == pytest.approx(float(torch.tensor(5.0).log()), abs=0.5)
    for _ in range(150):
        scalars = model.training_step(Images(images, 0.9), optimizers)
    assert float(scalars["prior_nll"]) < 1.0
    with torch.inference_mode():
        assert model.eval().sample(4).shape == (4, 1, 8, 8)


def test_learning_rates_fall_within_their_phases() -> None:
    model = VQVAE(ImageSpec(1, 8), lr=0.1, prior_lr=0.2, anneal=True, prior_share=0.75, **TINY)  # type: ignore[arg-type]
    optimizers, images = Optimizers(model.configure_optimizers()), torch.rand(2, 1, 8, 8)
    for progress, name, expected in ((0.0, "VQ-VAE", 0.1), (0.2, "VQ-VAE", 0.02), (0.25, "prior", 0.2), (0.85, "prior", 0.04)):
        model.training_step(Images(images, progress), optimizers)
        assert optimizers[name].lr == pytest.approx(expected)


def test_reconstructions_learn() -> None:
    torch.manual_seed(0)
    model = VQVAE(ImageSpec(1, 8), 16, 8, 16, codebook="ema", restart=0.1, lr=3e-3, prior_width=4, prior_layers=1)
    images = torch.full((32, 1, 8, 8), -1.0)
    for i, image in enumerate(images):
        image[:, i % 5 : i % 5 + 4, i % 4 : i % 4 + 4] = 0.8
    optimizers = Optimizers(model.configure_optimizers())
    for _ in range(200):
        model.training_step(Images(images), optimizers)
    with torch.inference_mode():
        error = (model.eval().reconstruct(images) - images).square().mean()
    assert error < 0.3 * (images - images.mean(0)).square().mean()


def test_published_networks() -> None:
    """Section 4.1 with 256 maps: two 4 x 4 convolutions of stride 2, two residual blocks of 3 x 3 and 1 x 1, and the reverse."""
    with torch.device("meta"):
        model = VQVAE(ImageSpec(3, 32))
    residual = 9 * 256 * 256 + 256 + 256 * 256 + 256
    count = 16 * 3 * 256 + 256 + 16 * 256 * 256 + 256 + 2 * residual
    assert sum(p.numel() for p in model.encoder.parameters()) == count + 256 * 64 + 64
    count = 2 * residual + 16 * 256 * 256 + 256 + 16 * 256 * 3 + 3
    assert sum(p.numel() for p in model.decoder.parameters()) == 9 * 64 * 256 + 256 + count
    assert model.codebook.e.shape == (512, 64)
    assert model.pixelcnn.side == 8
    assert model.prior == "autoregressive"


@pytest.mark.parametrize(("size", "halvings", "side"), [(8, 3, 1), (10, 2, 3), (13, 1, 7), (32, 3, 4)])
def test_other_sizes(size: int, halvings: int, side: int) -> None:
    model = VQVAE(ImageSpec(3, size), halvings=halvings, **TINY)  # type: ignore[arg-type]
    images = torch.rand(2, 3, size, size)
    assert model.codes(images).shape == (2, side, side)
    assert model.reconstruct(images).shape == images.shape
