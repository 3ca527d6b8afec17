"""How much a model may train, how that is written, and the meter that charges it."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time  # these, whatever a plugin puts in their place
from typing import Literal

from genbench.errors import GenbenchError

Kind = Literal["seconds", "images", "steps", "flops"]
_UNITS: dict[str, tuple[Kind, float]] = {
    "s": ("seconds", 1.0),
    "m": ("seconds", 60.0),
    "h": ("seconds", 3600.0),
    "img": ("images", 1.0),
    "kimg": ("images", 1e3),
    "mimg": ("images", 1e6),
    "steps": ("steps", 1.0),
    "flops": ("flops", 1.0),
}
CONTENDED = 0.1
"""Share of the clock spent waiting for a core above which what was timed is flagged: others had the machine."""
_WRITTEN = re.compile(r"\s*([+-]?(?:\d+(?:_\d+)*(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?|[+-]?inf|nan)\s*([a-z]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """An amount of training: device-seconds (of all devices together), images drawn, steps or FLOPs."""

    kind: Kind
    amount: float
    written: str

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``"60s"``, ``"10m"``, ``"2h"``, ``"200kimg"``, ``"5000steps"``, ``"1e15flops"`` -> Budget. Raises GenbenchError."""
        match = _WRITTEN.fullmatch(text)
        unit = match[2].lower() if match else ""
        if match is None or unit not in _UNITS:
            raise GenbenchError(f"budget {text!r} is not a number with a unit; write it like 60s, 10m, 2h, 200kimg, 5000steps or 1e15flops")
        kind, scale = _UNITS[unit]
        amount = float(match[1]) * scale
        if not (math.isfinite(amount) and amount > 0):
            raise GenbenchError(f"budget {text!r} must be a finite amount above 0")
        return cls(kind, amount, text.strip())

    def __str__(self) -> str:
        return self.written


@dataclass(frozen=True)
class Ledger:
    """What a training run was charged. Seconds are device-seconds of training only, of all devices together."""

    seconds: float
    steps: int
    images: int
    flops: float
    cpu_seconds: float
    """CPU time of this process while the clock ran, over all threads."""
    waited: float
    """Share of the clock this process's threads stood in the run queue; see `CONTENDED`."""
    lost: float = 0.0
    """Seconds, among those charged, whose work a crash undid."""
    flops_per_step: float | None = None
    """Of a step, as counted last; a step that is counted runs as it is written, whatever was compiled."""
    threads: int = 1
    """That stood in the run queue: `waited` is the mean over them."""


class Meter:
    """Charges a budget: runs only inside ``with meter.running():``, on a monotonic clock.

    `synchronize` waits for the device. It is called when the clock starts and stops and at `settle`, never per step.
    """

    def __init__(
        self, budget: Budget, synchronize: Callable[[], None] = lambda: None, clock: Callable[[], float] = perf_counter
    ) -> None:
        self.budget = budget
        self.steps = 0
        self.images = 0
        self.flops = 0.0
        self.flops_per_step: float | None = None
        self._synchronize = synchronize
        self._clock = clock
        self._banked = 0.0
        self._lost = 0.0
        self._started: float | None = None
        self._cpu = 0.0
        self._waited = 0.0
        self._threads = 1

    @property
    def seconds(self) -> float:
        """Device-seconds charged so far."""
        return self._banked + (0.0 if self._started is None else self._clock() - self._started)

    @property
    def spent(self) -> float:
        """The amount spent, in the budget's own kind."""
        return float(getattr(self, self.budget.kind))

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]."""
        return min(1.0, self.spent / self.budget.amount)

    @property
    def exhausted(self) -> bool:
        """True when the budget is spent. On an asynchronous device the clock may run ahead of the queue: see `settle`."""
        return self.spent >= self.budget.amount

    @property
    def overshoot(self) -> float:
        """What was spent beyond the budget, in the budget's own kind."""
        return max(0.0, self.spent - self.budget.amount)

    def settle(self) -> None:
        """Wait for the device, so that queued work is charged."""
        self._synchronize()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The clock runs inside this block."""
        self._synchronize()
        cpu, waited = process_time(), _run_queue_wait()
        self._started = self._clock()
        try:
            yield
            self._synchronize()  # not after an error: what failed may never come to its end
        finally:
            self._banked += self._clock() - self._started
            self._started = None
            self._cpu += process_time() - cpu
            now, before = _run_queue_wait(), waited
            self._waited += sum(max(0.0, wait - before.get(thread, 0.0)) for thread, wait in now.items())
            self._threads = max(1, self._threads, sum(1 for thread, wait in now.items() if wait > before.get(thread, 0.0)))

    def restore(self, ledger: Ledger) -> None:
        """Go on from the charges of an interrupted run."""
        self._banked, self.steps, self.images, self.flops = ledger.seconds, ledger.steps, ledger.images, ledger.flops
        self._cpu, self._lost = ledger.cpu_seconds, ledger.lost
        self._waited, self._threads = ledger.waited * ledger.seconds * ledger.threads, ledger.threads
        self.flops_per_step = ledger.flops_per_step

    def charge_lost(self, seconds: float) -> None:
        """Charge training that a crash undid: without that, a crash would buy another try."""
        self._banked += seconds
        self._lost += seconds

    def ledger(self) -> Ledger:
        """The charges so far."""
        share = self._waited / (self._banked * self._threads) if self._banked > 0 else 0.0
        return Ledger(self._banked, self.steps, self.images, self.flops, self._cpu, share, self._lost, self.flops_per_step, self._threads)


def _run_queue_wait() -> dict[str, float]:
    """Seconds each thread of this process has stood in the run queue; empty where the kernel does not say."""
    waits = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            waits[path.parent.name] = int(path.read_text().split()[1]) / 1e9
    return waits
