"""How an unfinished training's states lie in its run's folder: a folder each, named by steps and order, sealed. Imports no torch.

`genbench.resume` fills them and brings a training back from them; others read here how far it has come and what it was begun with. A
plugin may write there, too: what has another name is no state, what is not as it was sealed is damaged.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import time_ns
from typing import Any

FOLDER = "state"
"""In the folder of a run."""
KEPT = 2
"""States that are kept: a crash while one is written costs no more than the time since the one before."""
HEADER, TENSORS = "state.json", "state.safetensors"
_NAME = re.compile(r"([0-9]+)-([0-9]+)")


def new_name(folder: Path, steps: int) -> str:
    """A name for a state after so many steps: the newest of its folder, even where the clock was put back."""
    return f"{steps:012d}-{max(time_ns(), 1 + max(map(order, _names(folder)), default=0)):020d}"


def steps(names: Iterable[str]) -> int:
    """Steps of the furthest of these states; other names are passed over."""
    return max((int(found[1]) for found in map(_NAME.fullmatch, names) if found), default=0)


def order(name: str) -> int:
    """Which of several states is newer: a higher number; -1 for what is not the name of a state."""
    found = _NAME.fullmatch(name)
    return int(found[2]) if found else -1


def saved_steps(run: Path) -> int:
    """Steps of the furthest state in the folder of a run."""
    return steps(_names(run / FOLDER))


def saved(folder: Path) -> list[Path]:
    """The states in a folder, newest first, whole or damaged."""
    return [folder / name for name in sorted(_names(folder), key=order, reverse=True)]


def seal(header: dict[str, Any]) -> bytes:
    """A state's header -> JSON that says its own digest in the first line."""
    body = json.dumps(header, allow_nan=False).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def header(place: Path) -> dict[str, Any] | None:
    """The header of a state, or None where a byte of it is not as it was sealed. Its tensors may be damaged all the same."""
    with suppress(OSError, ValueError, RecursionError):
        digest, _, body = (place / HEADER).read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() == digest:
            said = json.loads(body)
            return said if isinstance(said, dict) else None
    return None


def begun_with(run: Path) -> dict[str, Any]:
    """What the bits of a half-done training depend on, as the newest state of a run's folder says; empty where there is none."""
    for place in saved(run / FOLDER):
        said = (header(place) or {}).get("made")
        if isinstance(said, dict):
            return said
    return {}


def saved_points(run: Path) -> list[dict[str, Any]]:
    """The curve so far, as the newest state of a run's folder tells it; empty where there is none."""
    for place in saved(run / FOLDER):
        said = (header(place) or {}).get("points")
        if isinstance(said, list):
            return [point for point in said if isinstance(point, dict)]
    return []


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*-*") if _NAME.fullmatch(path.name) and path.is_dir()]
