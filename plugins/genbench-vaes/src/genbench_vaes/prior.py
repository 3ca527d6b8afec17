"""Ex-post density estimation: a Gaussian mixture fitted to the latents of a trained autoencoder.

Partha Ghosh, Mehdi S. M. Sajjadi, Antonio Vergari, Michael Black and Bernhard Schölkopf, "From Variational to Deterministic
Autoencoders", ICLR 2020, arXiv:1903.12436, section 4: the encoder and decoder stay as they are, and samples are decoded from a
density q(z) fitted afterwards to the codes of the training images.

The fit is EM with full covariances (Dempster, Laird and Rubin 1977; Bishop 2006, section 9.2.2), one sweep a training step over a ring
of the latest latents, so that a few hundred steps at the end of a budget do the work of a separate fit. Means start as
k-means++ does (Arthur and Vassilvitskii 2007).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from genbench import full_precision

RIDGE = 1e-4
"""Share of the latents' mean variance that is added to the diagonal of every covariance."""


class LatentGMM(nn.Module):
    """p(z) = sum_k pi_k N(z; mu_k, Sigma_k) over `z_dim` dimensions; N(0, I) until it is fitted. Computes in float32."""

    ring: Tensor
    pi: Tensor
    mu: Tensor
    Sigma: Tensor

    def __init__(self, z_dim: int, components: int, capacity: int = 10_000) -> None:
        super().__init__()
        self.register_buffer("ring", torch.zeros(capacity, z_dim))
        self.register_buffer("pi", torch.full((components,), 1 / components))
        self.register_buffer("mu", torch.zeros(components, z_dim))
        self.register_buffer("Sigma", torch.eye(z_dim).repeat(components, 1, 1))
        # Numbers of the host, kept as extra state: reading them never waits for the device.
        self.seen = self.started_from = 0

    def get_extra_state(self) -> dict[str, int]:
        """Latents seen so far, and how many of them EM last started from."""
        return {"seen": self.seen, "started_from": self.started_from}

    def set_extra_state(self, state: Any) -> None:
        """What `get_extra_state` gave."""
        self.seen, self.started_from = state["seen"], state["started_from"]

    @torch.no_grad()
    def fit(self, z: Tensor) -> Tensor:
        """(B, z_dim) new latents into the ring, one EM sweep over all of it -> mean log p(z) before the sweep, in nats.

        While the ring fills, EM starts anew each time that the latents have doubled: the first batch would be a poor start.
        """
        with full_precision():
            self.push(z.float())
            latents = self.ring[: self.seen]
            if self.started_from < len(latents) and len(latents) >= min(2 * self.started_from, len(self.ring)):
                self.start(latents)
                self.started_from = len(latents)
            return self.sweep(latents)

    def push(self, z: Tensor) -> None:
        """(B, z_dim) -> the ring, over the oldest."""
        z = z[-len(self.ring) :]
        places = torch.arange(self.seen, self.seen + len(z), device=z.device) % len(self.ring)
        self.ring.index_copy_(0, places, z)
        self.seen += len(z)

    def start(self, z: Tensor) -> None:
        """(N, z_dim) -> means by k-means++, one covariance for all: that of the latents around their nearest mean."""
        means = [z[torch.randint(len(z), (1,), device=z.device)]]
        distances = (z - means[0]).square().sum(1)
        while len(means) < len(self.mu):
            # The first of independent exponential clocks with rates d^2 rings with probability d^2 / sum of d^2.
            clocks = torch.empty_like(distances).exponential_() / distances.clamp(min=1e-12)
            means.append(z[clocks.argmin(keepdim=True)])
            distances = torch.minimum(distances, (z - means[-1]).square().sum(1))
        self.mu.copy_(torch.cat(means))
        around = z - self.mu[torch.cdist(z, self.mu).argmin(1)]
        self.Sigma.copy_(around.T @ around / len(z) + ridge(z))
        self.pi.fill_(1 / len(self.pi))

    def sweep(self, z: Tensor) -> Tensor:
        """(N, z_dim) -> mean log p(z) (); one step of EM. Bishop, eq. 9.23 to 9.27."""
        joint = self.log_joint(z)
        gamma = joint.softmax(0)  # (K, N) responsibilities
        N_k = gamma.sum(1).clamp(min=1e-6)
        self.mu.copy_(gamma @ z / N_k[:, None])
        around = (z - self.mu[:, None]) * (gamma / N_k[:, None]).sqrt()[:, :, None]  # (K, N, z_dim)
        self.Sigma.copy_(around.mT @ around + ridge(z))
        self.pi.copy_(N_k / N_k.sum())
        return joint.logsumexp(0).mean()

    def log_joint(self, z: Tensor) -> Tensor:
        """(N, z_dim) -> log pi_k + log N(z; mu_k, Sigma_k) (K, N)."""
        # cholesky_ex: unlike cholesky it does not wait for the device to tell of a failure, and the ridge leaves none.
        L = torch.linalg.cholesky_ex(self.Sigma).L
        white = torch.linalg.solve_triangular(L, (z - self.mu[:, None]).mT, upper=False)  # (K, z_dim, N)
        log_det = L.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = self.pi.log() - log_det - 0.5 * z.shape[1] * math.log(2 * math.pi)
        return constant[:, None] - 0.5 * white.square().sum(1)

    def log_prob(self, z: Tensor) -> Tensor:
        """(N, z_dim) -> log p(z) (N,) in nats."""
        with full_precision():
            return self.log_joint(z.float()).logsumexp(0)

    def sample(self, n: int) -> Tensor:
        """n -> (n, z_dim) z ~ p(z)."""
        with full_precision():
            k = torch.multinomial(self.pi, n, replacement=True)
            L = torch.linalg.cholesky_ex(self.Sigma).L
            noise = torch.randn(n, self.mu.shape[1], device=k.device)
            # Every component colours the noise and one is taken: fewer bytes than a factor L for each sample.
            coloured = noise @ L.mT  # (K, n, z_dim)
            return self.mu[k] + coloured[k, torch.arange(n, device=k.device)]


def ridge(z: Tensor) -> Tensor:
    """(N, z_dim) -> the multiple of I (z_dim, z_dim) that keeps covariances of few or flat latents invertible."""
    return (RIDGE * z.var(0, correction=0).mean()).clamp(min=1e-6) * torch.eye(z.shape[1], device=z.device)
