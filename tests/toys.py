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
