"""What a check looks at: a model on the bundled digits, built, trained and sampled as the harness does it, in a few cheap steps."""

from __future__ import annotations

import functools
import unittest
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genbench import sample
from genbench.budget import Budget, Meter
from genbench.datasets import ImageData, Split
from genbench.datasets.prepare import prepare
from genbench.datasets.resident import TrainingBatches
from genbench.model import Batch, ImageSpec, ModelSpec, Optimizers
from genbench.seeds import stream

PRESET = "digits-20s"
"""The preset that checks build a model with; small and quick, unlike a paper's defaults. Without it they take the defaults."""
SIZES = (8, 16, 32, 64)
CPU = torch.device("cpu")


class ConformanceError(AssertionError):
    """A check that a model failed: what was seen, and what its author can do about it."""


class NotApplicableError(unittest.SkipTest):
    """A check that says nothing about this model, and why; pytest counts it as skipped."""


@dataclass(frozen=True)
class Subject:
    """A model under test."""

    spec: ModelSpec

    @property
    def is_control(self) -> bool:
        """Controls may have no parameters, no losses and no randomness: the only models that checks make exceptions for."""
        return self.spec.family == "control"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Image sizes it must work at, ascending."""
        return tuple(sorted(self.spec.sizes)) if self.spec.sizes else SIZES

    @property
    def data(self) -> ImageData:
        """Digits at the smallest of its sizes."""
        return digits(self.sizes[0])

    @property
    def image(self) -> ImageSpec:
        """Of the digits."""
        data = self.data
        return ImageSpec(1, data.size, data.num_classes, len(data.train))

    @property
    def quick(self) -> dict[str, Any]:
        """Hparams that make it small and quick."""
        return dict(self.spec.presets.get(PRESET, {}))

    def build(self, image: ImageSpec | None = None) -> nn.Module:
        """A small model in the memory format it is trained in."""
        model: nn.Module = self.spec.cls(image or self.image, **self.quick).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def images(self, model: nn.Module, n: int, seed: int = 0) -> Tensor:
        """(n, C, H, W) samples in eval mode under a seed, as the model returns them; no more than there are."""
        n = min(n, int(getattr(model, "num_available", n)))
        with sample.sampling(model):
            torch.manual_seed(stream(seed, "sampling"))
            return self.ask(model, n)

    def ask(self, model: nn.Module, n: int) -> Tensor:
        """One call of `sample`, with labels where the model is conditional."""
        labels = self.labels(n)
        images: Tensor = model.sample(n) if labels is None else model.sample(n, sample.on_device(labels, model))  # type: ignore[operator]
        return images

    def labels(self, n: int) -> Any:
        """(n,) labels for a conditional model; None for any other."""
        if not self.spec.conditional:
            return None
        assert self.data.train.labels is not None
        return sample.marginal_labels(self.data.train.labels, n, 0)


class Batches(TrainingBatches):
    """Training batches that notice who looks at the holdout split, and may come without labels."""

    looked = False

    @property
    def holdout(self) -> Batch:
        """All images carved from train."""
        self.looked = True
        return super().holdout


class Trial:
    """A model in training, as `genbench.stages.train` sets it up, with a budget of `steps`."""

    def __init__(self, subject: Subject, steps: int = 12, *, seed: int = 0, bf16: bool = False) -> None:
        self.subject, self._bf16 = subject, bf16
        torch.manual_seed(stream(seed, "init"))
        self.model = subject.build()
        self.optimizers = Optimizers(self.model.configure_optimizers())  # type: ignore[operator]
        self.meter = Meter(Budget.parse(f"{steps}steps"))
        self.batches = Batches(subject.data, batch_size=batch_size(self.model), seed=seed, meter=self.meter, device=CPU)
        torch.manual_seed(stream(seed, "train"))

    @property
    def finished(self) -> bool:
        """True where the model says that it needs no more budget."""
        return bool(getattr(self.model, "finished", False))

    def step(self) -> dict[str, Tensor]:
        """One training step -> its scalars. Raises ConformanceError where it draws no batch or returns something else."""
        self.batches.progress = progress = self.meter.progress
        drawn = self.batches.drawn
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            scalars = self.model.training_step(self.batches, self.optimizers)  # type: ignore[operator]
        self.meter.steps += 1
        if self.batches.drawn == drawn:
            raise ConformanceError(
                f"step {self.meter.steps} drew no batch, so a budget of images would never end: call next(batches) in every training_step"
            )
        if self.batches.progress != progress:
            raise ConformanceError("training_step set batches.progress; it is the harness that says how much of the budget is spent")
        if not hasattr(scalars, "items"):
            raise ConformanceError(f"training_step returned {type(scalars).__name__}; return a dict of named scalar tensors")
        return dict(scalars)

    def run(self, steps: int) -> list[dict[str, Tensor]]:
        """Up to that many steps, fewer where the model is finished -> the scalars of each."""
        return [self.step() for _ in range(steps) if not self.finished]

    def walk(self) -> Iterator[dict[str, Tensor]]:
        """The steps of the whole budget, one by one, until the model is finished."""
        while not (self.meter.exhausted or self.finished):
            yield self.step()


def batch_size(model: nn.Module) -> int:
    """The model's, as the harness reads it."""
    return int(getattr(model, "batch_size", 64))


@functools.lru_cache(maxsize=4)
def digits(size: int) -> ImageData:
    """The bundled digits; above 8 pixels each pixel becomes a square, in a black frame where `size` is no multiple of 8."""
    data = prepare("digits", 8)
    if size == 8:
        return data
    if size < 8:
        raise NotApplicableError(f"the bundled digits have 8 x 8 pixels; this model supports {size} x {size} at least")

    def enlarged(split: Split) -> Split:
        big = np.kron(split.images, np.ones((1, 1, size // 8, size // 8), np.uint8))
        before = (size - big.shape[2]) // 2
        after = size - big.shape[2] - before
        return Split(np.pad(big, ((0, 0), (0, 0), (before, after), (before, after))), split.labels)

    return replace(data, size=size, train=enlarged(data.train), holdout=enlarged(data.holdout), test=enlarged(data.test))
