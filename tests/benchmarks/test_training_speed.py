"""Training throughput: the harness's loop against a bare one and against the usual DataLoader loop, on the same model and data.

Run by hand: ``pytest tests/benchmarks/test_training_speed.py --benchmark-only``. The three are timed in turns inside one
benchmark, so that a noisy machine spoils all alike; the ratios of medians are in ``extra_info`` and printed.
"""

import statistics
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

from genbench.budget import Budget, Meter
from genbench.datasets import DatasetSpec, ImageData, Split
from genbench.datasets.resident import TrainingBatches
from genbench.model import ImageSpec, Optimizers
from genbench.train import train

STEPS, ROUNDS, BATCH = 150, 7, 64
CPU = torch.device("cpu")
IMAGE = ImageSpec(1, 28)


class PerceptronVAE(nn.Module):
    """400 hidden units, 20 latent: small enough for overhead to show."""

    def __init__(self):
        super().__init__()
        self.batch_size = BATCH
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

    def configure_optimizers(self):
        return {"all": torch.optim.Adam(self.parameters(), 1e-3)}

    def loss(self, x):
        mu, logvar = self.encoder(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        bce = binary_cross_entropy_with_logits(self.decoder(z), (x.flatten(1) + 1) / 2, reduction="sum")
        return (bce - 0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()) / len(x)

    def training_step(self, batches, optimizers):
        loss = self.loss(next(batches).images)
        optimizers["all"].minimize(loss)
        return {"loss": loss}


class ConvolutionalAutoencoder(PerceptronVAE):
    """Two strided convolutions and back: compute-bound."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3136, 40)
        )
        self.decoder = nn.Sequential(
            nn.Linear(20, 3136), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Flatten(),
        )  # fmt: skip


def data():
    images = np.random.default_rng(0).integers(0, 256, (20_000, 1, 28, 28), dtype=np.uint8)
    split = Split(images, np.zeros(len(images), np.int64))
    return ImageData("toy", DatasetSpec("toy", lambda root: {}, 1, 28), 28, split, split, split, "", "")


def harness(model, images):
    model = model.to(memory_format=torch.channels_last)
    optimizers = Optimizers(model.configure_optimizers())

    def run():
        meter = Meter(Budget.parse(f"{STEPS}steps"))
        batches = TrainingBatches(images, batch_size=BATCH, seed=0, meter=meter, device=CPU)
        train(model, optimizers, batches, meter, device=CPU)

    return run


def bare(model, images):
    """The tightest loop one would write by hand: the same fused optimizer and layout, no contract."""
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    rows = torch.from_numpy(images.train.images)
    order = torch.randperm(len(rows))

    def run():
        for step in range(STEPS):
            start = step * BATCH
            loss = model.loss(rows.index_select(0, order[start : start + BATCH]).float().mul_(2 / 255).sub_(1))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def usual(model, images):
    """DataLoader over a float TensorDataset, default Adam, a loss read every step."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    floats = torch.from_numpy(images.train.images).float().mul_(2 / 255).sub_(1)
    loader = DataLoader(TensorDataset(floats), batch_size=BATCH, shuffle=True)

    def run():
        for step, (x,) in enumerate(loader):
            if step == STEPS:
                break
            loss = model.loss(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return run


@pytest.mark.benchmark(group="training")
@pytest.mark.parametrize("cls", [PerceptronVAE, ConvolutionalAutoencoder])
def test_training_loop(benchmark, cls):
    torch.manual_seed(0)
    images = data()
    runs = {make.__name__: make(cls(), images) for make in (harness, bare, usual)}
    for run in runs.values():
        run()
    times = {name: [] for name in runs}

    def one_round():
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begun)

    benchmark.pedantic(one_round, rounds=ROUNDS)
    medians = {name: statistics.median(values) for name, values in times.items()}
    benchmark.extra_info |= {f"{name} images/s": round(STEPS * BATCH / median) for name, median in medians.items()}
    benchmark.extra_info |= {f"{name}/harness": round(median / medians["harness"], 3) for name, median in medians.items()}
