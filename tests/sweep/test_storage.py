"""Runs on a storage: the record comes last, the first counts, and one execution's files never stand beside another's record."""

import threading
import time
from pathlib import Path

import pytest

from genbench.errors import GenbenchError
from genbench.records import ModelRef, RunRecord, RunSpec, Store
from genbench.sweep import storage as module
from genbench.sweep.storage import Storage
from genbench.track import Track

pytest.importorskip("fsspec", reason="the extra genbench[ray] is not installed")

TRACK = Track(name="t", dataset="digits", size=8, budget="5steps", num_samples=50, extractor="digits-cnn")
MODEL = ModelRef(name="m", family="gan", source="s", distribution="d", version="1", digest="x")
SPEC = RunSpec(model=MODEL, track=TRACK, track_hash=TRACK.hash, seed=0, device="cpu-2")
RUN = SPEC.folder


@pytest.fixture(params=["file", "memory"])
def storage(request, tmp_path):
    """A file system, and one with no folders, as object storage is."""
    url = (tmp_path / "far").as_uri() if request.param == "file" else f"memory://{tmp_path.name}"
    return Storage(url)


def finished(results, said, status="done"):
    """A results folder in which the run is finished, its samples saying who made them."""
    Store(results).commit(RunRecord(spec=SPEC, status=status, reason=said, started="now"))
    folder = results / RUN
    for name in ("samples.npz", "curve.csv", "attempts/1/train.log"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(said)
    (folder / "lease").write_text("mine")
    (folder / ".x.tmp").write_text("half")
    return results


def names(storage):
    return {path.relative_to(RUN).as_posix() for path in storage._below(RUN)}


def test_a_finished_run_goes_there_and_comes_back_without_what_is_heavy(storage, tmp_path):
    assert not storage.has_record(RUN)
    assert storage.finished([TRACK]) == set()
    storage.commit(RUN, finished(tmp_path / "a", "a"))
    assert names(storage) == {"record.json", "samples.npz", "curve.csv", "attempts/1/train.log"}
    assert storage.has_record(RUN)
    assert storage.finished([TRACK]) == {RUN}
    assert storage.finished([TRACK.model_copy(update={"name": "other"})]) == set()
    storage.fetch(RUN, tmp_path / "b")
    assert {path.name for path in (tmp_path / "b" / RUN).iterdir()} == {"record.json", "curve.csv"}
    assert Store(tmp_path / "b").get(SPEC).reason == "a"


def test_the_first_commit_counts_and_keeps_its_files(storage, tmp_path):
    storage.commit(RUN, finished(tmp_path / "a", "a"))
    storage.commit(RUN, finished(tmp_path / "b", "b"))
    assert storage.read(f"{RUN.as_posix()}/samples.npz") == b"a"
    storage.fetch(RUN, tmp_path / "c")
    assert Store(tmp_path / "c").get(SPEC).reason == "a"


def test_of_two_at_once_one_waits_and_finds_the_others_record(storage, tmp_path, monkeypatch):
    """The second comes when the first has put its samples but not yet its record."""
    monkeypatch.setattr(module, "LOOK", 0.05)
    first, second = finished(tmp_path / "a", "a"), finished(tmp_path / "b", "b")
    halfway, go_on = threading.Event(), threading.Event()
    put_all = Storage._put_all

    def slowly(self, run, results, token):
        put_all(self, run, results, token)
        if results == first:
            halfway.set()
            assert go_on.wait(20)

    monkeypatch.setattr(Storage, "_put_all", slowly)
    both = [threading.Thread(target=storage.commit, args=(RUN, results)) for results in (first, second)]
    both[0].start()
    assert halfway.wait(20)
    both[1].start()
    time.sleep(0.3)
    assert both[1].is_alive()
    assert storage.read(f"{RUN.as_posix()}/samples.npz") == b"a"
    go_on.set()
    for one in both:
        one.join(20)
    assert storage.read(f"{RUN.as_posix()}/samples.npz") == b"a"
    storage.fetch(RUN, tmp_path / "c")
    assert Store(tmp_path / "c").get(SPEC).reason == "a"


def test_a_claim_that_nobody_renews_is_taken_over(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.05)
    monkeypatch.setattr(module, "STALE", 0.4)
    storage.write(f"{RUN.as_posix()}/claim", b"of a node that died")
    storage.write(f"{RUN.as_posix()}/samples.npz", b"half of its sam")
    begun = time.monotonic()
    storage.commit(RUN, finished(tmp_path / "a", "a"))
    assert time.monotonic() - begun > 0.4
    assert storage.read(f"{RUN.as_posix()}/samples.npz") == b"a"
    assert "claim" not in names(storage)


def test_one_who_lost_its_claim_leaves_the_record_to_the_other(storage, tmp_path, monkeypatch):
    put_all = Storage._put_all

    def robbed(self, run, results, token):
        put_all(self, run, results, token)
        monkeypatch.setattr(Storage, "_put_all", put_all)
        self.write(f"{RUN.as_posix()}/claim", b"another")
        self.write(f"{RUN.as_posix()}/samples.npz", b"b")
        self._create(self._path(RUN, "record.json"), (finished(tmp_path / "b", "b") / RUN / "record.json").read_bytes())

    monkeypatch.setattr(Storage, "_put_all", robbed)
    storage.commit(RUN, finished(tmp_path / "a", "a"))
    storage.fetch(RUN, tmp_path / "c")
    assert Store(tmp_path / "c").get(SPEC).reason == "b"


def test_a_damaged_record_is_set_aside_and_the_next_commit_counts(storage, tmp_path):
    storage.write(f"{RUN.as_posix()}/record.json", b'{"schema')
    storage.fetch(RUN, tmp_path / "c")
    assert Store(tmp_path / "c").get(SPEC) is None
    storage.commit(RUN, finished(tmp_path / "a", "a"))
    assert storage.has_record(RUN)
    assert any(name.startswith("damaged-") for name in names(storage))


def test_a_failed_run_is_open_again_once_its_record_is_set_aside(storage, tmp_path):
    storage.commit(RUN, finished(tmp_path / "a", "a", "error"))
    storage.set_aside(RUN)
    assert not storage.has_record(RUN)
    storage.commit(RUN, finished(tmp_path / "b", "b"))
    storage.fetch(RUN, tmp_path / "c")
    assert Store(tmp_path / "c").get(SPEC).reason == "b"


def test_an_interrupted_run_goes_on_on_another_node_and_its_state_goes_with_the_record(storage, tmp_path):
    state = tmp_path / "a" / RUN / "state" / "100-abc"
    state.mkdir(parents=True)
    (state / "model.safetensors").write_text("weights")
    storage.save(RUN, tmp_path / "a")
    storage.restore(RUN, tmp_path / "b")
    assert (tmp_path / "b" / RUN / "state" / "100-abc" / "model.safetensors").read_text() == "weights"
    assert not storage.has_record(RUN)
    (tmp_path / "b" / RUN / "state" / "100-abc" / "model.safetensors").write_text("further")
    storage.restore(RUN, tmp_path / "b")  # what is here is further than what is there
    assert (tmp_path / "b" / RUN / "state" / "100-abc" / "model.safetensors").read_text() == "further"
    storage.commit(RUN, finished(tmp_path / "c", "c"))
    assert not any(name.startswith("state") for name in names(storage))


def test_what_no_protocol_is_made_of_is_said_in_one_line():
    with pytest.raises(GenbenchError, match=r"storage 'nosuch://x': .*s3://bucket/folder") as error:
        Storage("nosuch://x")
    assert "\n" not in str(error.value)


def test_a_storage_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GenbenchError, match="can't be written"):
        Storage((Path(tmp_path) / "file" / "below").as_uri()).write("x", b"")
