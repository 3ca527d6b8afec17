"""cGAN-PD. Miyato & Koyama, "cGANs with Projection Discriminator", ICLR 2018, arXiv:1802.05637.

D takes the inner product of the class's embedding with its features of the image (equation 3, figure 1d); G's BatchNorms have a scale and
a shift for each class (Dumoulin et al. 2017, arXiv:1610.07629). Everything else is SNGAN's: spectral normalisation, of the embedding
too, hinge loss, the ResNets, Adam, five steps of D for one of G, and the linear decay of the authors' CIFAR-10 configuration
(github.com/pfnet-research/sngan_projection). As there, fake images are drawn for labels uniform over the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Adam

from genbench import Batches, ImageSpec, Optimizers
from genbench_gans.resnet import Blocks, Features, Generator, linear
from genbench_gans.sngan import hinge_loss, spectral_norm


class CGANPD(nn.Module):
    """Conditional G with `width_G` maps against a projection D with `width_D`; `blocks` is described in `genbench_gans.resnet`."""

    def __init__(
        self,
        image: ImageSpec,
        z_dim: int = 128,
        width_G: int = 256,
        width_D: int = 128,
        blocks: Blocks = "authors",
        batch_size: int = 64,
        n_dis: int = 5,
        lr: float = 2e-4,
        beta1: float = 0.0,
        beta2: float = 0.9,
        linear_decay: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes, self.z_dim, self.batch_size, self.n_dis = image.num_classes, z_dim, batch_size, n_dis
        self.lr, self.betas, self.linear_decay = lr, (beta1, beta2), linear_decay
        self.G = Generator(image, z_dim, width_G, blocks, norm=partial(ConditionalBatchNorm, image.num_classes))
        self.D = ProjectionDiscriminator(image, width_D, blocks)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One Adam for each player."""
        return {"D": Adam(self.D.parameters(), self.lr, self.betas), "G": Adam(self.G.parameters(), self.lr, self.betas)}

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """n_dis steps of D, then one of G."""
        if self.linear_decay:
            for optimizer in optimizers.values():
                optimizer.lr = self.lr * (1 - batches.progress)
        for _ in range(self.n_dis):
            batch = next(batches)
            x, y = batch.images, batch.labels  # (B, C, H, W) in [-1, 1], (B,)
            z, fake_y = self.latent(len(x))
            with torch.no_grad():
                fake_x = self.G(z, fake_y)
            loss_D = hinge_loss(*self.D(torch.cat([x, fake_x]), torch.cat([y, fake_y])).chunk(2))
            optimizers["D"].minimize(loss_D)
        z, fake_y = self.latent(self.batch_size)
        loss_G = -self.D(self.G(z, fake_y), fake_y).mean()
        optimizers["G"].minimize(loss_G)
        return {"loss_D": loss_D.detach(), "loss_G": loss_G.detach()}

    def sample(self, n: int, labels: Tensor) -> Tensor:
        """n, labels (n,) -> (n, C, H, W) in [-1, 1] of those classes."""
        images: Tensor = self.G(self.latent(n)[0], labels)
        return images

    def latent(self, n: int) -> tuple[Tensor, Tensor]:
        """n -> (n, z_dim) z ~ N(0, I) and (n,) labels, uniform over the classes."""
        device = next(self.parameters()).device
        return torch.randn(n, self.z_dim, device=device), torch.randint(self.num_classes, (n,), device=device)


class ProjectionDiscriminator(nn.Module):
    """(B, C, H, W) images x, (B,) labels y -> (B,) float32 logits f(x, y) = y^T V phi(x) + psi(phi(x)). Equation 3."""

    def __init__(self, image: ImageSpec, width: int, blocks: Blocks = "authors") -> None:
        super().__init__()
        self.phi = Features(image, width, blocks, wrap=spectral_norm)
        self.psi = spectral_norm(linear(self.phi.maps, 1))
        embedding = nn.Embedding(image.num_classes, self.phi.maps)
        nn.init.xavier_uniform_(embedding.weight)
        self.V = spectral_norm(embedding)  # (classes, maps)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images, labels -> logits."""
        phi = self.phi(x)
        return (self.V(y) * phi).float().sum(1) + self.psi(phi).float().flatten()


class ConditionalBatchNorm(nn.Module):
    """(B, maps, H, W) maps, (B,) labels -> maps normalised over the batch, then scaled and shifted by their class."""

    def __init__(self, num_classes: int, maps: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(maps, affine=False)
        self.gamma, self.beta = nn.Embedding(num_classes, maps), nn.Embedding(num_classes, maps)
        nn.init.ones_(self.gamma.weight)
        nn.init.zeros_(self.beta.weight)

    def forward(self, h: Tensor, labels: Tensor) -> Tensor:
        """Maps, labels -> maps."""
        h = self.norm(h)
        gamma, beta = self.gamma(labels).to(h.dtype), self.beta(labels).to(h.dtype)
        return torch.addcmul(beta[:, :, None, None], gamma[:, :, None, None], h)
