"""VAE/GAN.

Anders Boesen Lindbo Larsen, Søren Kaae Sønderby, Hugo Larochelle and Ole Winther, "Autoencoding beyond pixels using a learned
similarity metric", ICML 2016, arXiv:1512.09300. Algorithm 1: a VAE whose decoder is also the generator of a GAN, and whose
reconstruction error is measured not on pixels but on the features of the discriminator's l-th layer:

    L_prior = KL(q(z|x) || N(0, I))                                      eq. 5
    L_llike = -E_q log N(D_l(x); D_l(G(z)), I)                           eq. 7 and 8
    L_GAN   = log D(x) + log(1 - D(G(z))) + log(1 - D(G(z_p)))           eq. 11, z ~ q(z|x), z_p ~ N(0, I)

    E descends L_prior + L_llike,  G descends gamma L_llike + L_GAN,  D ascends L_GAN

The networks are those of table 1 for 64 x 64 images (three halvings to 8 x 8; as many down to 4 x 4 at smaller sizes), RMSprop at 3e-4
and minibatches of 64 as in section 4. From the authors' release (github.com/andersbll/autoencoding_beyond_pixels): gamma = 1e-5, l is
the last convolution before its normalisation, RMSprop's decay of 0.9, and D sees x, G(z) and G(z_p) as one batch, so that its
normalisation treats all alike and cannot hide how they differ; a player too far ahead of the other pauses (`turns`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import ceil, log2

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import RMSprop

from genbench import Batches, ImageSpec, Optimizers
from genbench_vaes.observation import kl_divergence, reparameterise


class VAEGAN(nn.Module):
    """`width` channels after the encoder's first convolution (64 in table 1, all others in proportion); `gamma` weighs L_llike in G."""

    def __init__(
        self, image: ImageSpec, z_dim: int = 128, width: int = 64, gamma: float = 1e-5, lr: float = 3e-4, batch_size: int = 64
    ) -> None:
        super().__init__()
        self.z_dim, self.gamma, self.lr, self.batch_size = z_dim, gamma, lr, batch_size
        self.prior = "N(0, I)"
        self.E = Encoder(image, width, z_dim)
        self.G = Decoder(image, width, z_dim)
        self.D = Discriminator(image, width)

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """One RMSprop for each network."""
        return {name: RMSprop(net.parameters(), self.lr, alpha=0.9) for name, net in (("E", self.E), ("G", self.G), ("D", self.D))}

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [-1, 1] -> mu, log sigma^2 of q(z|x), each (B, z_dim)."""
        mu, logvar = self.E(images).float().chunk(2, dim=1)
        return mu, logvar

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """Algorithm 1: three losses from one graph; all gradients are taken before any network steps."""
        x = next(batches).images
        mu, logvar = self.posterior(x)
        z = reparameterise(mu, logvar)
        z_p = torch.randn_like(z)
        fake = self.G(torch.cat([z, z_p]))  # G(z), G(z_p)
        logits, features = self.D(torch.cat([x, fake]))
        L_prior = kl_divergence(mu, logvar).mean()
        L_llike = feature_error(*features.chunk(3)[:2])
        L_GAN = gan_value(*logits.chunk(3))
        G_turn, D_turn = turns(*logits.detach().split([len(x), 2 * len(x)]))
        optimizers.minimize({"E": L_prior + L_llike, "G": G_turn * (self.gamma * L_llike + L_GAN), "D": -D_turn * L_GAN})
        return {"L_prior": L_prior.detach(), "L_llike": L_llike.detach(), "L_GAN": L_GAN.detach()}

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) in [-1, 1], decoded from z ~ N(0, I)."""
        return self.decode(torch.randn(n, self.z_dim, device=next(self.parameters()).device))

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> mean of q(z|x) (B, z_dim)."""
        return self.posterior(images)[0]

    def decode(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, C, H, W) in [-1, 1]."""
        images: Tensor = self.G(z)
        return images

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the posterior's mean."""
        return self.decode(self.encode(images))


def feature_error(real: Tensor, reconstructed: Tensor) -> Tensor:
    """D_l(x), D_l(G(z)), (B, C, H, W) each -> -log N(D_l(x); D_l(G(z)), I) up to a constant, mean of the batch. Eq. 7 and 8."""
    return 0.5 * (real.float() - reconstructed.float()).square().flatten(1).sum(1).mean()


