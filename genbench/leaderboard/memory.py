"""What a build need not do again: which files of a folder are already what the records give.

Kept in the user's cache, never in the folder itself: a published folder may come from others, who must not be able to say that
a page is up to date. Trusts digests of contents, no dates; without it a build makes everything, and the files are the same.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from genbench import places

_PACKAGE = Path(__file__).parents[1]


class Memory:
    """Parts of a published folder: each one's key (a digest of all that it depends on) and its files with their digests.

    Unless `lasting` it starts with nothing and leaves nothing behind.
    """

    def __init__(self, out: Path, lasting: bool) -> None:
        self.out = out
        self._lasting = lasting
        self._path = places.cache_folder() / "leaderboards" / f"{digest(str(out.resolve()).encode())[:16]}.json"
        self._known = _read(self._path) if lasting else {}
        self._now: dict[str, dict[str, Any]] = {}

    def holds(self, part: str, key: str) -> bool:
        """Whether the files of this part, made with this key, lie in the folder as they were written."""
        known = self._known.get(part)
        if known is None or known["key"] != key or not all(_matches(self.out / path, own) for path, own in known["files"].items()):
            return False
        self._now[part] = known
        return True

    def keep(self, part: str, key: str, files: Mapping[str, str]) -> None:
        """Remember what was written: path inside the folder -> SHA-256."""
        self._now[part] = {"key": key, "files": dict(files)}

    @property
    def files(self) -> list[str]:
        """Paths of all parts of this build."""
        return sorted(path for part in self._now.values() for path in part["files"])

    def close(self) -> None:
        """Remove what an earlier build wrote, nobody changed and this one no longer has; save. A cache that can't be written is none."""
        if not self._lasting:
            return
        ours = set(self.files)
        for part in self._known.values():
            for path, own in part["files"].items():
                if path not in ours and _matches(self.out / path, own):
                    with contextlib.suppress(OSError):
                        (self.out / path).unlink()
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write(self._path, json.dumps(self._now, separators=(",", ":")).encode())


def write(path: Path, content: bytes) -> None:
    """Write beside `path` and rename, unless it holds this very content: readers see the old file or the whole new one."""
    if _matches(path, digest(content)):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def digest(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


@functools.cache
def code_digest() -> str:
    """A digest of everything but records that decides what a page looks like: this package's text and the libraries it writes with."""
    found = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*")):
        if path.suffix in (".py", ".toml", ".j2", ".css", ".js"):
            found.update(f"{path.relative_to(_PACKAGE)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    for name in ("jinja2", "markupsafe", "matplotlib", "numpy", "scipy", "pillow", "pydantic"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.update(f"{name} {metadata.version(name)}\0".encode())
    return found.hexdigest()


def _matches(path: Path, own: str) -> bool:
    try:
        return digest(path.read_bytes()) == own
    except OSError:
        return False


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """What was kept, or nothing where that is missing or not as it was written."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        found = json.loads(path.read_text(encoding="utf-8"))
        inside = all(
            isinstance(part["key"], str) and all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in part["files"])
            for part in found.values()
        )  # fmt: skip
        return found if inside else {}
    return {}
