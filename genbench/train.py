"""The training loop: steps a model until its budget is spent, and keeps the curve."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from genbench.budget import Ledger, Meter
from genbench.datasets.resident import TrainingBatches
from genbench.errors import GenbenchError
from genbench.model import Optimizers

TICK = 0.5
"""Seconds between two looks at the losses; the loop waits for the device only then."""
FLOPS_EVERY = 200
"""Steps between two counts of a step's FLOPs where FLOPs are the budget (phases may differ in cost)."""


@dataclass(frozen=True)
class Point:
    """The state of a run at one moment."""

    progress: float
    seconds: float
    steps: int
    images: int
    rate: float
    """Training images per second, of all devices together, since the point before."""
    losses: Mapping[str, float]


@dataclass
class Training:
    """How a training went."""

    ledger: Ledger
    overshoot: float
    finished_early: bool
    stopped: bool
    """Stopped from outside, before the budget was spent."""
    diverged: str
    """Where the losses stopped being finite; empty where they did not."""
    points: list[Point] = field(default_factory=list)
    throughput: float | None = None
    """Training images/s in steady state: the median over ticks."""
    last: Point | None = None
    """How it stood at its end."""


def train(
    model: nn.Module,
    optimizers: Optimizers,
    batches: TrainingBatches,
    meter: Meter,
    *,
    device: torch.device,
    precision: str = "fp32",
    at: Sequence[float] = (),
    on_point: Callable[[Point], Mapping[str, float] | None] = lambda point: None,
    on_tick: Callable[[Point], None] = lambda point: None,
    stop: Callable[[], bool] = lambda: False,
    after_step: Callable[[], None] = lambda: None,
    save_due: Callable[[], bool] = lambda: False,
    save: Callable[[Sequence[Point], Point], None] = lambda points, last: None,
    earlier: Sequence[Point] = (),
    last: Point | None = None,
    devices: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    agree: Callable[[dict[str, float], bool], tuple[dict[str, float], bool]] = lambda losses, bad: (losses, bad),
    any_finished: Callable[[], bool] | None = None,
) -> Training:
    """Step `model` until `meter` is exhausted, the model is `finished`, a loss is not finite, or `stop()`.

    At each share of the budget in `at`, and where there are any at its end, the clock is halted and `on_point` called: what it does is
    not charged, what it returns joins the point's losses. Where `save_due()`, asked every half second, `save` gets the points so far and
    the present state, between two steps and off the clock; and once more when the budget is spent, before the last point. `earlier` are
    the points of the run that this one continues, `last` its state then; shares beyond them are still to come.

    Where the run has several `devices`, this is one of them, and all take the same decisions: by the same `clock`, on losses and the
    flag of a bad one that they `agree` on, and on the word of `any_finished`.
    """
    step = _Stepper(model, optimizers, batches, meter, device, precision, devices, clock, agree, last)
    points = list(earlier)
    rates: list[float] = []
    reached = max((point.progress for point in points), default=0.0)
    pending = sorted(share for share in {*at, 1.0} if reached < share <= 1) if at else []
    diverged, finished, stopped, saved = "", False, False, meter.steps
    while not (diverged or stopped) and (pending or not (meter.exhausted or finished)):
        target = pending[0] if pending else 1.0
        saving = False
        with meter.running():
            while not (meter.exhausted or finished or saving) and meter.progress < target:
                step()
                after_step()
                finished = bool(getattr(model, "finished", False)) if any_finished is None else any_finished()
                if step.tick_due():
                    point = step.look()
                    rates.append(point.rate)
                    on_tick(point)
                    if step.diverged:
                        diverged = f"a loss was not finite by step {meter.steps}: {_worst(point.losses)}"
                    if meter.budget.kind == "flops" and not (meter.flops or finished):
                        raise GenbenchError("its steps have no FLOPs that torch counts, like matrix products: a budget in FLOPs never ends")
                    # who is stopped at the very step that ends a part has come to its end
                    stopped = stop() and not (meter.exhausted or finished) and meter.progress < target
                    if diverged or stopped:
                        break
                    saving = save_due() and not (meter.exhausted or finished) and meter.progress < target
        if saving:
            save(points, point)
            saved = meter.steps
        elif not (diverged or stopped):
            point = step.look()
            if step.diverged:
                diverged = f"a loss was not finite by step {meter.steps}: {_worst(point.losses)}"
            while pending and (meter.progress >= pending[0] or finished):
                pending.pop(0)
            if meter.exhausted and not (finished or diverged) and meter.steps > saved:
                save(points, point)  # from here on nothing can undo what was trained
                saved = meter.steps
            if at and not diverged:
                points.append(replace(point, losses={**point.losses, **(on_point(point) or {})}))
    ledger = meter.ledger()
    # The first tick holds the warm-up; a run shorter than two has only its own average.
    useful = ledger.seconds - ledger.lost
    whole = devices * ledger.images / useful if useful > 0 else None
    throughput = statistics.median(rates[1:]) if len(rates) > 1 else whole
    return Training(ledger, meter.overshoot, finished and not meter.exhausted, stopped, diverged, points, throughput, step.look())


