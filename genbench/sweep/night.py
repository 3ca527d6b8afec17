"""A sweep from its file to its records, the same for every executor: which cells there are, what they cost, what is done again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from genbench import run as runs
from genbench.budget import Budget
from genbench.errors import GenbenchError
from genbench.inventory import ModelDescription
from genbench.lease import BusyError
from genbench.sweep.cell import Cell, Executor, Run, Wishes
from genbench.sweep.local import LocalExecutor
from genbench.sweep.plan import Sweep, only, runs_of
from genbench.track import Track

EXECUTORS = ("local", "ray")


@contextmanager
def started(executor: str, wishes: Wishes, run: Run = runs.run) -> Iterator[Executor]:
    """The executor of that name, within the block. `run` does one run; a simulation has its own. Raises GenbenchError."""
    if executor not in EXECUTORS:
        raise GenbenchError(f"executor {executor!r} is not one of: {', '.join(EXECUTORS)}")
    if executor == "ray":
        from genbench.sweep.ray import connected

        with connected(wishes, run) as ray:
            yield ray
        return
    for option, value in {"--address": wishes.address, "--storage": wishes.storage, "--resource": wishes.resources}.items():
        if value:
            raise GenbenchError(f"{option} is for nodes of a Ray cluster; add --executor ray, or leave it out")
    with runs.supervised() as supervisor:
        yield LocalExecutor(wishes, supervisor, run)


def cells_of(
    asked: Sweep, models: Mapping[str, ModelDescription], tracks: Sequence[Track], executor: Executor, wanted: Sequence[str] = ()
) -> list[Cell]:
    """A sweep's file, what its names mean -> its cells, track by track, `wanted` of them (`genbench.sweep.plan.only`).

    Everything that can be wrong before a model trains is looked at. Raises GenbenchError.
    """
    places = executor.places(tracks, models.values())
    found = (Cell(one, place) for track, place in zip(tracks, places, strict=True) for one in runs_of(asked, models, track, place))
    cells = list({cell.planned.spec.folder: cell for cell in found}.values())  # a track may be named in two ways
    kept = {id(one) for one in only([cell.planned for cell in cells], wanted)}
    cells = [cell for cell in cells if id(cell.planned) in kept]
    executor.gather(cells)
    return cells


def reopen_failed(cells: Sequence[Cell], executor: Executor) -> None:
    """Set the records of failed runs aside, so that they happen again; not of those that another process works on again already."""
    for cell in cells:
        if cell.place.store.status(cell.planned.spec) not in (None, "done"):
            with suppress(BusyError):
                executor.reopen(cell)


def outlook(cells: Sequence[Cell], retry_failed: bool = False) -> list[dict[str, Any]]:
    """What a sweep would do: a row a run, its state ``to run`` or how it ended; with `retry_failed` only ``done`` is an end."""
    rows = []
    for cell in cells:
        spec = cell.planned.spec
        ended = cell.place.store.status(spec)
        ended = ended if ended == "done" or not retry_failed else None
        rows.append({
            "track": spec.track.name, "model": spec.model.name, "seed": spec.seed, "changed": dict(spec.model.changed),
            "budget": spec.track.budget, "state": ended or "to run", "folder": str(spec.folder),
        })  # fmt: skip
    return rows


def cost(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `outlook` -> ``12 runs, 7 to run: 0.35 device-hours of training``."""
    left = [Budget.parse(row["budget"]) for row in rows if row["state"] == "to run"]
    seconds = sum(budget.amount for budget in left if budget.kind == "seconds")
    others = sum(budget.kind != "seconds" for budget in left)
    known = f"{seconds / 3600:.2f} device-hours of training" + (f", and {others} runs whose budget is no time" if others else "")
    return f"{len(rows)} runs, {len(left)} to run: {known}"
