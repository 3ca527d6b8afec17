"""Runs on object storage, for nodes that share no folder: the layout of a results folder, the record last, the first record counts.

Whatever fsspec reaches will do: ``s3://bucket/night``, ``gs://…``, ``file:///mnt/…``. A claim, an object that its holder keeps changing,
lets one process at a time put a finished run there, so that no record ever stands beside the samples of another execution. An unfinished
run leaves there what it saved, and then what it spent: whoever goes on after the loss of its node is charged for it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from genbench import lease, states, witness
from genbench.errors import GenbenchError
from genbench.lease import BusyError
from genbench.records import read_record, safe_name, write_atomic, write_once
from genbench.track import Track

STALE = 600.0
"""Seconds without a change after which a claim counts as abandoned; a single file takes less."""
LOOK = 2.0
"""Seconds between two looks at another's claim."""
RECORD, CLAIM = "record.json", "claim"
HEAVY = ("samples.npz", "checkpoint.safetensors", "checkpoint.json")
"""Files that stay on the storage: tables and pages do without."""
Sent = dict[Path, object]
"""Files of an unfinished run that were put on the storage, and what tells whether they have changed since."""


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

    def can_write(self) -> bool:
        """Whether an object can be put here, and be taken away again."""
        name = f".probe-{uuid.uuid4().hex}"
        try:
            with self.reached():
                self.write(name, b"")
                self.remove([name])
        except GenbenchError:
            return False
        return True

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

    def record(self, run: Path) -> bytes | None:
        """The record, where there is one that can be read and is this run's; another is set aside."""
        with self._local_copy(run / RECORD) as copy:
            if copy is None:
                return None
            if _is_record_of(run, copy):
                return copy.read_bytes()
        with contextlib.suppress(FileNotFoundError):
            self._fs.mv(self._path(run, RECORD), self._path(run, f"damaged-{uuid.uuid4().hex[:8]}.json"))
        return None

    def has_record(self, run: Path) -> bool:
        """Whether there is a record that can be read."""
        return self.record(run) is not None

    def saved_steps(self, run: Path) -> int:
        """Steps of the furthest state of an unfinished run that is here (`genbench.states`)."""
        return states.steps(filter(None, (_state(path.relative_to(run)) for path in self._below(run / states.FOLDER))))

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
            if not self.has_record(run):  # who held the claim until just now may have put one before giving it back
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
            if copy is not None and _is_record_of(run, copy):
                write_once(results / run / RECORD, copy.read_bytes())

    def save(self, run: Path, results: Path, sent: Sent | None = None) -> None:
        """Put what an unfinished run has here, so that it can go on elsewhere: first its newest state, last what it spent.

        What is here already, as `sent` tells and is told, is not put again; of the states that were, the last `states.KEPT` stay.
        """
        sent = {} if sent is None else sent
        files = _files(results / run)
        newest = max(filter(None, map(_state, files)), key=states.order, default=None)
        if not self._put_changed(run, results, [path for path in files if _state(path) in (None, newest)], sent):
            return  # the training has pruned it by now, and those that are here are needed
        known = sorted({name for name in map(_state, sent) if name}, key=states.order, reverse=True)
        for path in [path for path in sent if _state(path) in known[states.KEPT :]]:
            self.remove([f"{run.as_posix()}/{path.as_posix()}"])
            del sent[path]

    def note(self, run: Path, results: Path, sent: Sent) -> None:
        """Put what an unfinished run has spent here, a few bytes, where that has changed."""
        self._put_changed(run, results, [path for path in _files(results / run) if path.name == witness.NAME], sent)

    def restore(self, run: Path, results: Path) -> None:
        """Bring what an unfinished run has here into a results folder, unless it has gone as far there or further. Its lease is ours."""
        there, folder = self._below(run), results / run
        if _files(folder) and self._spent(there) <= _spent(folder / "attempts"):
            return
        for path in folder.glob("*") if there else ():
            if not _hidden(path.relative_to(folder)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in sorted(there, key=lambda path: _spent_last(path.relative_to(run))):
            if path.name not in (CLAIM, RECORD):
                self._get(path, results / path)

    def forget_failed(self, run: Path, results: Path) -> None:
        """Remove what a results folder saved and spent of a run before its failed record was set aside here: a retry begins anew."""
        asides = [path for path in self._below(run) if path.parent == run and path.name.startswith("failed-")]
        unknown = [path for path in asides if not (results / path).exists()]
        if unknown:
            shutil.rmtree(results / run / states.FOLDER, ignore_errors=True)
            witness.forget(results / run / "attempts")
        for path in unknown:
            self._get(path, results / path)

    def set_aside(self, run: Path) -> None:
        """Let a failed run be open again: its record becomes ``failed-….json``. One that is done stays."""
        with self._local_copy(run / RECORD) as copy:
            if copy is not None and _is_record_of(run, copy) and read_record(copy).status == "done":
                return
        with contextlib.suppress(FileNotFoundError):
            self._fs.mv(self._path(run, RECORD), self._path(run, f"failed-{uuid.uuid4().hex[:8]}.json"))

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """Within the block what goes wrong between this machine's disk and the storage is a GenbenchError."""
        try:
            yield
        except (GenbenchError, BusyError):
            raise
        except Exception as error:  # each protocol has its own
            raise GenbenchError(f"storage {self.url} can't be read or written: {type(error).__name__}: {error}") from error

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
        return sorted(path for path in paths if not any(part.startswith(".") for part in path.parts))

    def _spent(self, there: Iterable[Path]) -> tuple[int, float]:
        """`_spent` of the files of a run that are here."""
        clocks = {int(path.parent.name): path for path in there if path.name == witness.NAME and path.parent.name.isdecimal()}
        if not clocks:
            return 0, 0.0
        last = max(clocks)
        with self._local_copy(clocks[last]) as copy:
            noted = witness.noted(copy.parent) if copy else None
        return last, noted.seconds if noted else 0.0

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

    def _put_changed(self, run: Path, results: Path, paths: Iterable[Path], sent: Sent) -> bool:
        """Put files of a run that are not here as they are, what it spent last -> whether all were still there."""
        for path in sorted(paths, key=_spent_last):
            local = results / run / path
            try:
                told: object = local.read_bytes() if path.name == witness.NAME else (local.stat().st_mtime_ns, local.stat().st_size)
                if sent.get(path) == told:
                    continue
                if isinstance(told, bytes):
                    self._put(self._path(run, path.as_posix()), told)
                else:
                    self._upload(local, self._path(run, path.as_posix()))
            except FileNotFoundError:
                if local.exists():
                    raise
                return False
            sent[path] = told
        return True

    def _upload(self, local: Path, remote: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.put_file(str(local), remote)
            return
        self._fs.makedirs(remote.rpartition("/")[0], exist_ok=True)  # a file system with real folders
        self._fs.put_file(str(local), remote)

    def _put(self, remote: str, content: bytes) -> None:
        if self._is_local:
            write_atomic(Path(remote), content)
            return
        with contextlib.suppress(FileNotFoundError):
            self._fs.pipe_file(remote, content)
            return
        self._fs.makedirs(remote.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(remote, content)

    def _create(self, remote: str, content: bytes) -> bool:
        """Put an object where there is none -> whether there was none. One step on S3 and file systems."""
        if self._is_local:
            return write_once(Path(remote), content)
        try:
            self._fs.pipe_file(remote, content, mode="create")
        except FileExistsError:
            return False
        except Exception:  # what a storage says of a condition that is not met, 412 or 409, each protocol words in its own way
            if not self._fs.exists(remote):
                raise
            return False
        return True

    @property
    def _is_local(self) -> bool:
        return "file" in ((self._fs.protocol,) if isinstance(self._fs.protocol, str) else self._fs.protocol)

    def _get(self, path: Path, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        temporary = local.with_name(f".{local.name}.{uuid.uuid4().hex}.tmp")
        try:
            self._fs.get_file(f"{self._root}/{path.as_posix()}", str(temporary))
            temporary.replace(local)
        finally:
            temporary.unlink(missing_ok=True)

    def _forget_state(self, run: Path) -> None:
        """What an unfinished execution had saved is of no use beside a record, and a retry is not charged for what it spent."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._path(run, states.FOLDER), recursive=True)
        self.remove(path.as_posix() for path in self._below(run / "attempts") if path.name == witness.NAME)


def _is_record_of(run: Path, path: Path) -> bool:
    """Whether a file is a whole record, and that of this run."""
    try:
        return read_record(path).spec.folder == run
    except GenbenchError:
        return False


def _files(folder: Path) -> list[Path]:
    """Files of a run's folder, relative to it; none that only its holder needs."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if not _hidden(path))


def _hidden(path: Path) -> bool:
    """Whether a path in a run's folder is the lease, or of a file or state that is being written."""
    return path.name == lease.NAME or any(part.startswith(".") for part in path.parts)


def _state(path: Path) -> str | None:
    """The name of the saved state that a file of a run's folder is part of (`genbench.states`)."""
    return path.parts[1] if path.parts[0] == states.FOLDER and len(path.parts) == 3 else None


def _spent_last(path: Path) -> tuple[bool, Path]:
    """Sorts files of a run's folder, what it spent last: so a copy that was cut short is seen to be behind."""
    return path.parts[0] == "attempts", path


def _spent(attempts: Path) -> tuple[int, float]:
    """The last attempt that trained, and what had been spent by then in seconds: of two copies of a run, the higher goes on."""
    found = ((int(path.name), witness.noted(path)) for path in attempts.glob("*") if path.name.isdecimal())
    return max(((number, noted.seconds) for number, noted in found if noted is not None), default=(0, 0.0))
