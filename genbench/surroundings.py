"""The process around a model: its global settings, generators and clocks, watched, told in plain words, and put back after foreign code."""

from __future__ import annotations

import functools
import os
import random
import signal
import sys
import threading
import time
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


_CLOCKS = {name: getattr(time, name) for name in ("monotonic", "perf_counter", "time", "process_time", "sleep")}
_CLOCKS |= {f"{name}_ns": getattr(time, f"{name}_ns") for name in ("monotonic", "perf_counter", "time", "process_time")}
"""What a plugin may put in the place of, as it was when this module was imported."""


class Watch:
    """What foreign code changes in this process, told in words that a record can hold: ``changed the default dtype``.

    Costs nothing while that code runs: it compares what was there at the start with what is there at `look`. Only the functions that
    seed Python's and numpy's generators, whose states do not tell what they were seeded with, are replaced by some that take a note.
    """

    def __init__(self) -> None:
        self._before, self._threads = _watched(), set(threading.enumerate())
        self._told: dict[str, None] = {}
        self._seeds = _seeds()
        self._undo = [self._noting(random, "seed", "Python's generator"), self._noting(np.random, "seed", "numpy's generator")]

    def seeded(self) -> None:
        """The harness has seeded torch's generators: what they are now is its doing."""
        self._seeds = _seeds()

    def close(self) -> None:
        """Put the functions back that this replaced."""
        while self._undo:
            self._undo.pop()()

    def look(self) -> tuple[str, ...]:
        """Everything that was changed since the start, or at an earlier look, in the order in which it was seen."""
        now = _watched()
        found = [f"changed {words}" for words, value in now.items() if value != self._before[words] and words != _ENVIRONMENT]
        names = _differing(self._before[_ENVIRONMENT], now[_ENVIRONMENT])
        if names:
            found.append(f"changed {_ENVIRONMENT} ({_listed(names)})")
        replaced = [f"time.{name}" for name, original in _CLOCKS.items() if getattr(time, name, None) is not original]
        if replaced:
            found.append(f"replaced {_listed(replaced)}")
        found += [f"seeded {whose}" for whose, seed in _seeds().items() if seed != self._seeds.get(whose, seed)]
        left = sum(1 for thread in threading.enumerate() if thread not in self._threads)
        if left:
            found.append(f"left {left} thread{'s' * (left > 1)} running")
        self._told |= dict.fromkeys(found)
        return tuple(self._told)

    def _noting(self, module: Any, name: str, whose: str) -> Callable[[], None]:
        """Replace a function by one that notes that it was called -> what puts it back."""
        function = getattr(module, name)

        @functools.wraps(function)
        def noting(*args: Any, **kwargs: Any) -> Any:
            self._told.setdefault(f"seeded {whose}", None)
            return function(*args, **kwargs)

        setattr(module, name, noting)
        return lambda: setattr(module, name, function)


def watch(device: torch.device) -> Watch:
    """Begin to watch a process that is to use `device`."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # which sets a variable of the environment
    return Watch()


_ENVIRONMENT = "the environment"


def _watched() -> dict[str, Any]:
    """Words for a setting -> its value, of those that a record tells."""
    reads: dict[str, Callable[[], Any]] = {
        "the default dtype": _SETTINGS["torch.set_default_dtype"][0],
        "the default device": _SETTINGS["torch.set_default_device"][0],
        "the number of threads": _SETTINGS["torch.set_num_threads"][0],
        "whether gradients are recorded": _SETTINGS["torch.set_grad_enabled"][0],
        "anomaly detection": _SETTINGS["torch.autograd.set_detect_anomaly"][0],
        "the precision of float32 products": _SETTINGS["torch.set_float32_matmul_precision"][0],
        "deterministic algorithms": _SETTINGS["torch.use_deterministic_algorithms"][0],
        "cudnn.benchmark": _SETTINGS["torch.backends.cudnn.benchmark"][0],
        "cudnn.deterministic": _SETTINGS["torch.backends.cudnn.deterministic"][0],
        "numpy's handling of errors": _SETTINGS["numpy.seterr"][0],
        "the filters of all warnings": _sweeping_filters,
        "the working directory": _SETTINGS["os.chdir"][0],
        "the handling of SIGTERM": lambda: signal.getsignal(signal.SIGTERM),
        _ENVIRONMENT: _SETTINGS["os.environ"][0],
    }
    return {words: _read(read) for words, read in reads.items()}


def _read(read: Callable[[], Any]) -> Any:
    """A setting's value, or what kind of error reading it raises: a working directory may have been removed."""
    try:
        return read()
    except Exception as error:
        return type(error).__name__


def _sweeping_filters() -> list[tuple[Any, ...]]:
    """Filters of warnings that ask neither for a text nor for a module nor for a library's own kind: those a library adds for itself do."""
    return [f for f in warnings.filters if f[1] is None and f[3] is None and f[2].__module__ == "builtins"]


def _seeds() -> dict[str, int]:
    """Whose generator -> what torch's generators were seeded with last."""
    found = {"torch's generator": torch.initial_seed()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["the GPU's generator"] = torch.cuda.initial_seed()
    return found


def _differing(before: Any, now: Any) -> list[str]:
    """Names of variables that two environments do not share."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return []
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _listed(names: list[str]) -> str:
    """The first two of some names, and how many more there are."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join("".join(c for c in name if c.isprintable())[:30] for name in names[:2]) + more


def _refill(values: Any, was: list[Any]) -> None:
    values[:] = was


def _refill_environment(was: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(was)
