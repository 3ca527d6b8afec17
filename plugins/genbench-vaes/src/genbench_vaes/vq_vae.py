"""VQ-VAE with an autoregressive prior.

Aäron van den Oord, Oriol Vinyals and Koray Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017, arXiv:1711.00937.
The encoder's output z_e at each place of a map is replaced by the nearest of K codebook entries e (eq. 1 and 2); gradients pass straight
through, and (eq. 3)

    minimise  -log p(x|z_q) + ||sg[z_e] - e||^2 + beta ||z_e - sg[e]||^2

Then the autoencoder stands still, and a gated PixelCNN (`genbench_vaes.pixelcnn`) learns p(z) of its codes: in the last `prior_share` of
the budget. Networks of section 4.1: `halvings` strided 4 x 4 convolutions, two residual blocks, and the reverse. `codebook` chooses how
the entries learn: ``loss`` (the second term of eq. 3, as in the paper's experiments) or ``ema`` (the moving averages of appendix A.1).

From the authors' Sonnet code: entries of 64 numbers, the squared error divided by the data's variance, both other terms averaged over
places and numbers, Laplace smoothing of the counts in ``ema``. `restart` > 0 re-seeds an entry whose use falls below that share of the
average from the batch, as in Dhariwal et al. 2020, arXiv:2005.00341, section 3.1. The prior's size is PixelCNN's for CIFAR-10
(arXiv:1601.06759). Departures: `anneal` lets the learning rate of each phase fall linearly to 0; samples are clipped to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, mse_loss, pad

from genbench import Batches, ImageSpec, Optimizers, full_precision
from genbench_vaes.pixelcnn import PixelCNN


class VQVAE(nn.Module):
    """Encoder, codebook of `codes` entries (K) of `code_dim` numbers (D), decoder, and prior over maps of side size / 2^halvings."""

    def __init__(
        self, image: ImageSpec, codes: int = 512, code_dim: int = 64, width: int = 256, halvings: int = 2, beta: float = 0.25,
        codebook: Literal["loss", "ema"] = "loss", decay: float = 0.99, restart: float = 0.0,
        prior_share: float = 0.5, prior_width: int = 128, prior_layers: int = 15, prior_lr: float = 3e-4,
        lr: float = 2e-4, anneal: bool = False, batch_size: int = 128,
    ) -> None:  # fmt: skip
        super().__init__()
        self.beta, self.prior_share, self.anneal, self.batch_size = beta, prior_share, anneal, batch_size
        self.lrs = {"VQ-VAE": lr, "prior": prior_lr}
        self.image, self.halvings = image, halvings
        self.encoder = encoder(image.channels, width, halvings, code_dim)
        self.decoder = decoder(image.channels, width, halvings, code_dim)
        self.codebook = Codebook(codes, code_dim, codebook == "ema", decay, restart)
        self.pixelcnn = PixelCNN(codes, -(-image.size // 2**halvings), prior_width, prior_layers)
        self.prior = "autoregressive"

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each phase."""
        autoencoder = [p for net in (self.encoder, self.codebook, self.decoder) for p in net.parameters()]
        nets = {"VQ-VAE": autoencoder, "prior": list(self.pixelcnn.parameters())}
        return {name: torch.optim.Adam(net, lr=self.lrs[name]) for name, net in nets.items()}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Eq. 3 until `prior_share` of the budget is left, then the prior's log-likelihood of the codes of fresh images."""
        images, start = next(batches).images, 1 - self.prior_share
        second = batches.progress >= start
        name = "prior" if second else "VQ-VAE"
        if self.anneal:
            left = (1 - batches.progress) / self.prior_share if second else 1 - batches.progress / start
            optimizers[name].lr = self.lrs[name] * left
        if second:
            codes = self.codes(images)
            nll = cross_entropy(self.pixelcnn(codes), codes)  # nats per code
            optimizers[name].minimize(nll)
            return {"prior_nll": nll.detach()}
        z_e = self.embed(images)
        codes = self.codebook.nearest(z_e)
        e = self.codebook(codes)
        output = self.output(z_e + (e - z_e).detach())  # straight through: d loss / d z_e = d loss / d z_q
        reconstruction = mse_loss(output, images) / images.var()
        commitment = mse_loss(z_e, e.detach())
        loss = reconstruction + self.beta * commitment
        if self.codebook.ema:
            self.codebook.follow(z_e.detach(), codes)
        else:
            loss = loss + mse_loss(e, z_e.detach())
        optimizers[name].minimize(loss)
        return {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "commitment": commitment.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1], decoded from codes drawn one after another."""
        return self.decode(self.codebook(self.pixelcnn.sample(n)))

    def reconstruct(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> what its codes say of it, in [-1, 1]."""
        return self.decode(self.codebook(self.codes(images)))

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> z_e (B, D, h, w) float32."""
        short = -self.image.size % 2**self.halvings  # a size that is no multiple is filled up with black
        z_e: Tensor = self.encoder(pad(images, (0, short, 0, short), value=-1.0) if short else images)
        return z_e.float()

    def output(self, z_q: Tensor) -> Tensor:
        """(B, D, h, w) -> mean of p(x|z_q) (B, C, H, W) float32, unbounded."""
        output: Tensor = self.decoder(z_q)
        return output.float()[:, :, : self.image.size, : self.image.size]

    def decode(self, z_q: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, H, W) in [-1, 1]."""
        return self.output(z_q).clamp(-1, 1)

    @torch.no_grad()
    def codes(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> codes (B, h, w)."""
        return self.codebook.nearest(self.embed(images))


class Codebook(nn.Module):
    """K entries e (K, D); with `ema` they follow the vectors they were chosen for, else they are parameters."""

    e: Tensor
    N: Tensor
    m: Tensor

    def __init__(self, codes: int, code_dim: int, ema: bool, decay: float, restart: float) -> None:
        super().__init__()
        self.ema, self.decay, self.restart = ema, decay, restart
        e = (2 * torch.rand(codes, code_dim) - 1) / codes
        if ema:
            self.register_buffer("e", e)
            # With `restart` all entries count as unused at first, so that they begin at vectors of the first batch.
            self.register_buffer("N", torch.zeros(codes) if restart else torch.ones(codes))
            self.register_buffer("m", e.clone())
        else:
            self.e = nn.Parameter(e)

    def forward(self, codes: Tensor) -> Tensor:
        """(B, h, w) -> entries (B, D, h, w)."""
        return embedding(codes, self.e).permute(0, 3, 1, 2)

    @torch.no_grad()
    def nearest(self, z_e: Tensor) -> Tensor:
        """(B, D, h, w) float32 -> argmin_k ||z_e - e_k|| (B, h, w). Equation 1."""
        with full_precision():
            # ||z - e||^2 = ||z||^2 + 2 (||e||^2 / 2 - z e)
            scores = torch.addmm(0.5 * self.e.square().sum(1), z_e.permute(0, 2, 3, 1).flatten(0, 2), self.e.T, alpha=-1)
        return scores.argmin(1).view(len(z_e), *z_e.shape[2:])

    @torch.no_grad()
    def follow(self, z_e: Tensor, codes: Tensor) -> None:
        """(B, D, h, w) float32, its codes (B, h, w) -> moves the entries. Appendix A.1."""
        with full_precision():
            z = z_e.permute(0, 2, 3, 1).flatten(0, 2)
            chosen = (codes.flatten() == torch.arange(len(self.e), device=z.device)[:, None]).float()  # (K, B h w)
            self.N.lerp_(chosen.sum(1), 1 - self.decay)
            self.m.lerp_(chosen @ z, 1 - self.decay)
            if self.restart:
                average = len(z) / len(self.e)
                unused = self.restart * average > self.N
                seeds = z[torch.randint(len(z), (len(self.e),), device=z.device)]
                self.N.copy_(torch.where(unused, average, self.N))
                self.m.copy_(torch.where(unused[:, None], average * seeds, self.m))
            total, eps = self.N.sum(), 1e-5
            self.e.copy_(self.m / ((self.N + eps) / (total + len(self.e) * eps) * total)[:, None])


class Residual(nn.Module):
    """x + (ReLU, 3 x 3, ReLU, 1 x 1)(x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map -> map of the same shape."""
        out: Tensor = x + self.block(x)
        return out


def encoder(channels: int, width: int, halvings: int, code_dim: int) -> nn.Sequential:
    """(B, C, H, W) -> z_e (B, D, H / 2^halvings, W / 2^halvings)."""
    layers: list[nn.Module] = []
    for level in range(halvings):
        layers += [nn.Conv2d(width if level else channels, width, 4, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers[:-1], Residual(width), Residual(width), nn.ReLU(), nn.Conv2d(width, code_dim, 1))


def decoder(channels: int, width: int, halvings: int, code_dim: int) -> nn.Sequential:
    """z_q (B, D, h, w) -> (B, C, 2^halvings h, 2^halvings w) ."""
    layers: list[nn.Module] = [nn.Conv2d(code_dim, width, 3, padding=1), Residual(width), Residual(width)]
    for level in reversed(range(halvings)):
        layers += [nn.ReLU(), nn.ConvTranspose2d(width, width if level else channels, 4, stride=2, padding=1)]
    return nn.Sequential(*layers)
