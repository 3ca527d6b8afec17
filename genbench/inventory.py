"""What is installed, described without importing a plugin into this process.

A child process (``python -m genbench.inventory``) imports the plugins and hands back a description, which is cached by
their versions and digests: a plugin that exits, aborts or hangs harms nobody, and the second listing needs no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from genbench import __version__
from genbench.catalogue import load_catalogue, look_up, without_duplicates
from genbench.deathsig import die_with_parent
from genbench.descriptions import (
    DESCRIBE,
    DatasetDescription,
    ExtractorDescription,
    MetricDescription,
    TrackDescription,
    describe_model,
)
from genbench.descriptions import ModelDescription as ModelDescription
from genbench.descriptions import check_hparams as check_hparams
from genbench.errors import GenbenchError
from genbench.modelfile import load_model_file, split_file
from genbench.origin import KINDS, Broken, Kind, distribution_name, explain, mentions, plugin_points, source_digest
from genbench.places import cache_folder
from genbench.records import write_atomic
from genbench.track import Track

DEADLINE = 60.0
"""Seconds that describing plugins may take."""
_KEPT = 16
"""Cached descriptions that are kept: an environment each, roughly."""


class Inventory(BaseModel):
    """Everything that is installed, and what of it is broken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[ModelDescription, ...] = ()
    datasets: tuple[DatasetDescription, ...] = ()
    extractors: tuple[ExtractorDescription, ...] = ()
    metrics: tuple[MetricDescription, ...] = ()
    tracks: tuple[TrackDescription, ...] = ()
    broken: tuple[Broken, ...] = ()

    def model(self, name: str) -> ModelDescription:
        """The model of that name. Raises GenbenchError: unknown (with a suggestion), broken or registered twice."""
        return look_up("model", name, _by_name(self.models), self.broken)

    def dataset(self, name: str) -> DatasetDescription:
        """The dataset of that name. Raises GenbenchError as `model` does."""
        return look_up("dataset", name, _by_name(self.datasets), self.broken)

    def extractor(self, name: str) -> ExtractorDescription:
        """The extractor of that name. Raises GenbenchError as `model` does."""
        return look_up("extractor", name, _by_name(self.extractors), self.broken)

    def metric(self, name: str) -> MetricDescription:
        """The metric of that name. Raises GenbenchError as `model` does."""
        return look_up("metric", name, _by_name(self.metrics), self.broken)

    def track(self, name: str) -> Track:
        """The track of that name. Raises GenbenchError as `model` does."""
        return look_up("track", name, _by_name(self.tracks), self.broken).track


def inventory(kinds: Sequence[Kind] | None = None, *, points: Sequence[EntryPoint] | None = None, refresh: bool = False) -> Inventory:
    """Describe what is installed: from the cache, else through a child process.

    `kinds` (None: all) says what matters: where no plugin's source names their hooks, the built-ins are all there is and
    no child is started. `points` stands in for the installed entry points; `refresh` looks past the cache.
    """
    points = plugin_points() if points is None else list(points)
    cache = cache_folder() / "inventory" / f"{_key(points)}.json"
    known = None if refresh else _read(cache)
    if known is not None:
        return known
    if kinds is not None and not any(mentions(point, kind) for point in points for kind in kinds):
        return describe(points=(), kinds=kinds)
    ours = describe(points=())
    theirs, lasting = _describe_apart(points)
    whole = _join([ours, *theirs])
    if lasting and not ours.broken:
        _write(cache, whole)
    return whole


def describe_file(source: str) -> ModelDescription:
    """``./mygan.py:MyGAN`` -> its description, made in a child process. Raises GenbenchError, one line, where it fails."""
    path, cls = split_file(source)
    answer, ended = _ask(["--file", f"{path.resolve()}:{cls}" if cls else str(path.resolve())])
    if answer is None:
        raise GenbenchError(f"model file {path} cannot be imported: it {ended}")
    try:
        if "error" in answer:
            raise GenbenchError(str(answer["error"]))
        return ModelDescription.model_validate(answer)
    except ValidationError as error:
        raise GenbenchError(f"model file {path}: {_first(error)}") from None


def describe(points: Iterable[EntryPoint], *, builtin: bool = True, kinds: Sequence[Kind] = KINDS) -> Inventory:
    """Describe in this process, importing the plugins of `points`."""
    catalogue = load_catalogue(points, builtin=builtin, kinds=kinds)
    described: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    broken = [item for item in catalogue.broken if not item.duplicate]  # `_join` finds those
    for kind, entries in catalogue.entries.items():
        for entry in entries:
            try:
                described[kind].append(DESCRIBE[kind](entry))
            except Exception as error:
                reason = _first(error) if isinstance(error, ValidationError) else explain(error)
                broken.append(Broken(entry.distribution, entry.version, entry.source, reason, kind, entry.name))
    return Inventory(**{f"{kind}s": tuple(items) for kind, items in described.items()}, broken=tuple(broken))