def gan_value(real: Tensor, reconstructed: Tensor, sampled: Tensor) -> Tensor:
    """Logits of x, G(z), G(z_p), (B,) each -> log D(x) + log(1 - D(G(z))) + log(1 - D(G(z_p))), means of the batch. Eq. 11."""
    # log sigmoid(a) = -softplus(-a), log(1 - sigmoid(a)) = -softplus(a): finite where D is certain
    return -softplus(-real).mean() - softplus(reconstructed).mean() - softplus(sampled).mean()


def turns(real: Tensor, fake: Tensor, equilibrium: float = 0.68, margin: float = 0.35) -> tuple[Tensor, Tensor]:
    """Logits of real (B,) and fake (2B,) images -> whether G and whether D steps, 1.0 or 0.0: a loss of weight 0 moves nothing.

    D pauses where either of its costs, -log D(x) and -log(1 - D(G(z))), is below the equilibrium by the margin, G where one is above it by
    as much; nobody pauses where both would. The authors' release; the running averages of RMSprop move on here.
    """
    costs = torch.stack([softplus(-real).mean(), softplus(fake).mean()])
    D_ahead, G_ahead = (costs < equilibrium - margin).any(), (costs > equilibrium + margin).any()
    both = D_ahead & G_ahead
    return (~G_ahead | both).float(), (~D_ahead | both).float()


class Encoder(nn.Sequential):
    """(B, C, H, W) images -> (B, 2 z_dim) mu and log sigma^2. Table 1, Enc."""

    def __init__(self, image: ImageSpec, width: int, z_dim: int) -> None:
        levels, side = depth(image.size)
        maps = [image.channels, width, 2 * width, 4 * width][: levels + 1]
        layers: list[nn.Module] = []
        for i, o in pairwise(maps):
            layers += [nn.Conv2d(i, o, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(maps[-1] * side**2, 32 * width, bias=False), nn.BatchNorm1d(32 * width), nn.ReLU()]
        super().__init__(*layers, nn.Linear(32 * width, 2 * z_dim))


class Decoder(nn.Module):
    """(B, z_dim) z -> (B, C, H, W) images in [-1, 1]. Table 1, Dec. Sizes that do not halve evenly are cropped from the next one."""

    def __init__(self, image: ImageSpec, width: int, z_dim: int) -> None:
        super().__init__()
        self.size = image.size
        levels, side = depth(image.size)
        maps = [4 * width, 4 * width, 2 * width, width // 2]
        maps = [maps[0], *maps[-levels:]]
        self.net = nn.Sequential(nn.Linear(z_dim, maps[0] * side**2, bias=False), nn.BatchNorm1d(maps[0] * side**2), nn.ReLU())
        self.net.append(nn.Unflatten(1, (maps[0], side, side)))
        for i, o in pairwise(maps):
            self.net.extend([nn.ConvTranspose2d(i, o, 5, stride=2, padding=2, output_padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()])
        self.net.extend([nn.Conv2d(maps[-1], image.channels, 5, padding=2), nn.Tanh()])

    def forward(self, z: Tensor) -> Tensor:
        """z -> images."""
        images: Tensor = self.net(z)
        return images[:, :, : self.size, : self.size]


class Discriminator(nn.Module):
    """(B, C, H, W) images -> (B,) float32 logits and the features D_l of the last convolution. Table 1, Dis."""

    def __init__(self, image: ImageSpec, width: int) -> None:
        super().__init__()
        levels, side = depth(image.size)
        maps = [width // 2, 2 * width, 4 * width, 4 * width][: levels + 1]
        self.features = nn.Sequential(nn.Conv2d(image.channels, maps[0], 5, padding=2), nn.ReLU())
        for i, o in pairwise(maps):
            self.features.extend([nn.Conv2d(i, o, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(o), nn.ReLU()])
        self.features, normalise = self.features[:-2], self.features[-2:]
        self.head = nn.Sequential(
            *normalise, nn.Flatten(), nn.Linear(maps[-1] * side**2, 8 * width, bias=False), nn.BatchNorm1d(8 * width), nn.ReLU(),
            nn.Linear(8 * width, 1), nn.Flatten(0),
        )  # fmt: skip

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> logits, D_l."""
        features = self.features(images)
        return self.head(features).float(), features


def depth(size: int) -> tuple[int, int]:
    """Image size -> halvings (three, or as many as lead to 4 pixels), side of the smallest maps."""
    levels = max(1, min(3, ceil(log2(size)) - 2))
    return levels, ceil(size / 2**levels)
