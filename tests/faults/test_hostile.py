"""What a stranger's results folder may hold: none of it is executed, none of it takes memory or leaves its folder, and all of it is told.

Images, archives and arrays given to ``genbench evaluate`` are in test_images and test_evaluate, names in tables in leaderboard/,
edited values and swapped files in test_verify and leaderboard/test_check.
"""

import hashlib
import io
import json
import os
import pickle
import resource
import struct
import zipfile
import zlib

import numpy as np
import pytest

from genbench.arrays import read_drawn
from genbench.errors import GenbenchError
from genbench.grid import check_png
from genbench.leaderboard import build
from genbench.leaderboard.check import check
from genbench.records import read_record
from genbench.submit import submit
from genbench.supervisor import Supervisor
from genbench.verify import verify
from tests.leaderboard.published import honest, images, publish, results_run
from tests.tiny_runs import copied, edit, make_runs


class Evil:
    """Unpickled, it writes a canary."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something that was found in a result was executed"


@pytest.fixture(scope="module")
def supervisor():
    return Supervisor()


@pytest.fixture(scope="module")
def made(tmp_path_factory, supervisor):
    return make_runs(tmp_path_factory.mktemp("made"), supervisor)


def pickled_npz(canary) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.array([Evil(canary)], dtype=object))
    return buffer.getvalue()


def npz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(shape, dtype="|u1", size=0) -> bytes:
    """An npy file that claims a shape and holds `size` zeros."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(size)


def png(width, height) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_a_pickle_as_samples_or_checkpoint_is_told_and_not_executed(made, tmp_path, supervisor, canary):
    run = copied(made[1][0], tmp_path)
    (run / "samples.npz").write_bytes(pickled_npz(canary))
    poison = pickle.dumps(Evil(canary))
    (run / "checkpoint.safetensors").write_bytes(poison)
    digest = hashlib.sha256(poison).hexdigest()
    note = json.loads((run / "checkpoint.json").read_text()) | {"sha256": digest}
    (run / "checkpoint.json").write_text(json.dumps(note))
    edit(run, lambda record: record["digests"].update(checkpoint=digest))
    found = verify(run, supervisor, model=made[0])
    assert any("samples: samples.npz holds pickled objects" in line for line in found.differs), found.differs
    assert any(line.startswith("sampling: drawing from the checkpoint failed") for line in found.differs), found.differs


def test_a_pickle_among_published_files_is_told_and_not_executed(tmp_path, canary):
    (folder,) = publish(tmp_path, honest())
    (folder / "samples.npz").write_bytes(pickled_npz(canary))
    (folder / "checkpoint.safetensors").write_bytes(pickle.dumps(Evil(canary)))
    (folder / "verification-1-20260101T000000Z-00000000.json").write_bytes(pickle.dumps(Evil(canary)))
    (folder / "submission.json").write_bytes(pickle.dumps(Evil(canary)))
    build(tmp_path / "records", tmp_path)
    found = check(tmp_path).faults
    for says in ("holds pickled objects", "checkpoint.safetensors has another digest", "verification-1-", "submission.json"):
        assert any(says in line for line in found), (says, found)


def test_a_pickle_is_not_submitted(tmp_path, canary):
    run = results_run(tmp_path / "results")
    (run / "samples.npz").write_bytes(pickled_npz(canary))
    with pytest.raises(GenbenchError, match="pickled objects"):
        submit([run], tmp_path / "board")


GOOD = npy(images(0, 20))
ARCHIVES = {
    "a member that climbs out": (npz({"../images.npy": GOOD}), "which is not what a run writes"),
    "an absolute member": (npz({"/elsewhere/images.npy": GOOD}), "which is not what a run writes"),
    "one member too many": (npz({"images.npy": GOOD, "more.npy": GOOD}), "which is not what a run writes"),
    "nothing": (npz({}), "which is not what a run writes"),
    "a bomb": (npz({"images.npy": header((10**8, 1, 8, 8), size=1 << 24)}), "bytes: refused as a decompression bomb"),
    "a claim that the file does not hold": (npz({"images.npy": header((300, 1, 8, 8), size=100)}), "not what the file holds"),
    "a negative shape": (npz({"images.npy": header((-1, 1, 8, 8), size=64)}), "samples.npz"),
    "floats": (npz({"images.npy": npy(np.zeros((20, 1, 8, 8), np.float32))}), "float32"),
    "images of another size": (npz({"images.npy": npy(np.zeros((20, 1, 9, 9), np.uint8))}), "not what a run on this track draws"),
    "more images than were drawn": (npz({"images.npy": npy(images(0, 301))}), "bomb|not what a run on this track draws"),
    "no archive": (b"PK\x03\x04 and no more", "damaged or no array file"),
    "a bare array": (GOOD, "damaged or no array file"),
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_samples_that_no_run_writes_are_refused_before_memory_is_spent(tmp_path, what):
    content, says = ARCHIVES[what]
    path = tmp_path / "samples.npz"
    path.write_bytes(content)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GenbenchError, match=says):
        read_drawn(path, 300, 8)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # kB


def test_the_same_name_twice_in_an_archive_is_refused(tmp_path):
    path = tmp_path / "samples.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", GOOD)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("images.npy", npy(images(1, 20)))
    with pytest.raises(GenbenchError, match="not what a run writes"):
        read_drawn(path, 300, 8)


def test_links_are_not_followed(made, tmp_path, supervisor):
    run = copied(made[1][0], tmp_path)
    for name in ("samples.npz", "checkpoint.safetensors"):
        target = tmp_path / name
        (run / name).rename(target)
        os.symlink(target, run / name)
    found = verify(run, supervisor, tier=1)
    assert any("samples: samples.npz is no plain file" in line for line in found.differs)
    with pytest.raises(GenbenchError, match=r"holds no checkpoint\.safetensors"):
        verify(run, supervisor, tier=2, model=made[0])
    with pytest.raises(GenbenchError, match="no plain file"):
        submit([run], tmp_path / "board")


@pytest.mark.parametrize(("width", "height"), [(5000, 5000), (20_000, 10_000), (60_000, 60_000)])
def test_a_picture_that_claims_too_much_is_refused_everywhere(tmp_path, width, height):
    run = results_run(tmp_path / "results")
    (run / "grid.png").write_bytes(png(width, height))
    with pytest.raises(GenbenchError, match="refused as a decompression bomb"):
        check_png(run / "grid.png")
    with pytest.raises(GenbenchError, match="refused as a decompression bomb"):
        submit([run], tmp_path / "board")
    (folder,) = publish(tmp_path / "published", honest())
    (folder / "grid.png").write_bytes(png(width, height))
    assert any("decompression bomb" in line for line in check(tmp_path / "published", tables=False).faults)


def test_a_record_that_nests_without_end_is_one_line(tmp_path):
    path = tmp_path / "record.json"
    for content in ("[" * 100_000, '{"spec":' * 50_000):
        path.write_text(content)
        with pytest.raises(GenbenchError, match=r"record .*record\.json"):
            read_record(path)


def test_a_checkpoints_note_is_strict_json(made, tmp_path, supervisor):
    run = copied(made[1][0], tmp_path)
    (run / "samples.npz").unlink()  # its scores are not the matter here
    for content in (b'{"extra": {}, "extra": 1}', b'{"parameters": NaN}', b"[" * 100_000, b"\xff"):
        (run / "checkpoint.json").write_bytes(content)
        found = verify(run, supervisor, tier=2, model=made[0])
        assert any(line.startswith("checkpoint: checkpoint.json") for line in found.differs), found.differs