D = TypeVar("D", DatasetDescription, ExtractorDescription, MetricDescription, ModelDescription, TrackDescription)


def _by_name(items: Iterable[D]) -> dict[str, D]:
    return {item.name: item for item in items}


def _join(parts: Sequence[Inventory]) -> Inventory:
    """Inventories of single plugins -> one; names registered twice become broken."""
    broken = [item for part in parts for item in part.broken]
    kept = {}
    for kind in KINDS:
        items, twice = without_duplicates(kind, [item for part in parts for item in getattr(part, f"{kind}s")])
        kept[f"{kind}s"] = tuple(items.values())
        broken += twice
    return Inventory(**kept, broken=tuple(broken))


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"


# ---- the child process ----------------------------------------------------------------------------------------------


def _describe_apart(points: Sequence[EntryPoint]) -> tuple[list[Inventory], bool]:
    """Entry points -> their inventories, described by one child; where it dies, by a child each.

    The second value is false where a plugin failed in a way that may pass (a timeout, a kill).
    """
    if not points:
        return [], True
    whole, ended = _ask_inventory(points)
    if whole is not None:
        return [whole], True
    if len(points) == 1:
        point = points[0]
        name, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
        lasting = not ended.startswith(("took", "was killed by SIGKILL", "was killed by SIGTERM"))
        return [Inventory(broken=(Broken(name, version, point.value, f"importing it {ended}"),))], lasting
    alone = [_describe_apart([point]) for point in points]
    return [part for parts, _ in alone for part in parts], all(lasting for _, lasting in alone)


def _ask_inventory(points: Sequence[EntryPoint]) -> tuple[Inventory | None, str]:
    asked = [[distribution_name(point), point.name, point.value] for point in points]
    answer, ended = _ask(["--points", json.dumps(asked)])
    try:
        return (None if answer is None else Inventory.model_validate(answer)), ended
    except ValidationError:
        return None, "spoilt its own description"


def _ask(arguments: list[str]) -> tuple[dict[str, Any] | None, str]:
    """Run this module in a child -> its JSON answer, or None and how it ended, in words."""
    # The answer comes through a file of its own: a plugin may print, and a grandchild may hold a pipe open for ever.
    with tempfile.TemporaryFile() as channel:
        command = [sys.executable, "-P", "-m", "genbench.inventory", str(os.getpid()), str(channel.fileno()), *arguments]
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[channel.fileno()],
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        try:
            code: int | None = child.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)  # with whatever it started
            child.wait()
        if code is None:
            return None, f"took longer than {DEADLINE:g} s"
        channel.seek(0)
        try:
            answer = json.loads(channel.read())
        except ValueError:
            answer = None
    if isinstance(answer, dict):
        return answer, ""
    return None, f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended the process with exit status {code}"


def _answer(arguments: list[str]) -> None:
    """The child: describe what `arguments` ask for, write JSON to the channel, leave without running anyone's exit handlers."""
    parent, channel, task, asked = arguments
    die_with_parent(int(parent))
    if task == "--file":
        try:
            content = describe_model(load_model_file(asked)).model_dump_json()
        except (GenbenchError, ValidationError, TypeError) as error:
            content = json.dumps({"error": _first(error) if isinstance(error, ValidationError) else str(error)})
    else:
        wanted = [tuple(point) for point in json.loads(asked)]
        points = [point for point in plugin_points() if (distribution_name(point), point.name, point.value) in wanted]
        content = describe(points, builtin=False).model_dump_json()
    with open(int(channel), "wb", closefd=False) as file:
        file.write(content.encode())
    os._exit(0)


# ---- the cache ------------------------------------------------------------------------------------------------------


def _key(points: Iterable[EntryPoint]) -> str:
    """Changes with genbench, Python, any plugin's name, version or source, and with whatever is installed beside them."""
    plugins = [[distribution_name(point), point.name, point.value, source_digest(point.value)] for point in points]
    # A plugin that was broken for want of a library works once that is installed.
    beside = []
    for folder in sys.path:
        with contextlib.suppress(OSError):
            beside += [name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info"))]
    parts = [__version__, source_digest("genbench"), sys.version, sys.executable, plugins, sorted(beside)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _read(path: Path) -> Inventory | None:
    try:
        return Inventory.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _write(path: Path, content: Inventory) -> None:
    # No cache is no harm: the next listing takes as long as this one did.
    with contextlib.suppress(OSError):
        write_atomic(path, content.model_dump_json().encode())
        newest = sorted(path.parent.glob("*.json"), key=lambda other: other.stat().st_mtime, reverse=True)
        for old in newest[_KEPT:]:
            old.unlink(missing_ok=True)


if __name__ == "__main__":
    _answer(sys.argv[1:])
