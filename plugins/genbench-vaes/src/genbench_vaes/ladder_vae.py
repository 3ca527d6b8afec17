"""Ladder variational autoencoder.

Casper Kaae Sønderby, Tapani Raiko, Lars Maaløe, Søren Kaae Sønderby and Ole Winther, "Ladder Variational Autoencoders", NeurIPS 2016,
arXiv:1602.02282, section 2. A chain of latents z_1 ... z_L above the image; inference runs bottom-up without noise, then top-down
through the generative model, where each layer's posterior is the precision-weighted product of both:

    p(x, z) = p(x|z_1) p(z_1|z_2) ... p(z_L-1|z_L) p(z_L),   p(z_L) = N(0, I),   p(z_i|z_i+1) = N(mu_p,i, sigma_p,i^2)
    q(z|x)  = q(z_L|x) product q(z_i|z_i+1, x),              d_i = MLP(d_i-1),   d_0 = x
    sigma_q,i^2 = 1 / (sigma^_i^-2 + sigma_p,i^-2),          mu_q,i = sigma_q,i^2 (mu^_i sigma^_i^-2 + mu_p,i sigma_p,i^-2)

with mu^_i and sigma^_i^2 = softplus(.) linear in d_i, and q(z_L|x) = N(mu^_L, sigma^_L^2). The set-up of section 3: latents
64-32-16-8-4, two layers of 512, 256, 128, 64 and 32 units under them, batch normalisation, leaky rectifiers max(x, 0.1 x), Adam at 1e-3,
minibatches of 256, and warm-up: the weight of the divergence grows from 0 to 1 over the first 200 of 2000 epochs (here: over the
share `warmup` of the budget). Variances are kept above 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from genbench import Batches, ImageSpec, Optimizers
from genbench_vaes.observation import Likelihood, Observation, reparameterise

Gaussian = tuple[Tensor, Tensor]
"""mu, log sigma^2, each (B, d)."""


class LadderVAE(nn.Module):
    """`latents` are the sizes of z_1, z_2, ..., `hidden` those of the MLPs below each: "64,32" and "512,256" is a model of two layers."""

    def __init__(
        self, image: ImageSpec, latents: str = "64,32,16,8,4", hidden: str = "512,256,128,64,32", warmup: float = 0.1,
        likelihood: Likelihood = "bernoulli", sigma: float | None = None, lr: float = 1e-3, batch_size: int = 256,
    ) -> None:  # fmt: skip
        super().__init__()
        self.warmup, self.lr, self.batch_size = warmup, lr, batch_size
        self.sizes, units = sizes(latents), sizes(hidden)
        if len(self.sizes) != len(units):
            raise ValueError(f"latents {latents!r} are {len(self.sizes)} layers, hidden {hidden!r} are {len(units)}; they must be as many")
        pixels = prod(image.shape)
        self.bottom_up = nn.ModuleList([nn.Sequential(*mlp(below, above)) for below, above in pairwise([pixels, *units])])
        self.likelihoods = nn.ModuleList([nn.Linear(width, 2 * size) for width, size in zip(units, self.sizes, strict=True)])
        # priors[i] is p(z_i|z_i+1), counted from 0 here
        self.priors = nn.ModuleList(
            [
                nn.Sequential(*mlp(above, width), nn.Linear(width, 2 * z))
                for (z, above), width in zip(pairwise(self.sizes), units[1:], strict=True)
            ]
        )
        self.decoder = nn.Sequential(*mlp(self.sizes[0], units[0]), nn.Linear(units[0], pixels), nn.Unflatten(1, image.shape))
        self.observation = Observation(likelihood, sigma)
        self.density, self.prior = self.observation.density, f"N(0, I), {len(units)} layers"

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One over all networks."""
        return {"VAE": torch.optim.Adam(self.parameters(), lr=self.lr)}

    def upward(self, images: Tensor) -> list[Gaussian]:
        """(B, C, H, W) in [-1, 1] -> the approximate likelihoods N(mu^_i, sigma^_i^2) of z_1 ... z_L."""
        d, found = (images.flatten(1) + 1) / 2, []
        for layer, head in zip(self.bottom_up, self.likelihoods, strict=True):
            d = layer(d)
            found.append(gaussian(head(d)))
        return found

    def downward(self, likelihoods: list[Gaussian], noise: bool = True) -> list[tuple[Tensor, Gaussian, Gaussian]]:
        """Approximate likelihoods -> z_i ~ q (its mean without `noise`), q(z_i|z_i+1, x), p(z_i|z_i+1) for i = 1 ... L."""
        q = likelihoods[-1]
        p = torch.zeros_like(q[0]), torch.zeros_like(q[1])
        found = [(reparameterise(*q) if noise else q[0], q, p)]
        for network, likelihood in zip(reversed(self.priors), reversed(likelihoods[:-1]), strict=True):
            p = gaussian(network(found[0][0]))
            q = merge(likelihood, p)
            found.insert(0, (reparameterise(*q) if noise else q[0], q, p))
        return found

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Ascend E log p(x|z_1) - beta sum_i KL(q(z_i|z_i+1, x) || p(z_i|z_i+1)) with one sample per image."""
        images = next(batches).images
        layers = self.downward(self.upward(images))
        reconstruction = -self.observation.log_prob(images, self.decoder(layers[0][0])).mean()
        kls = [kl_divergence(q, p).mean() for _, q, p in layers]
        kl = torch.stack(kls).sum()
        beta = min(1.0, batches.progress / self.warmup) if self.warmup else 1.0
        loss = reconstruction + beta * kl
        optimizers["VAE"].minimize(loss)
        losses = {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "kl": kl.detach()}
        return {**losses, **{f"kl_{i}": value.detach() for i, value in enumerate(kls, 1)}}

    def sample(self, n: int) -> Tensor:
        """n -> decoder means (n, C, H, W) in [-1, 1]; z_L ~ N(0, I), then down the chain z_i ~ p(z_i|z_i+1)."""
        z = torch.randn(n, self.sizes[-1], device=self.observation.variance.device)
        for network in reversed(self.priors):
            z = reparameterise(*gaussian(network(z)))
        return self.decode(z)

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> means of q side by side, z_1 first (B, sum of latents); each given the mean of the layer above."""
        return torch.cat([z for z, _, _ in self.downward(self.upward(images), noise=False)], dim=1)

    def decode(self, z: Tensor) -> Tensor:
        """(B, z_1 or all latents, z_1 first) -> mean of p(x|z_1) (B, C, H, W) in [-1, 1]: given z_1, the image ignores those above."""
        return self.observation.mean(self.decoder(z[:, : self.sizes[0]]))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the posterior's mean."""
        return self.decode(self.encode(images))

    def log_weights(self, images: Tensor, k: int) -> Tensor:
        """(B, C, H, W), k -> log p(x, z_1 ... z_L) / q(z_1 ... z_L|x) (k, B) in nats."""
        likelihoods, weights = self.upward(images), []
        for _ in range(k):
            layers = self.downward(likelihoods)
            log_ratio = sum(log_normal(z, p) - log_normal(z, q) for z, q, p in layers)
            weights.append(self.observation.log_prob(images, self.decoder(layers[0][0])) + log_ratio)
        return torch.stack(weights)


