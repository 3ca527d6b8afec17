"""The check that a model learns: on digits it must soon beat its own initialisation and noise."""

from __future__ import annotations

import functools
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from genbench.extractors import Extractor
from genbench.extractors.builtin import builtin_extractors
from genbench.metrics.fid import Gaussian, moments
from genbench.sample import quantise
from genbench.testing.subject import CPU, PRESET, ConformanceError, Subject, Trial, digits
from genbench.train import train

BUDGETS = (60, 240, 960, 3840)
"""Steps of one training after another: the first that has learnt ends the check."""
_PATIENCE = 120.0
"""Seconds within which a longer training must be expected to end, or it is not tried."""
_SAMPLES = 300
_MARGIN = 0.75
"""Learnt: an FID below this share of that before training and of noise."""


def check_learns(subject: Subject) -> None:
    """After few steps on digits its samples are nearer to real ones than before training, and nearer than noise."""
    start = _fid(subject, Trial(subject).model)
    goal = _MARGIN * min(start, _noise())
    seen, started = [], time.perf_counter()
    for steps in BUDGETS:
        trial, began = Trial(subject, steps), time.perf_counter()
        training = train(trial.model, trial.optimizers, trial.batches, trial.meter, device=CPU)
        if training.diverged:
            raise ConformanceError(f"training on digits diverged: {training.diverged}")
        fid = _fid(subject, trial.model)
        if fid <= goal:
            return
        seen.append(f"{fid:.0f} after {steps} steps")
        now = time.perf_counter()
        if now - started + 4 * (now - began) > _PATIENCE:
            break
    raise ConformanceError(
        f"it does not learn digits: FID {', '.join(seen)}; untrained {start:.0f}, noise {_noise():.0f}, asked: {goal:.0f}. Look at its"
        " samples (genbench run … --track digits-20s); where the paper's hparams are too slow for 8 x 8 digits, give"
        f" ModelSpec(presets={{{PRESET!r}: …}}) a small network and a larger learning rate"
    )


def _fid(subject: Subject, model: nn.Module) -> float:
    """FID of samples against the training digits in the features of the bundled classifier."""
    images = quantise(subject.images(model, _SAMPLES)).numpy()
    return _features_of(images).distance(_real())


def _features_of(images: NDArray[np.uint8]) -> Gaussian:
    """(N, 1, S, S) uint8 images, S at least 8 -> Gaussian of their features at 8 x 8 pixels (undoing what `digits` does)."""
    factor = images.shape[2] // 8
    before = (images.shape[2] - 8 * factor) // 2
    cut = images[:, :, before : before + 8 * factor, before : before + 8 * factor]
    small = cut.reshape(len(images), 1, 8, factor, 8, factor).mean((3, 5)).round().astype(np.uint8)
    with torch.inference_mode():
        features, _ = _extractor()(torch.from_numpy(small))
    return Gaussian.of(*moments([features.numpy()])[:2])


@functools.lru_cache(maxsize=1)
def _extractor() -> Extractor:
    return next(spec for spec in builtin_extractors() if spec.name == "digits-cnn").load(CPU, None)


@functools.lru_cache(maxsize=1)
def _real() -> Gaussian:
    return _features_of(digits(8).train.images)


@functools.lru_cache(maxsize=1)
def _noise() -> float:
    noise = np.random.RandomState(0).randint(0, 256, (_SAMPLES, 1, 8, 8)).astype(np.uint8)
    return _features_of(noise).distance(_real())
