"""Checks of samples: what they are, what they depend on, and what else a model can be asked."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from genbench.datasets import Split
from genbench.errors import GenbenchError
from genbench.held_out import METHODS, consult, density
from genbench.sample import draw, sampling
from genbench.seeds import stream
from genbench.testing.replay import Recorded, Replayed
from genbench.testing.subject import CPU, ConformanceError, NotApplicableError, Subject, Trial

_ROUNDING = 1e-3
"""Largest difference between samples drawn in batches of different sizes: kernels round differently; a level is 8e-3."""


def check_samples(subject: Subject) -> None:
    """Untrained and trained, any number of samples are finite images of the right shape in [-1, 1], not all the same."""
    trial = Trial(subject)
    for steps in (0, 3):
        trial.run(steps)
        if subject.is_control and not steps:
            continue  # some copy images, and have none yet
        for n in (1, 2, 9):
            n = min(n, int(getattr(trial.model, "num_available", n)))
            try:
                drawn = draw(trial.model, n, 0, subject.image, labels=subject.labels(n))
            except GenbenchError as error:
                raise ConformanceError(str(error)) from None
            if drawn.clipped > 0.01:
                raise ConformanceError(
                    f"{drawn.clipped:.0%} of the values of sample({n}) lie outside [-1, 1]: map them by tanh, 2 * sigmoid - 1 or clamp"
                )
    if not subject.is_control and bool((subject.images(trial.model, 9).diff(dim=0) == 0).all()):
        raise ConformanceError("all samples of one call are the same image: draw one latent for each")


def check_sampling_seed(subject: Subject) -> None:
    """The same seed gives the same samples, another seed others."""
    trial = Trial(subject)
    trial.run(3)
    one, again, other = (subject.images(trial.model, 8, seed) for seed in (1, 1, 2))
    if not torch.equal(one, again):
        raise ConformanceError("sample gives other images under the same seed: draw from torch's global generator, and keep no count")
    if not subject.is_control and torch.equal(one, other):
        raise ConformanceError("sample gives the same images under every seed: draw latents from torch's global generator, unseeded")


def check_independence_of_batch_size(subject: Subject) -> None:
    """An image does not depend on how many others are drawn with it: in eval mode, the same random draws give the same image."""
    trial = Trial(subject)
    trial.run(3)
    n, k = 13, 5  # numbers that are no layer's width
    if int(getattr(trial.model, "num_available", n)) < n:
        raise NotApplicableError(f"it has fewer than {n} images")
    with sampling(trial.model), Recorded() as recorded:
        torch.manual_seed(stream(0, "company"))
        many = subject.ask(trial.model, n)
    with sampling(trial.model), Replayed(recorded.draws, n, k) as replayed:
        few = subject.ask(trial.model, k)
    if many.shape[0] != n or few.shape[0] != k:
        raise ConformanceError(f"sample({n}) returned {many.shape[0]} images and sample({k}) {few.shape[0]}")
    difference = max(float((many[:k] - few).abs().max()), replayed.differs)
    if not difference <= _ROUNDING:
        raise ConformanceError(
            f"the same latents give other images (by up to {difference:.2g}) in a batch of {k} than in one of {n}: in eval mode an image"
            " must not depend on its company (is a BatchNorm without running statistics, or a mean over the batch, in sample?)"
        )


def check_labels(subject: Subject) -> None:
    """A conditional model looks at the labels it is given."""
    trial = Trial(subject)
    trial.run(6)
    drawn = []
    with sampling(trial.model):
        for label in (0, 1):
            torch.manual_seed(0)
            drawn.append(trial.model.sample(8, torch.full((8,), label)))  # type: ignore[operator]
    if torch.equal(*drawn):
        raise ConformanceError("samples of class 0 and of class 1 are the same images: sample(n, labels) must use its labels")


def check_abilities(subject: Subject) -> None:
    """What a model offers beside samples (log_weights, reconstruct, encode, decode) answers in the form that metrics expect."""
    trial = Trial(subject)
    trial.run(3)
    model: Any = trial.model
    test = subject.data.test
    offered = [name for name in METHODS if callable(getattr(model, name, None))]
    try:
        kind = density(model)
        some = Split(test.images[:20], None if test.labels is None else test.labels[:20])
        said = consult(model, some, 0, CPU)
    except GenbenchError as error:
        raise ConformanceError(str(error)) from None
    for name in offered:
        if f"problem {name}" in said:
            raise ConformanceError(str(said[f"problem {name}"]))
    if "log_weights" in offered:
        if kind is None:
            raise ConformanceError('log_weights of what? Set density = "continuous", "discrete" or "bernoulli" on the model')
        if not str(said["prior"]):
            raise ConformanceError('a model with log_weights says where its latents come from: set prior = "N(0, I)" or the like')
    if "encode" in offered and callable(getattr(model, "decode", None)):
        with sampling(model):
            told = {"labels": torch.arange(5)} if "labels" in inspect.signature(model.decode).parameters else {}
            decoded = model.decode(torch.from_numpy(said["encode"][:5]), **told)
        if tuple(decoded.shape) != (5, *subject.image.shape):
            raise ConformanceError(f"decode(z) returned shape {tuple(decoded.shape)} for 5 latents; it must be {(5, *subject.image.shape)}")
