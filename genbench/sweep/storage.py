"""Runs on object storage, for nodes that share no folder: the layout of a results folder, the record last, the first record counts.

Whatever fsspec reaches will do: ``s3://bucket/night``, ``gs://…``, ``file:///mnt/…``. A claim, an object that its holder keeps changing,
lets one process at a time put a finished run there, so that no record ever stands beside the samples of another execution.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from genbench import lease
from genbench.errors import GenbenchError
from genbench.records import read_record, safe_name, write_once
from genbench.track import Track

STALE = 600.0
"""Seconds without a change after which a claim counts as abandoned; a single file takes less."""
LOOK = 2.0
"""Seconds between two looks at another's claim."""
RECORD, CLAIM = "record.json", "claim"
HEAVY = ("samples.npz", "checkpoint.safetensors", "checkpoint.json")
"""Files that stay on the storage: tables and pages do without."""


class Storage:
    """A place that every node and the driver can read and write."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError:
            raise GenbenchError("storage needs fsspec: pip install genbench[ray]") from None
        self.url = url
        try:
            # other processes write here too: nothing that was listed may be remembered
            found = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise GenbenchError(f"storage {url!r}: {error}; it takes s3://bucket/folder, gs://…, file:///folder") from None
        self._fs: Any = found[0]
        self._root = str(found[1]).rstrip("/")

    def write(self, name: str, content: bytes) -> None:
        """Put a small object at `name`, whatever is there. Raises GenbenchError where the storage can't be written."""
        try:
            self._put(f"{self._root}/{name}", content)
        except Exception as error:  # each protocol has its own
            raise GenbenchError(f"storage {self.url} can't be written: {type(error).__name__}: {error}") from None

    def read(self, name: str) -> bytes | None:
        """The object at `name`; None where there is none."""
        with contextlib.suppress(FileNotFoundError):
            return bytes(self._fs.cat_file(f"{self._root}/{name}"))
        return None

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, those that are there."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._root}/{name}")

    def finished(self, tracks: Iterable[Track]) -> set[Path]:
        """Folders, relative to a results folder, of the runs of these tracks that have a record here."""
        found: set[Path] = set()
        for name in sorted({safe_name(track.name) for track in tracks}):
            for path in self._below(Path("runs") / name):
                if len(path.parts) == 5 and path.name == RECORD:
                    found.add(path.parent)
        return found

    def has_record(self, run: Path) -> bool:
        """Whether there is a record that can be read; one that cannot is set aside."""
        with self._local_copy(run / RECORD) as copy:
            if copy is None:
                return False
            if self._valid(copy):
                return True
        with contextlib.suppress(FileNotFoundError):
            self._fs.mv(self._path(run, RECORD), self._path(run, f"damaged-{uuid.uuid4().hex[:8]}.json"))
        return False

    def commit(self, run: Path, results: Path) -> None:
        """Put a finished run of the results folder here, its record last, unless it has one here; then that is the record that counts.

        Returns when there is one, ours or another's. A damaged one is set aside.
        """
        token, seen, since = uuid.uuid4().hex, b"", time.monotonic()
        while not self.has_record(run):
            claimed = self.read(f"{run.as_posix()}/{CLAIM}")
            if claimed is not None and not claimed.startswith(token.encode()):
                if claimed != seen:
                    seen, since = claimed, time.monotonic()
                if time.monotonic() - since < STALE:
                    time.sleep(LOOK)
                    continue
                self._put(self._path(run, CLAIM), token.encode())
            elif claimed is None and not self._create(self._path(run, CLAIM), token.encode()):
                continue
            self._put_all(run, results, token)
            if (self.read(f"{run.as_posix()}/{CLAIM}") or b"").startswith(token.encode()):
                self._create(self._path(run, RECORD), (results / run / RECORD).read_bytes())
                self.remove([f"{run.as_posix()}/{CLAIM}"])
                self._forget_state(run)

    def fetch(self, run: Path, results: Path) -> None:
        """Bring a finished run into a results folder, its record last and without its `HEAVY` files. A damaged record is set aside."""
        for path in self._below(run):
            if path.parent == run and path.name not in (*HEAVY, CLAIM, RECORD):
                self._get(path, results / path)
        with self._local_copy(run / RECORD) as copy:
            if copy is not None and self._valid(copy):
                write_once(results / run / RECORD, copy.read_bytes())

    def save(self, run: Path, results: Path) -> None:
        """Put what an unfinished run has here, so that it can go on elsewhere."""
        for path in _files(results / run):
            self._upload(results / run / path, self._path(run, path.as_posix()))

    def restore(self, run: Path, results: Path) -> None:
        """Bring what an unfinished run had saved here into a results folder that knows nothing of it."""
        if (results / run).is_dir():
            return
        for path in self._below(run):
            if path.name not in (CLAIM, RECORD):
                self._get(path, results / path)

    def set_aside(self, run: Path) -> None:
        """Let a failed run be open again: its record becomes ``failed-….json``."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.mv(self._path(run, RECORD), self._path(run, f"failed-{uuid.uuid4().hex[:8]}.json"))

    # ---- what fsspec is asked for ------------------------------------------------------------------------------------

    def _path(self, run: Path, name: str) -> str:
        return f"{self._root}/{run.as_posix()}/{name}"

    def _below(self, folder: Path) -> list[Path]:
        """Files below a folder, relative to the root."""
        try:
            found = self._fs.find(f"{self._root}/{folder.as_posix()}")
        except FileNotFoundError:
            return []
        root = PurePosixPath(self._root)
        paths = [Path(PurePosixPath(str(path)).relative_to(root)) for path in found]
        return sorted(path for path in paths if ".." not in path.parts)

    @staticmethod
    def _valid(path: Path) -> bool:
        try:
            read_record(path)
        except GenbenchError:
            return False
        return True

    @contextlib.contextmanager
    def _local_copy(self, path: Path) -> Iterator[Path | None]:
        content = self.read(path.as_posix())
        if content is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="genbench-") as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(content)
            yield copy

    def _put_all(self, run: Path, results: Path, token: str) -> None:
        for number, path in enumerate(_files(results / run)):
            if path.as_posix() != RECORD:
                self._put(self._path(run, CLAIM), f"{token} {number}".encode())
                self._upload(results / run / path, self._path(run, path.as_posix()))

    def _upload(self, local: Path, remote: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.put_file(str(local), remote)
            return
        self._fs.makedirs(remote.rpartition("/")[0], exist_ok=True)  # a file system with real folders
        self._fs.put_file(str(local), remote)

    def _put(self, remote: str, content: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.pipe_file(remote, content)
            return
        self._fs.makedirs(remote.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(remote, content)

    def _create(self, remote: str, content: bytes) -> bool:
        """Put an object where there is none -> whether there was none. One step on S3 and file systems."""
        if "file" in ((self._fs.protocol,) if isinstance(self._fs.protocol, str) else self._fs.protocol):
            return write_once(Path(remote), content)
        try:
            self._fs.pipe_file(remote, content, mode="create")
        except FileExistsError:
            return False
        return True

    def _get(self, path: Path, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        temporary = local.with_name(f".{local.name}.{uuid.uuid4().hex}.tmp")
        try:
            self._fs.get_file(f"{self._root}/{path.as_posix()}", str(temporary))
            temporary.replace(local)
        finally:
            temporary.unlink(missing_ok=True)

    def _forget_state(self, run: Path) -> None:
        """What an interrupted execution had saved is of no use beside a record."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._path(run, "state"), recursive=True)


def _files(folder: Path) -> list[Path]:
    """Files of a run's folder, relative to it; none that only its holder needs."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if not path.name.startswith(".") and path.name != lease.NAME)
