"""BigGAN. Brock, Donahue & Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019, arXiv:1809.11096.

Residual networks with spectral normalisation in both players, class-conditional BatchNorm fed from one shared embedding, z split over
the resolutions (skip-z), a projection discriminator, hinge loss, orthogonal initialisation, and an averaged G with its own standing
statistics (section 3, appendices B and C). The numbers are those of the authors' PyTorch release for CIFAR-10
(github.com/ajbrock/BigGAN-PyTorch, launch_cifar_ema.sh): 64 channels, 4 steps of D, batches of 50, both rates 2e-4, no attention,
the average from step 1000 on. That script also does without the shared embedding, skip-z and orthogonal initialisation:
``shared_dim=0 init=N02``. Orthogonal regularisation and truncation, which trade variety for fidelity, are left out, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.optim import Adam
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genbench import Batches, ImageSpec, Optimizers
from genbench_gans.biggan_networks import Attention, Discriminator, Generator, Initialisation


class BigGAN(nn.Module):
    """`ch` is the unit of width. `shared_dim` is the size of the class embedding that all of G's BatchNorms read beside their share of z.

    With ``shared_dim=0`` each BatchNorm has a table of its own instead and z enters at the bottom only. Maps of side `attention` attend
    to themselves in both networks (the paper: 64; 0: none).
    """

    def __init__(
        self,
        image: ImageSpec,
        z_dim: int = 128,
        ch: int = 64,
        shared_dim: int = 128,
        attention: int = 0,
        init: Initialisation = "orthogonal",
        n_dis: int = 4,
        batch_size: int = 50,
        lr_G: float = 2e-4,
        lr_D: float = 2e-4,
        ema: float = 0.9999,
        ema_start: int = 1000,
    ) -> None:
        super().__init__()
        self.num_classes, self.n_dis, self.batch_size, self.lr_G, self.lr_D = image.num_classes, n_dis, batch_size, lr_G, lr_D
        self.ema, self.ema_start = ema, ema_start
        self.G = Generator(image, z_dim, ch, shared_dim, attention, init)
        self.D = Discriminator(image, ch, attention, init)
        if attention and not any(isinstance(module, Attention) for module in self.modules()):
            raise ValueError(f"attention={attention}: images of {image.size} pixels have no maps of this side; 0 is none")
        self.G_ema = deepcopy(self.G).requires_grad_(False)
        self.steps = 0

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each player."""
        betas = (0.0, 0.999)
        return {"D": Adam(self.D.parameters(), self.lr_D, betas), "G": Adam(self.G.parameters(), self.lr_G, betas)}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """`n_dis` steps of D, a step of G, a step of G's average."""
        for _ in range(self.n_dis):
            batch = next(batches)
            real, y = batch.images, batch.labels
            y_fake = self.classes(len(real))
            with torch.no_grad():
                fake = self.G(self.latent(len(real)), y_fake)
            on_real, on_fake = self.D(torch.cat([real, fake]), torch.cat([y, y_fake])).chunk(2)
            loss_D = hinge_loss(on_real, on_fake)
            optimizers["D"].minimize(loss_D)
        y_fake = self.classes(self.batch_size)
        loss_G = -self.D(self.G(self.latent(self.batch_size), y_fake), y_fake).mean()
        optimizers["G"].minimize(loss_G)
        average = get_ema_multi_avg_fn(self.ema if self.steps >= self.ema_start else 0.0)
        average(list(self.G_ema.parameters()), list(self.G.parameters()), None)
        with torch.no_grad():
            self.G_ema(self.latent(self.batch_size), y_fake)  # its own BatchNorm statistics and singular vectors (standing statistics)
        self.steps += 1
        return {"loss_D": loss_D.detach(), "loss_G": loss_G.detach()}

    def sample(self, n: int, labels: Tensor) -> Tensor:
        """n, (n,) labels -> (n, C, H, W) in [-1, 1], by the averaged G."""
        images: Tensor = self.G_ema(self.latent(n), labels)
        return images

    def latent(self, n: int) -> Tensor:
        """n -> (n, z_dim) z ~ N(0, I)."""
        return torch.randn(n, self.G.z_dim, device=next(self.parameters()).device)

    def classes(self, n: int) -> Tensor:
        """n -> (n,) classes, uniform."""
        return torch.randint(self.num_classes, (n,), device=next(self.parameters()).device)

    def get_extra_state(self) -> Any:
        """The number of steps taken: the average starts late."""
        return self.steps

    def set_extra_state(self, state: Any) -> None:
        """Go on from there."""
        self.steps = state


def hinge_loss(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Logits (B,), (B,) -> E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), what D descends."""
    return relu(1 - on_real).mean() + relu(1 + on_fake).mean()
