"""VAE with a VampPrior.

Jakub M. Tomczak and Max Welling, "VAE with a VampPrior", AISTATS 2018, arXiv:1705.07120, section 3. The prior is a mixture of the
encoder's own posteriors at K learnt pseudo-inputs u_k, which approximates the aggregated posterior, the optimal prior:

    maximise  E_q(z|x)[log p(x|z) + log p(z) - log q(z|x)],   p(z) = 1/K sum_k q(z|u_k)

The networks are those of section 5 for one layer of latents: two gated layers of 300 units a side, (W a + b) * sigmoid(V a + c), 40
latents, K = 500 pseudo-inputs, minibatches of 100, a weight on the last two terms that grows from 0 to 1 over the first 100 of 2000
epochs (here: over the share `warmup` of the budget). From the authors' release (github.com/jmtomczak/vae_vampprior): weights after He
et al. 2015, log sigma^2 clipped to [-6, 2], pseudo-inputs in [0, 1] that start from N(0.05, 0.01^2). Departure: plain Adam, without
its normalised gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import hardtanh

from genbench import Batches, ImageSpec, Optimizers, full_precision
from genbench_vaes.observation import Likelihood, Observation, reparameterise


class VampVAE(nn.Module):
    """`components` pseudo-inputs; gated layers of `hidden` units; `pseudo_std` spreads the pseudo-inputs at the start."""

    def __init__(
        self, image: ImageSpec, components: int = 500, z_dim: int = 40, hidden: int = 300, warmup: float = 0.05, pseudo_std: float = 0.01,
        likelihood: Likelihood = "bernoulli", sigma: float | None = None, lr: float = 5e-4, batch_size: int = 100,
    ) -> None:  # fmt: skip
        super().__init__()
        self.z_dim, self.warmup, self.lr, self.batch_size = z_dim, warmup, lr, batch_size
        pixels = prod(image.shape)
        self.encoder = nn.Sequential(nn.Flatten(), gated(pixels, hidden), gated(hidden, hidden), nn.Linear(hidden, 2 * z_dim))
        self.decoder = nn.Sequential(
            gated(z_dim, hidden), gated(hidden, hidden), nn.Linear(hidden, pixels), nn.Unflatten(1, image.shape)
        )  # fmt: skip
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
        self.u = nn.Parameter(torch.empty(components, *image.shape))  # (K, C, H, W) in [0, 1]
        nn.init.normal_(self.u, 0.05, pseudo_std)
        self.observation = Observation(likelihood, sigma)
        self.density, self.prior = self.observation.density, f"VampPrior({components})"

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One over both networks and the pseudo-inputs."""
        return {"VAE": torch.optim.Adam(self.parameters(), lr=self.lr)}

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [-1, 1] -> mu, log sigma^2 of q(z|x), each (B, z_dim)."""
        mu, logvar = self.encoder((images + 1) / 2).float().chunk(2, dim=1)
        return mu, hardtanh(logvar, -6, 2)

    def pseudo_inputs(self) -> Tensor:
        """(K, C, H, W) images in [-1, 1]; clipped as in the release."""
        return 2 * hardtanh(self.u, 0, 1) - 1

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Ascend the bound with one sample of z per image; the divergence from the mixture has no closed form."""
        images = next(batches).images
        # The mixture's components come from the same encoder: one pass for images and pseudo-inputs.
        mus, logvars = self.posterior(torch.cat([images, self.pseudo_inputs()]))
        (mu, mu_u), (logvar, logvar_u) = mus.tensor_split([len(images)]), logvars.tensor_split([len(images)])
        z = reparameterise(mu, logvar)
        reconstruction = -self.observation.log_prob(images, self.decoder(z)).mean()
        kl = (log_normal(z, mu, logvar) - log_mixture(z, mu_u, logvar_u)).mean()
        beta = min(1.0, batches.progress / self.warmup) if self.warmup else 1.0
        loss = reconstruction + beta * kl
        optimizers["VAE"].minimize(loss)
        return {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "kl": kl.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> decoder means (n, C, H, W) in [-1, 1] of z ~ p(z): a pseudo-input at random, then its posterior."""
        u = self.pseudo_inputs()
        k = torch.randint(len(u), (n,), device=u.device)
        return self.decode(reparameterise(*self.posterior(u[k])))

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> mean of q(z|x) (B, z_dim)."""
        return self.posterior(images)[0]

    def decode(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> mean of p(x|z) (B, C, H, W) in [-1, 1]."""
        return self.observation.mean(self.decoder(z))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the posterior's mean."""
        return self.decode(self.encode(images))

    def log_weights(self, images: Tensor, k: int) -> Tensor:
        """(B, C, H, W), k -> log p(x|z) p(z) / q(z|x) (k, B) in nats, p(z) the VampPrior."""
        mu, logvar = self.posterior(images)
        mu_u, logvar_u = self.posterior(self.pseudo_inputs())
        weights = []
        for _ in range(k):
            z = reparameterise(mu, logvar)
            log_ratio = log_mixture(z, mu_u, logvar_u) - log_normal(z, mu, logvar)
            weights.append(self.observation.log_prob(images, self.decoder(z)) + log_ratio)
        return torch.stack(weights)


def gated(inputs: int, units: int) -> nn.Sequential:
    """(B, inputs) -> (B, units): (W a + b) * sigmoid(V a + c), W and V in one matrix."""
    return nn.Sequential(nn.Linear(inputs, 2 * units), nn.GLU(dim=1))


def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """(B, d) each -> log N(z; mu, diag exp(logvar)) (B,)."""
    return -0.5 * ((z - mu).square() / logvar.exp() + logvar + math.log(2 * math.pi)).sum(1)


def log_mixture(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """(B, d) z, (K, d) means and log-variances -> log 1/K sum_k N(z; mu_k, diag exp(logvar_k)) (B,)."""
    # The squared distances to all K means as two matrix products: no (B, K, d) tensor. Float64, for the expanded square cancels.
    with full_precision():
        z, mu, logvar = z.double(), mu.double(), logvar.double()
        precision = torch.exp(-logvar)
        squares = z.square() @ precision.T - 2 * z @ (mu * precision).T + (mu.square() * precision).sum(1)  # (B, K)
        log_components = -0.5 * (squares + logvar.sum(1) + z.shape[1] * math.log(2 * math.pi))
        return (torch.logsumexp(log_components, dim=1) - math.log(len(mu))).float()
