"""What must be the same on every node that may take runs, seen there before anything trains: code, device class, data, folders."""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import genbench
from genbench import run as runs
from genbench.budget import Budget
from genbench.errors import GenbenchError
from genbench.jobs import Checked
from genbench.origin import distribution_name, file_digest, plugin_points, source_digest
from genbench.places import cache_folder
from genbench.supervisor import Supervisor
from genbench.sweep.storage import Storage
from genbench.track import Track, short_hash

PATIENCE = 10.0
"""Seconds within which a file that the driver wrote must be seen by a node: network file systems may take a moment."""
SAME = {
    "device_class": "device class", "torch": "torch", "channels": "channels of the dataset", "num_train": "images in train",
    "num_holdout": "images in holdout", "num_test": "images in test", "num_classes": "classes",
}  # fmt: skip
"""What of a checked place two nodes must have in common."""
TIMED = {"device_name": "device"}
"""And where the budget is a time: processors of the same number of threads differ in what they do in a minute."""


@dataclass(frozen=True)
class Ticket:
    """What a node is told of a sweep, on one track or all."""

    tracks: tuple[Track, ...]
    files: tuple[str, ...]
    """Models that are not packaged."""
    facts: Mapping[str, str]
    """The driver's."""
    folder: str
    """Where the driver works: relative paths in tracks start there."""
    results: str
    storage: str
    probe: str
    """Name of the file by which driver and nodes see whether they share a folder; empty once that is known."""
    device: str
    threads: int
    weights: Path | None
    devices: int = 1
    """That train one run together."""

    @property
    def root(self) -> Path:
        """The results folder as a node uses it: the driver's, or one of its own for a storage."""
        return cache_folder() / "nodes" / short_hash(self.storage) if self.storage else Path(self.results)


@dataclass(frozen=True)
class Found:
    """What a node says of itself."""

    facts: Mapping[str, str]
    checked: tuple[Checked, ...] = ()
    """One for each track."""
    problem: str = ""


def facts(files: Iterable[str] = ()) -> dict[str, str]:
    """What decides a result besides the device: name -> version, with a digest of the sources where they are ours or a plugin's."""
    told = {
        "Python": platform.python_version(),
        "genbench": f"{genbench.__version__} ({source_digest('genbench')[:8]})",
        "torch": _version("torch").partition("+")[0],  # a driver may well do with the build for CPUs
    }
    plugins: dict[str, list[str]] = defaultdict(list)
    versions = {}
    for point in plugin_points():
        name = distribution_name(point)
        versions[name] = (point.dist.version if point.dist else None) or "?"
        plugins[name].append(f"{point.name} {point.value} {source_digest(point.value)}")
    told |= {name: f"{versions[name]} ({short_hash(sorted(parts))})" for name, parts in plugins.items()}
    return told | {file: _digest(Path(file)) for file in sorted(set(files))}


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Facts here and on a node -> what differs, in words. What a node has beside it does no harm."""
    return [f"{name} {value} here, {theirs.get(name) or 'missing'} there" for name, value in ours.items() if theirs.get(name) != value]


def agree(nodes: Mapping[str, Found], ticket: Ticket) -> None:
    """Hold what every node said against the driver's facts, and the nodes against each other.

    Raises GenbenchError naming nodes and differences.
    """
    told = [f"node {name}: {problem}" for name, found in nodes.items() for problem in _problems(found, ticket.facts)]
    if not told:
        first, reference = next(iter(nodes.items()))
        told = [
            f"node {name}: {words} {getattr(theirs, key)}, but {getattr(mine, key)} on node {first}"
            for name, found in nodes.items()
            for track, mine, theirs in zip(ticket.tracks, reference.checked, found.checked, strict=True)
            for key, words in (SAME | (TIMED if Budget.parse(track.budget).kind == "seconds" else {})).items()
            if getattr(mine, key) != getattr(theirs, key)
        ]
    if told:
        more = f" (and {len(told) - 4} more)" if len(told) > 4 else ""
        raise GenbenchError(
            f"the nodes can't take these runs: {'; '.join(dict.fromkeys(told[:4]))}{more}. Every node that takes runs needs the same code, "
            "data and device class; --resource NAME keeps to the nodes that have it"
        )


def examine(ticket: Ticket) -> Found:
    """On a node: say what is here, whether the folder is seen, and check every track as a run would."""
    told = facts(ticket.files)
    if differences(ticket.facts, told):
        return Found(told)
    with at_home(ticket.folder):
        problem = _shared(ticket)
        if problem:
            return Found(told, problem=problem)
        supervisor, checked = Supervisor(), []
        for track in ticket.tracks:
            try:
                place = runs.check(
                    track,
                    supervisor,
                    results=ticket.root,
                    device=ticket.device,
                    threads=ticket.threads,
                    weights=ticket.weights,
                    devices=ticket.devices,
                )
            except GenbenchError as error:
                return Found(told, problem=f"track {track.name}: {error}")
            checked.append(place.checked)
    return Found(told, tuple(checked))


@contextmanager
def probed(ticket: Ticket) -> Iterator[None]:
    """Within the block there is the file that says whether a node shares the driver's results folder or storage."""
    if ticket.storage:
        storage = Storage(ticket.storage)
        storage.write(ticket.probe, b"")
    else:
        (Path(ticket.results) / ticket.probe).write_bytes(b"")
    try:
        yield
    finally:
        if ticket.storage:
            storage.remove([ticket.probe, ticket.probe + "-node"])
        else:
            (Path(ticket.results) / ticket.probe).unlink(missing_ok=True)


@contextmanager
def at_home(folder: str) -> Iterator[None]:
    """Within the block this process works in the driver's folder, where it is there."""
    before = os.getcwd()
    if Path(folder).is_dir():
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _problems(found: Found, ours: Mapping[str, str]) -> Sequence[str]:
    return differences(ours, found.facts) or ([found.problem] if found.problem else [])


def _shared(ticket: Ticket) -> str:
    """Why this node does not share results folder or storage with the driver; empty where it does."""
    if not ticket.probe:
        there = ticket.storage or (Path(ticket.results) / "runs").is_dir()
        return "" if there else f"does not see the driver's results folder {ticket.results}"
    if ticket.storage:
        try:
            storage = Storage(ticket.storage)
            if storage.read(ticket.probe) is None:
                return f"does not see what the driver wrote to storage {ticket.storage}"
            storage.write(ticket.probe + "-node", b"")
        except GenbenchError as error:
            return str(error)
        return ""
    probe, deadline = Path(ticket.results) / ticket.probe, time.monotonic() + PATIENCE
    while not probe.is_file():
        if time.monotonic() > deadline:
            return f"does not see the driver's results folder {ticket.results}; put it on a shared file system, or give --storage URL"
        time.sleep(0.2)
    try:
        with open(probe, "ab") as file:
            file.write(b"+")
    except OSError as error:
        return f"can't write in the results folder {ticket.results}: {error.strerror or error}"
    return ""


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _digest(file: Path) -> str:
    try:
        return file_digest(file)[:8]
    except OSError:
        return ""
