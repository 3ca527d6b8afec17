"""Small data and models that tests share."""

import numpy as np
import torch
from torch import nn

from genbench.datasets import DatasetSpec, ImageData, Split


def make_data(n=103, channels=3, size=8, seed=0):
    """Random images in three splits; the label of an image is its index."""
    rng = np.random.default_rng(seed)
    split = Split(rng.integers(0, 256, (n, channels, size, size), dtype=np.uint8), np.arange(n, dtype=np.int64))
    small = Split(split.images[:10], split.labels[:10])
    spec = DatasetSpec("toy", lambda root: {}, channels, size)
    return ImageData("toy", spec, size, split, small, small, f"digest-{n}-{channels}-{size}-{seed}", "")


class Autoencoder(nn.Module):
    """Enough of a model to be trained: a convolution, batch norm and a linear layer."""

    def __init__(self, image, width: int = 4, lr: float = 1e-2):
        super().__init__()
        self.image, self.lr, self.batch_size = image, lr, 10
        self.net = nn.Sequential(
            nn.Conv2d(image.channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.Tanh(), nn.Conv2d(width, image.channels, 1)
        )

    def configure_optimizers(self):
        return {"all": torch.optim.Adam(self.parameters(), self.lr)}

    def training_step(self, batches, optimizers):
        real = next(batches).images
        loss = (self.net(real + 0.1 * torch.randn_like(real)) - real).square().mean()
        optimizers["all"].minimize(loss)
        return {"loss": loss}

    def sample(self, n):
        return self.net(torch.rand(n, *self.image.shape) * 2 - 1).tanh()


class LinearGaussian(nn.Module):
    """x = W z + b + sigma e, z ~ N(0, I_2): log p(x) is known (probabilistic PCA). `off` shifts and widens q away from the posterior."""

    density, prior = "continuous", "N(0, I)"

    def __init__(self, image, sigma: float = 0.3, off: float = 0.0):
        super().__init__()
        self.shape, self.sigma, self.off, self.seen = image.shape, sigma, off, []
        generator = torch.Generator().manual_seed(4)
        pixels = image.channels * image.size**2
        self.register_buffer("W", 0.4 * torch.randn(pixels, 2, generator=generator))
        self.register_buffer("b", 0.2 * torch.randn(pixels, generator=generator))

    def posterior(self, x):
        """(B, D) -> mean (B, 2) and covariance factor (2, 2) of q(z|x); the exact ones where `off` is 0."""
        precision = torch.eye(2) + self.W.T @ self.W / self.sigma**2
        mean = torch.linalg.solve(precision, (x - self.b) @ self.W / self.sigma**2, left=False)
        return mean + self.off, (1 + self.off) * torch.linalg.cholesky(torch.linalg.inv(precision))

    def log_p(self, images):
        """(B, C, H, W) -> exact log p(x) (B,) in nats."""
        x = images.flatten(1).double()
        W, pixels = self.W.double(), len(self.b)
        S = W @ W.T + self.sigma**2 * torch.eye(pixels, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(self.b.double(), S).log_prob(x)

    def log_weights(self, images, k):
        self.seen.append(images)
        x = images.flatten(1)
        mean, L = self.posterior(x)
        q = torch.distributions.MultivariateNormal(mean, scale_tril=L)
        z = q.sample((k,))
        likelihood = torch.distributions.Normal(z @ self.W.T + self.b, self.sigma).log_prob(x).sum(-1)
        return likelihood + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) - q.log_prob(z)

    def encode(self, images):
        return self.posterior(images.flatten(1))[0]

    def reconstruct(self, images):
        return (self.posterior(images.flatten(1))[0] @ self.W.T + self.b).clamp(-1, 1).view(-1, *self.shape)


class Dealer(nn.Module):
    """Conditional: keeps training images by class and deals those of the class asked for; of any class where it does not `listen`."""

    family = "control"

    def __init__(self, image, listens: bool = True):
        super().__init__()
        self.listens, self.batch_size, self.finished = listens, 5000, False
        self.register_buffer("images", torch.zeros(image.num_train, *image.shape))
        self.register_buffer("labels", torch.zeros(image.num_train, dtype=torch.int64))

    def configure_optimizers(self):
        return {}

    def training_step(self, batches, optimizers):
        batch = next(batches)
        self.images.copy_(batch.images)
        self.labels.copy_(batch.labels)
        self.finished = True
        return {}

    def sample(self, n, labels):
        assert labels.shape == (n,)
        assert labels.dtype == torch.int64
        if not self.listens:
            return self.images[torch.randint(len(self.images), (n,))]
        scores = torch.rand(n, len(self.images)) * (labels[:, None] == self.labels)
        return self.images[scores.argmax(1)]
