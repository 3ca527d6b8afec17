"""Arrays that cost time and follow from real images alone: kept by the digest of all they depend on, never by a name."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.records import write_atomic

Arrays = Mapping[str, NDArray[Any]]
_log = logging.getLogger(__name__)


class Kept:
    """Arrays kept by the digest of all they depend on: in memory and, where a folder is given, in npz files there."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._memory: dict[str, Arrays] = {}

    def get(self, key: Mapping[str, Any], compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of this key: from memory, from its file, or computed and stored. A damaged file is computed anew."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        if digest not in self._memory:
            found = self._read(digest)
            if found is None:
                found = dict(compute())
                self._write(digest, found)
            self._memory[digest] = found
        return self._memory[digest]

    def _read(self, digest: str) -> Arrays | None:
        if self.folder is None:
            return None
        path = self.folder / f"{digest}.npz"
        try:
            content = io.BytesIO(path.read_bytes())
        except OSError:
            return None
        try:
            with np.load(content, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}  # the zip's checksums are verified here
        except Exception as error:  # a flipped bit in a zip can raise almost anything
            _log.warning("cache file %s is damaged (%s); computing it anew", path, error)
            return None

    def _write(self, digest: str, arrays: Arrays) -> None:
        if self.folder is None:
            return
        buffer = io.BytesIO()
        named: dict[str, Any] = dict(arrays)
        np.savez(buffer, **named)
        try:
            write_atomic(self.folder / f"{digest}.npz", buffer.getvalue())
        except OSError as error:
            _log.warning("cache folder %s can't be written (%s); nothing is kept", self.folder, error.strerror or error)
