"""Tier 3: trained again with fresh seeds; is the recorded value better than that allows?"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from genbench import agreement
from genbench import run as runs
from genbench.budget import Budget
from genbench.devices import apart, class_of
from genbench.errors import GenbenchError
from genbench.inventory import ModelDescription
from genbench.places import cache_folder
from genbench.records import RunRecord, read_record, strict_json, write_atomic
from genbench.verification import Compared, Finding
from genbench.verify.subject import Subject, Told

Watch = Callable[[runs.Planned, str], AbstractContextManager[Callable[[runs.Event], None]]]
"""Shows a training: a context in which its events are told."""
_USUAL_REPEATS = 3


def trainings(folder: Path, record: RunRecord, repeats: int) -> tuple[list[float], int]:
    """A run's folder, `repeats` as asked for (0: as the test needs) -> values of the row's other seeds that count, how often to train.

    Raises GenbenchError where no training could tell anything: before the first one, whose budget may be hours.
    """
    name = record.spec.track.rank_by
    value = record.score(name)
    if value is None:
        raise GenbenchError(f"{folder}: the record has no {name}, which its track ranks by, so that training can't test it; use --tier 2")
    others = agreement.counted(value, list(_row(folder, record)))
    times = repeats or (1 if len(others) >= _USUAL_REPEATS else _USUAL_REPEATS)
    if times == 1 and not others:
        raise GenbenchError(
            f"one training shows no spread, and the row's other seeds beside {folder} show none that counts (docs/verify.md); "
            f"use --repeats {_USUAL_REPEATS}, or leave it out"
        )
    return others, times


def retrain(subject: Subject, described: ModelDescription, told: Told, others: Sequence[float], times: int, watch: Watch) -> None:
    """Train again with fresh seeds and test, one-sidedly, whether the recorded value is better than that allows."""
    record, track = subject.record, subject.record.spec.track
    name = track.rank_by
    value = record.score(name)
    assert value is not None, "trainings() has looked"
    devices, _ = apart(record.spec.device)
    with_one = subject.place.checked.device_class
    here = class_of(f"cpu-{subject.place.threads // devices}" if with_one.startswith("cpu-") else with_one, devices)
    if Budget.parse(track.budget).kind == "seconds" and here != record.spec.device:
        raise GenbenchError(f"the budget is a time on {record.spec.device}; this is {here}: train it again on such a machine")
    subject.tell(f"training again {times} time{'s' * (times != 1)} for {track.budget} each")
    with _kept_results(subject.digest) as results:
        place = runs.check(
            track, subject.supervisor, results=results, device=subject.place.checked.device, threads=subject.place.threads,
            weights=subject.place.weights, devices=devices,
        )  # fmt: skip
        told.retrained = _seeds(results, times, record.spec.seed)
        again: list[float] = []
        better = ""
        for number, seed in enumerate(told.retrained, 1):
            spec = record.spec.model_copy(update={"seed": seed, "device": place.checked.device_class})
            planned = runs.Planned(spec, described.source)
            made = place.store.get(spec)
            if made is None:
                with watch(planned, f"{number}/{times}") as show:
                    made = runs.run(planned, place, subject.supervisor, show)
            if made is None:
                raise KeyboardInterrupt
            found = made.score(name)
            note = f"seed {seed}" + ("" if made.status == "done" else f" ended as {made.status}: {made.reason}")
            told.scores.append(Compared(score=name, of="retrained", recorded=value, found=found, ok=None, note=note))
            again += [] if found is None else [found]
            better = next((score.better for score in made.scores if score.name == name), better)
    test = agreement.retrained(value, others, again, better)
    if test.ok is None or test.allowed is None or test.p is None:
        told.findings.append(Finding(what="retrained", ok=False, detail=f"{len(again)} of {times} gave a {name}: too few to test"))
        return
    allowed = f"by a factor of {test.allowed:.3g}" if test.log else f"by {test.allowed:.3g}"
    row = f"{test.degrees} degrees of freedom, {len(others)} other seeds of its row counted"
    values = ", ".join(f"{v:.4g}" for v in again)
    detail = f"{name} {value:.4g} recorded, {values} retrained; it may be better {allowed} (p = {test.p:.3g}, {row})"
    told.findings.append(Finding(what="retrained", ok=test.ok, detail=detail))


def _row(folder: Path, record: RunRecord) -> Iterator[float]:
    """The ranked score of the row's other finished seeds, where they lie beside the run."""
    spec = record.spec
    for path in sorted(folder.resolve().parent.glob(f"*-{spec.hash}/record.json"))[:100]:
        try:
            other = read_record(path)
        except GenbenchError:
            continue
        if other.spec.model == spec.model and other.spec.track_hash == spec.track_hash and other.spec.seed != spec.seed:
            value = other.score(spec.track.rank_by) if other.status == "done" else None
            if value is not None:
                yield value


@contextmanager
def _kept_results(digest: str) -> Iterator[Path]:
    """A results folder that the same verification finds again after an interruption; gone when it is done."""
    folder = cache_folder() / "retrained" / digest[:16]
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _seeds(results: Path, times: int, recorded: int) -> tuple[int, ...]:
    """Fresh seeds, written down so that an interrupted verification goes on with them."""
    path = results / "seeds.json"
    seeds: list[int] = strict_json(path.read_text()) if path.exists() else []
    while len(seeds) < times:
        seed = secrets.randbits(31)
        seeds += [] if seed in (recorded, *seeds) else [seed]
    write_atomic(path, str(seeds).encode())
    return tuple(seeds[:times])