def merge(a: Gaussian, b: Gaussian) -> Gaussian:
    """Two Gaussians -> the normalised product of their densities: precisions add, means are weighted by them."""
    (mu_a, logvar_a), (mu_b, logvar_b) = a, b
    logvar = -torch.logaddexp(-logvar_a, -logvar_b)
    return mu_a * torch.exp(logvar - logvar_a) + mu_b * torch.exp(logvar - logvar_b), logvar


def kl_divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) (B,) in nats."""
    (mu_q, logvar_q), (mu_p, logvar_p) = q, p
    return 0.5 * (logvar_p - logvar_q + torch.exp(logvar_q - logvar_p) + (mu_q - mu_p).square() * torch.exp(-logvar_p) - 1).sum(1)


def log_normal(z: Tensor, p: Gaussian) -> Tensor:
    """(B, d), Gaussian -> its log density at z (B,), without the constant -d/2 log 2 pi, which cancels in every ratio."""
    mu, logvar = p
    return -0.5 * ((z - mu).square() * torch.exp(-logvar) + logvar).sum(1)


def gaussian(output: Tensor) -> Gaussian:
    """(B, 2 d) linear output -> mu, log sigma^2 with sigma^2 = softplus(.)."""
    mu, raw = output.float().chunk(2, dim=1)
    return mu, torch.log(softplus(raw) + 1e-6)


def mlp(inputs: int, units: int) -> list[nn.Module]:
    """Two layers of `units`, normalised over the batch and rectified."""
    layers: list[nn.Module] = []
    for width in (inputs, units):
        layers += [nn.Linear(width, units, bias=False), nn.BatchNorm1d(units), nn.LeakyReLU(0.1)]
    return layers


def sizes(text: str) -> list[int]:
    """ "64,32" -> [64, 32]. Raises ValueError where that is no list of whole numbers above 0."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise ValueError(f"{text!r} must be whole numbers above 0 with commas between them: 64,32")
    return found
