"""WGAN. Arjovsky, Chintala & Bottou, "Wasserstein GAN", ICML 2017, arXiv:1701.07875.

Algorithm 1 with its default values: the critic's weights are clipped to a box after every step, so that it stays K-Lipschitz for some K and
its best score difference estimates K times the Wasserstein-1 distance (equations 2 and 3).

The networks are DCGAN's, as in section 4: the critic is the discriminator without its sigmoid. As in the authors' release
(github.com/martinarjovsky/WassersteinGAN) BatchNorm's scales are clipped with the other weights, and z is a standard normal of 100
dimensions. The release also gives the critic 100 steps at the start and at every 500th turn; Algorithm 1 does not, nor does this file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import RMSprop

from genbench import Batches, ImageSpec, Optimizers
from genbench_gans.dcgan import Discriminator, Generator, initialise


class WGAN(nn.Module):
    """Generator G and critic D, DCGAN's; `clip` is c, the half-width of the box that holds every weight of the critic."""

    def __init__(
        self, image: ImageSpec, z_dim: int = 100, width: int = 64, batch_size: int = 64, n_critic: int = 5, clip: float = 0.01,
        lr: float = 5e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.z_dim, self.batch_size, self.n_critic, self.clip, self.lr = z_dim, batch_size, n_critic, clip, lr
        self.G = Generator(image, z_dim, width)
        self.D = Discriminator(image, width)
        self.apply(initialise)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """RMSProp for each player: momentum made the training unstable (section 4.3)."""
        return {"D": RMSprop(self.D.parameters(), self.lr), "G": RMSprop(self.G.parameters(), self.lr)}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Algorithm 1, one turn of the outer loop."""
        # lines 2-8: n_critic ascents of E f(x) - E f(g(z)), each followed by w <- clip(w, -c, c)
        for _ in range(self.n_critic):
            real = next(batches).images  # (B, C, H, W) in [-1, 1]
            with torch.no_grad():
                fake = self.G(self.latent(len(real)))
            wasserstein = score_difference(self.D(real), self.D(fake))
            optimizers["D"].minimize(-wasserstein)
            self.clip_weights()
        # lines 9-11: one descent of -E f(g(z))
        loss_G = -self.D(self.G(self.latent(self.batch_size))).mean()
        optimizers["G"].minimize(loss_G)
        return {"wasserstein": wasserstein.detach(), "loss_G": loss_G.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1]."""
        images: Tensor = self.G(self.latent(n))
        return images

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z ~ N(0, I)."""
        return torch.randn(n, self.z_dim, device=next(self.parameters()).device)

    @torch.no_grad()
    def clip_weights(self) -> None:
        """Line 7: put every parameter of the critic back into [-c, c]."""
        for w in self.D.parameters():
            w.clamp_(-self.clip, self.clip)


def score_difference(real: Tensor, fake: Tensor) -> Tensor:
    """f(x), f(g(z)), (B,) each -> E f(x) - E f(g(z)), what the critic ascends. Equation 3."""
    return real.mean() - fake.mean()