class _Stepper:
    """Calls `training_step`, counts, and reads the device only at `look`."""

    def __init__(
        self, model: nn.Module, optimizers: Optimizers, batches: TrainingBatches, meter: Meter, device: torch.device, precision: str,
        devices: int, clock: Callable[[], float], agree: Callable[[dict[str, float], bool], tuple[dict[str, float], bool]],
        last: Point | None,
    ) -> None:  # fmt: skip
        self._devices, self._clock, self._agree, self._last = devices, clock, agree, last
        self.model, self.optimizers, self.batches, self.meter, self.device = model, optimizers, batches, meter, device
        self.bf16 = precision == "bf16"
        self.diverged = False
        self._bad = torch.zeros((), dtype=torch.bool, device=device)
        self._scalars: Mapping[str, Tensor] = {}
        self._looked = clock()
        self._seconds, self._images, self._rate = meter.seconds, meter.images, last.rate if last else 0.0

    def __call__(self) -> None:
        meter, before = self.meter, self.batches.drawn
        self.batches.progress = meter.progress
        due = meter.flops_per_step is None or (meter.budget.kind == "flops" and meter.steps % FLOPS_EVERY == 0)
        counter = _FlopCounter() if due else None
        with counter or contextlib.nullcontext(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            scalars = self.model.training_step(self.batches, self.optimizers)  # type: ignore[operator]
        if counter is not None:
            meter.flops_per_step = float(self._devices * counter.total)
            _check_scalars(scalars)
        if self.batches.drawn == before:
            raise GenbenchError("training_step drew no batch: every step must call next(batches) at least once")
        self._scalars = scalars
        if scalars:
            total = sum(value.detach() for value in scalars.values())
            self._bad.logical_or_(~torch.isfinite(total))
        meter.steps += 1
        meter.flops += meter.flops_per_step or 0.0

    def tick_due(self) -> bool:
        return self._clock() - self._looked >= TICK

    def look(self) -> Point:
        """Wait for the device, read losses and the flag."""
        self.meter.settle()
        losses = {name: float(value.detach()) for name, value in self._scalars.items()}
        if self._last is not None and not self._scalars:  # no step since then
            losses = dict(self._last.losses)
        losses, self.diverged = self._agree(losses, bool(self._bad))
        meter = self.meter
        seconds, images = meter.seconds, meter.images
        if images > self._images and seconds > self._seconds:  # a look just after another tells nothing new
            self._rate = self._devices * (images - self._images) / (seconds - self._seconds)
            self._seconds, self._images = seconds, images
        self._looked = self._clock()
        return Point(meter.progress, seconds, meter.steps, images, self._rate, losses)


class _FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs of what runs inside it by torch's own formulas.

    Not `FlopCounterMode`: that one also follows modules by hooks on their inputs, which a gradient penalty's `autograd.grad`
    does not survive.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _check_scalars(scalars: object) -> None:
    if not isinstance(scalars, Mapping):
        raise GenbenchError(f"training_step must return a dict of named scalars, not {type(scalars).__name__}")
    for name, value in scalars.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise GenbenchError(f"training_step returned {name!r} that is not a scalar tensor")


def _worst(losses: Mapping[str, float]) -> str:
    bad = [f"{name} = {value}" for name, value in losses.items() if not math.isfinite(value)]
    return ", ".join(bad) or "finite again since"
