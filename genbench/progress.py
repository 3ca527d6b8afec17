"""What long work shows: a bar on a terminal, plain lines elsewhere. Never on stdout where that carries JSON."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from genbench.budget import Budget
from genbench.devices import apart
from genbench.harmless import clean
from genbench.records import RunRecord
from genbench.run import Planned
from genbench.track import Track

Event = Mapping[str, Any]
_WORDS = {"train": "starting", "sample": "drawing samples", "score": "scoring"}
_PLAIN_EVERY = 0.25
"""Share of the budget between two plain lines."""


@contextmanager
def shown(planned: Planned, position: str, console: Console) -> Iterator[Callable[[Event], None]]:
    """Within the block, events of the run are shown on `console`; `position` is ``3/7``."""
    spec = planned.spec
    title = f"[{position}] {spec.model.name} seed {spec.seed}"
    if console.is_terminal:
        with _bar(title, console) as show:
            yield show
    else:
        console.print(f"{title}: training for {spec.track.budget}", highlight=False, markup=False)
        yield _plain(title, console)


def outcome_line(record: RunRecord, position: str, console: Console) -> None:
    """The one line that stays of a finished run."""
    spec = record.spec
    words = [f"[{position}]", f"{spec.model.name} seed {spec.seed}:", record.status]
    if record.status == "done":
        words += _score_words(record)
    else:
        words.append(f"({record.reason})")
    style = None if record.status == "done" else "red"
    console.print(" ".join(words), style=style, highlight=False, markup=False, soft_wrap=True)


def plan_line(track: Track, runs: int, finished: int, console: Console) -> None:
    """What is about to happen, before it does."""
    finished_words = f", {finished} of them finished earlier" if finished else ""
    console.print(
        f"track {track.name}: {track.dataset} at {track.size}x{track.size}, budget {track.budget}, {track.num_samples} samples, "
        f"{track.extractor}; {runs} run{'s' * (runs != 1)}{finished_words}",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


def _score_words(record: RunRecord) -> list[str]:
    spent, rate = record.spent, record.throughput
    words = [
        f"{name} {value:.4g}"
        for name in dict.fromkeys((record.spec.track.rank_by, "fid", "is"))
        if (value := record.score(name)) is not None
    ]
    if spent:
        words.append(f"after {spent.seconds:.1f} s, {spent.steps} steps")
    if rate and rate.train:
        words.append(f"{rate.train:,.0f} images/s")
    if record.flags:
        words.append(f"[{', '.join(record.flags)}]")
    return words


def _losses(event: Event) -> str:
    return "  ".join(f"{clean(name, 40)} {value:.3g}" for name, value in list(event["losses"].items())[:3])


def _left(event: Event) -> str:
    """Time left, from the share of the budget spent so far; several devices spend their seconds side by side."""
    share, seconds = event["progress"], event["seconds"] / event.get("devices", 1)
    if share <= 0:
        return ""
    left = round(seconds * (1 - share) / share)
    return f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}" if left >= 3600 else f"{left // 60}:{left % 60:02d}"


def _crash(event: Event) -> str:
    return f"{event['reason']}; going on from what was saved"


@contextmanager
def _bar(title: str, console: Console) -> Iterator[Callable[[Event], None]]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        TaskProgressColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=1.0, facts="starting")

        def show(event: Event) -> None:
            if event["kind"] == "crash":
                progress.console.print(f"{title}: {_crash(event)}", highlight=False, markup=False)
            elif event["kind"] == "stage":
                progress.update(task, facts=_WORDS[event["stage"]])
            elif event["kind"] == "tick":
                facts = f"{event['rate']:,.0f} img/s  {_losses(event)}  {_left(event)} left"
                progress.update(task, completed=event["progress"], facts=facts)

        yield show


def _plain(title: str, console: Console) -> Callable[[Event], None]:
    said, begun = 0.0, time.monotonic()

    def show(event: Event) -> None:
        nonlocal said
        if event["kind"] == "tick" and event["progress"] >= said + _PLAIN_EVERY:
            said = event["progress"]
            facts = f"{said:4.0%} of the budget  {event['rate']:,.0f} images/s  {_losses(event)}  {_left(event)} left"
            console.print(f"{title}: {facts}", highlight=False, markup=False, soft_wrap=True)
        elif event["kind"] == "crash":
            console.print(f"{title}: {_crash(event)}", highlight=False, markup=False, soft_wrap=True)
        elif event["kind"] == "stage" and event["stage"] != "train":
            console.print(f"{title}: {_WORDS[event['stage']]} ({time.monotonic() - begun:.0f} s)", highlight=False, markup=False)

    return show


class Board:
    """A sweep as it goes: what is running, done, failed and to come, and the time left. Safe to tell from several threads."""

    def __init__(self, planned: Sequence[Planned], slots: int, console: Console) -> None:
        self._console, self._slots, self._total = console, slots, len(planned)
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._running: dict[int, tuple[Planned, float, Event]] = {}
        self._walls: list[float] = []
        self._done = self._failed = 0
        budgets = [(Budget.parse(one.spec.track.budget), apart(one.spec.device)[0]) for one in planned]
        timed = [budget.amount / devices for budget, devices in budgets if budget.kind == "seconds"]
        self._guess = sum(timed) / len(timed) if timed else None

    @contextmanager
    def shown(self) -> Iterator[Board]:
        """Within the block the board is on the terminal; elsewhere there is a line for each run that ends."""
        if not self._console.is_terminal:
            yield self
            return
        with Live(get_renderable=self._table, console=self._console, refresh_per_second=2, transient=True) as self._live:
            yield self

    def event(self, one: Planned, event: Event) -> None:
        """Something was said by a run, or of one that has begun on another machine."""
        with self._lock:
            begun = self._running.get(id(one), (one, time.monotonic(), event))[1]
            if event["kind"] in ("tick", "stage", "begun"):
                self._running[id(one)] = (one, begun, event)
            elif event["kind"] in ("crash", "elsewhere"):
                self._running.pop(id(one), None)  # until it says more, from here or elsewhere
        if event["kind"] == "crash":
            self._console.print(f"{_title(one)}: {_crash(event)}", highlight=False, markup=False, soft_wrap=True)

    def record(self, one: Planned, record: RunRecord) -> None:
        """A run has its record, now or from earlier."""
        with self._lock:
            running = self._running.pop(id(one), None)
            if running is not None:
                self._walls.append(time.monotonic() - running[1])
            self._done += record.status == "done"
            self._failed += record.status != "done"
            position = f"{self._done + self._failed}/{self._total}"
        outcome_line(record, position, self._console)

    def summary(self) -> str:
        """``7 done, 1 failed, 2 running, 2 to come, 0:12:40 left``."""
        to_come = self._total - self._done - self._failed - len(self._running)
        words = [f"{self._done} done", f"{self._failed} failed" * bool(self._failed), f"{len(self._running)} running" * bool(self._running)]
        words += [f"{to_come} to come" * bool(to_come), self._left(to_come)]
        return ", ".join(filter(None, words))

    def _left(self, to_come: int) -> str:
        wall = sum(self._walls) / len(self._walls) if self._walls else self._guess
        if wall is None or not (to_come or self._running):
            return ""
        now = time.monotonic()
        remain = [max(0.0, wall - (now - begun)) for _, begun, _ in self._running.values()]
        side_by_side = min(max(self._slots, len(remain)), to_come + len(remain))  # a cluster may grow, and a night ends with few
        longest = max([*remain, wall * bool(to_come)])
        seconds = round(max(longest, (to_come * wall + sum(remain)) / side_by_side))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        with self._lock:
            table.add_row(Text(self.summary()))
            for one, _, event in self._running.values():
                if event["kind"] == "tick":
                    bar = ProgressBar(1.0, event["progress"], width=24)
                    facts = Text(f"{event['rate']:,.0f} img/s  {_losses(event)}")
                    table.add_row(Text(f"  {_title(one)}"), bar, f"{event['progress']:4.0%}", facts)
                else:
                    facts = Text(f"on {event['host']}" if event["kind"] == "begun" else _WORDS[event["stage"]])
                    table.add_row(Text(f"  {_title(one)}"), "", "", facts)
        return table


def _title(one: Planned) -> str:
    spec = one.spec
    changed = ", ".join(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in spec.model.changed.items())
    return f"{spec.track.name} {spec.model.name} seed {spec.seed}" + (f" ({changed:.40})" if changed and not spec.model.preset else "")
