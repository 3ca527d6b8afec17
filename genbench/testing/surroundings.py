"""The process around a model: its global settings and random number generators, watched, and put back after foreign code."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch.set_default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.set_default_device": (torch.get_default_device, torch.set_default_device),
    "torch.set_num_threads": (torch.get_num_threads, torch.set_num_threads),
    "torch.set_grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.autograd.set_detect_anomaly": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "torch.set_float32_matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "torch.use_deterministic_algorithms": (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda was: torch.use_deterministic_algorithms(was[0], warn_only=was[1]),
    ),
    "torch.backends.cudnn.benchmark": (
        lambda: torch.backends.cudnn.benchmark,
        lambda was: setattr(torch.backends.cudnn, "benchmark", was),
    ),
    "torch.backends.cudnn.deterministic": (
        lambda: torch.backends.cudnn.deterministic,
        lambda was: setattr(torch.backends.cudnn, "deterministic", was),
    ),
    "warnings.filterwarnings": (lambda: list(warnings.filters), lambda was: _refill(warnings.filters, was)),
    "numpy.seterr": (np.geterr, lambda was: np.seterr(**was)),
    "os.chdir": (os.getcwd, os.chdir),
    "os.environ": (lambda: dict(os.environ), lambda was: _refill_environment(was)),
    "sys.path": (lambda: list(sys.path), lambda was: _refill(sys.path, was)),
}  # fmt: skip
"""What sets it -> how it is read and put back."""


def settings() -> dict[str, Any]:
    """Every watched setting's value, by the name of what sets it."""
    return {name: read() for name, (read, _) in _SETTINGS.items()}


def changed(before: Mapping[str, Any]) -> list[str]:
    """Settings that differ from what they were."""
    return [name for name, value in settings().items() if value != before[name]]


def put_back(before: Mapping[str, Any]) -> None:
    """Set what differs to what it was."""
    for name in changed(before):
        _SETTINGS[name][1](before[name])


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.manual_seed(seed)


def generators() -> dict[str, bytes]:
    """What seeds it -> the state of Python's, numpy's and torch's global generator."""
    numpy_state: Any = np.random.get_state(legacy=True)
    return {
        "torch.manual_seed": torch.get_rng_state().numpy().tobytes(),
        "numpy.random.seed": numpy_state[1].tobytes() + repr(numpy_state[2:]).encode(),
        "random.seed": repr(random.getstate()).encode(),
    }


@contextmanager
def isolated() -> Iterator[None]:
    """Context for foreign code: deterministic algorithms as in a run, and afterwards every setting and generator as it was."""
    before, python_state, numpy_state = settings(), random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic.*")  # a run's log is where they belong
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield
    finally:
        put_back(before)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _refill(values: Any, was: list[Any]) -> None:
    values[:] = was


def _refill_environment(was: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(was)
