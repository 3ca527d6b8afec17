"""Importance weighted autoencoder.

Yuri Burda, Roger Grosse and Ruslan Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519. A VAE trained on the
tighter bound of k samples, eq. 8:

    maximise  L_k = E_{z_1..z_k ~ q(z|x)}[log 1/k sum_i w_i],   w_i = p(x, z_i) / q(z_i|x),   L_1 <= L_k <= log p(x)

Automatic differentiation of a logsumexp weighs each sample's gradient by w_i / sum_j w_j, which is eq. 14.

The networks are those of section 5 with one stochastic layer: two tanh layers of 200 units a side, 50 latents, weights initialised by
Glorot and Bengio's rule; Adam with epsilon 1e-4 on minibatches of 20, whose learning rate falls by 10^(-1/7) seven times, the i-th rate
serving for 3^i of 3280 passes (here: for that share of the budget). k is 50, the largest of the paper's 1, 5 and 50. The
authors' code starts the output biases from the mean image; here they start from 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from genbench import Batches, ImageSpec, Optimizers
from genbench_vaes.observation import Likelihood, Observation
from genbench_vaes.vae import Activation, mlp

STAGES = 8
"""Learning rates of the schedule; the i-th serves for 3^i of (3^8 - 1) / 2 = 3280 passes."""


class IWAE(nn.Module):
    """`k` samples of z per image; `schedule`: the paper's learning rates, without it `lr` throughout; the rest as in `VAE`."""

    def __init__(
        self, image: ImageSpec, k: int = 50, z_dim: int = 50, hidden: int = 200, depth: int = 2, activation: Activation = "tanh",
        likelihood: Likelihood = "bernoulli", sigma: float | None = None, lr: float = 1e-3, schedule: bool = True, batch_size: int = 20,
    ) -> None:  # fmt: skip
        super().__init__()
        self.k, self.z_dim, self.lr, self.schedule, self.batch_size = k, z_dim, lr, schedule, batch_size
        pixels = prod(image.shape)
        self.encoder = nn.Sequential(nn.Flatten(), *mlp(pixels, *[hidden] * depth, 2 * z_dim, activation=activation))
        self.decoder = nn.Sequential(*mlp(z_dim, *[hidden] * depth, pixels, activation=activation), nn.Unflatten(1, image.shape))
        for layer in [*self.encoder, *self.decoder]:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.observation = Observation(likelihood, sigma)
        self.density, self.prior = self.observation.density, "N(0, I)"

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One over both networks."""
        return {"IWAE": torch.optim.Adam(self.parameters(), lr=self.lr, eps=1e-4)}

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [-1, 1] -> mu, log sigma^2 of q(z|x), each (B, z_dim)."""
        mu, logvar = self.encoder((images + 1) / 2).float().chunk(2, dim=1)
        return mu, logvar

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Ascend L_k of a minibatch."""
        if self.schedule:
            optimizers["IWAE"].lr = self.lr * 10 ** (-stage(batches.progress) / 7)
        log_w = self.draw(next(batches).images, self.k)
        loss = -(log_w.logsumexp(0) - math.log(self.k)).mean()
        optimizers["IWAE"].minimize(loss)
        return {"loss": loss.detach(), "elbo": log_w.detach().mean()}

    def draw(self, images: Tensor, k: int) -> Tensor:
        """(B, C, H, W), k -> log w_i (k, B) in nats, all k decoded at once."""
        mu, logvar = self.posterior(images)
        eps = torch.randn(k, *mu.shape, device=mu.device)
        z = mu + torch.exp(0.5 * logvar) * eps
        repeated = images.expand(k, *images.shape).flatten(0, 1)
        log_likelihood = self.observation.log_prob(repeated, self.decoder(z.flatten(0, 1))).unflatten(0, (k, -1))
        # log p(z) - log q(z|x): the constants cancel
        return log_likelihood + 0.5 * (eps.square() + logvar - z.square()).sum(2)

    def sample(self, n: int) -> Tensor:
        """n -> decoder means (n, C, H, W) in [-1, 1] of z ~ N(0, I)."""
        return self.decode(torch.randn(n, self.z_dim, device=self.observation.variance.device))

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
        """(B, C, H, W), k -> log p(x, z) / q(z|x) (k, B) in nats, drawn in portions of the training's k."""
        return torch.cat([self.draw(images, min(self.k, k - start)) for start in range(0, k, self.k)])


def stage(progress: float) -> int:
    """Share of the budget spent -> i of the learning rate 10^(-i/7): (3^i - 1) / 2 of 3280 passes come before the i-th."""
    return min(int(math.log(1 + (3**STAGES - 1) * progress, 3) + 1e-9), STAGES - 1)
