"""How fast a model samples, how fast the machine is, and what memory a run took."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter  # this one, whatever a plugin puts in its place

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from genbench import machine
from genbench.budget import CONTENDED, Budget, Meter
from genbench.sample import on_device, sampling

WARM_UP = 10
CALIBRATION = 0.05
"""Seconds of matrix products that calibrate a device before and after training."""


@dataclass(frozen=True)
class SamplingRates:
    """How fast a model samples, and whether anybody disturbed it."""

    rates: dict[str, tuple[float, float, float]]
    """Batch size -> images/s as (median, 5th, 95th percentile)."""
    waited: float
    """Share of the time its threads waited for a core."""

    @property
    def contended(self) -> bool:
        """True where others had the cores for long enough to spoil the rates."""
        return self.waited > CONTENDED


def sampling_throughput(
    model: nn.Module,
    batch_sizes: Sequence[int] = (64,),
    *,
    synchronize: Callable[[], None],
    labels: NDArray[np.int64] | None = None,
    calls: int = 30,
    seconds: float = 10.0,
    at_least: float = 0.0,
) -> SamplingRates:
    """Images/s by batch size, device-synchronised at both ends of each call, fresh latents each.

    Runs 10 warm-up calls, then until `calls` calls and `at_least` seconds, or `seconds`, have passed. A conditional model is asked
    for `labels`, as many of them (or them again) as a batch holds.
    """
    rates: dict[str, tuple[float, float, float]] = {}
    meter = Meter(Budget.parse("1steps"), synchronize)
    with sampling(model), meter.running():
        for size in batch_sizes:
            asked = {} if labels is None else {"labels": on_device(np.resize(labels, size), model)}
            begun = perf_counter()
            for _ in range(WARM_UP):
                model.sample(size, **asked)  # type: ignore[operator]
                if perf_counter() - begun > seconds:
                    break
            times: list[float] = []
            begun = perf_counter()
            while not times or (perf_counter() - begun < seconds and (len(times) < calls or perf_counter() - begun < at_least)):
                synchronize()
                start = perf_counter()
                model.sample(size, **asked)  # type: ignore[operator]
                synchronize()
                times.append(perf_counter() - start)
            fast, slow = np.quantile(times, [0.05, 0.95])
            rates[str(size)] = (size / statistics.median(times), size / float(slow), size / float(fast))
    return SamplingRates(rates, meter.ledger().waited)


def gemm_rate(device: torch.device, synchronize: Callable[[], None]) -> float:
    """GFLOP/s of float32 512 x 512 matrix products (2048 on CUDA): tells a busy or throttled machine from a quiet one."""
    n = 2048 if device.type == "cuda" else 512
    generator = torch.Generator().manual_seed(0)
    a = torch.rand((n, n), generator=generator).to(device)
    a @ a
    synchronize()
    done, start = 0, perf_counter()
    while perf_counter() - start < CALIBRATION:
        a @ a
        done += 1
        synchronize()
    return 2 * n**3 * done / (perf_counter() - start) / 1e9


def peak_bytes(device: torch.device) -> int:
    """Peak memory so far: the allocator's on CUDA, this process's resident set elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return machine.peak_bytes()


def synchronizer(device: torch.device) -> Callable[[], None]:
    """The call that waits for `device`, whichever is the current one; nothing to wait for on a CPU."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
