"""Runs on a storage: the record comes last, the first counts, one execution's files never stand beside another's record, and what an
unfinished one spent is charged wherever it goes on."""

import threading
import time
from pathlib import Path

import pytest

from genbench.errors import GenbenchError
from genbench.records import ModelRef, RunRecord, RunSpec, Store
from genbench.sweep import storage as module
from genbench.sweep.storage import Storage
from genbench.track import Track
from genbench.witness import Witness, noted

pytest.importorskip("fsspec", reason="the extra genbench[ray] is not installed")

TRACK = Track(name="t", dataset="digits", size=8, budget="5steps", num_samples=50, extractor="digits-cnn")
MODEL = ModelRef(name="m", family="gan", source="s", distribution="d", version="1", digest="x")
SPEC = RunSpec(model=MODEL, track=TRACK, track_hash=TRACK.hash, seed=0, device="cpu-2")
RUN = SPEC.folder


@pytest.fixture(params=["file", "memory", "s3"])
def storage(request, tmp_path):
    """A file system, one with no folders, as object storage is, and an object storage."""
    match request.param:
        case "file":
            return Storage((tmp_path / "far").as_uri())
        case "memory":
            return Storage(f"memory://{tmp_path.name}")
    return Storage(f"{request.getfixturevalue('s3')}/{tmp_path.name}")


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


def test_who_looks_just_before_another_is_done_leaves_its_files(storage, tmp_path, monkeypatch):
    """There is no record yet when the second looks, and no claim any more when it looks for one."""
    first, second, truly = finished(tmp_path / "a", "a"), finished(tmp_path / "b", "b"), Storage.read

    def first_is_done(self, name):
        if name.endswith("claim"):
            monkeypatch.setattr(Storage, "read", truly)
            storage.commit(RUN, first)
        return truly(self, name)

    monkeypatch.setattr(Storage, "read", first_is_done)
    storage.commit(RUN, second)
    assert storage.read(f"{RUN.as_posix()}/samples.npz") == b"a"
    assert names(storage) == {"record.json", "samples.npz", "curve.csv", "attempts/1/train.log"}


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


def trained(results, attempt, seconds, *states):
    """A results folder in which an unfinished run has states, by steps and when they were made, and has spent so many seconds."""
    folder = results / RUN
    for state in states:
        (folder / "state" / state).mkdir(parents=True, exist_ok=True)
        for name in ("state.json", "state.safetensors"):
            (folder / "state" / state / name).write_text(f"{state} {results.name}")
    Witness(folder / "attempts" / str(attempt)).note(seconds, 10, 100)
    return results


def test_what_a_run_saves_and_spends_is_there_for_another_node_and_only_what_changed_is_put(storage, tmp_path, monkeypatch):
    put, sent = [], {}
    monkeypatch.setattr(storage, "_put", lambda remote, content, old=storage._put: (put.append(remote), old(remote, content)))
    monkeypatch.setattr(storage, "_upload", lambda local, remote, old=storage._upload: (put.append(remote), old(local, remote)))
    first = trained(tmp_path / "a", 1, 5.0, "010-001", "020-002")
    (first / RUN / "state" / ".new-7").mkdir()
    (first / RUN / "state" / ".new-7" / "state.json").write_text("half")
    storage.save(RUN, first, sent)
    assert names(storage) == {"state/020-002/state.json", "state/020-002/state.safetensors", "attempts/1/clock"}
    assert storage.saved_steps(RUN) == 20
    assert put[-1].endswith("attempts/1/clock")  # what it spent comes after what it has for it
    put.clear()
    storage.save(RUN, first, sent)
    storage.note(RUN, first, sent)
    assert put == []
    trained(first, 1, 7.0, "030-003")
    storage.note(RUN, first, sent)
    assert [remote.rpartition("/")[2] for remote in put] == ["clock"]
    storage.save(RUN, first, sent)
    trained(first, 1, 9.0, "040-004")
    storage.save(RUN, first, sent)
    states = {name.split("/")[1] for name in names(storage) if name.startswith("state")}
    assert states == {"030-003", "040-004"}
    storage.restore(RUN, tmp_path / "b")
    assert noted(tmp_path / "b" / RUN / "attempts" / "1").seconds == 9.0
    assert {path.name for path in (tmp_path / "b" / RUN / "state").iterdir()} == states


def test_of_two_copies_of_a_run_the_one_that_spent_more_goes_on(storage, tmp_path):
    """A node that a run comes back to has what it knew of it once; another went on meanwhile."""
    here = trained(tmp_path / "a", 1, 30.0, "010-001")
    (here / RUN / "lease").write_text("mine")
    storage.save(RUN, trained(tmp_path / "b", 2, 20.0, "020-002"))
    storage.restore(RUN, here)
    folder = here / RUN
    assert {path.name for path in folder.iterdir()} == {"attempts", "state", "lease"}
    assert {path.name for path in (folder / "state").iterdir()} == {"020-002"}
    assert noted(folder / "attempts" / "2").seconds == 20.0
    trained(here, 2, 21.0, "030-003")
    storage.restore(RUN, here)
    assert {path.name for path in (folder / "state").iterdir()} == {"020-002", "030-003"}
    assert noted(folder / "attempts" / "2").seconds == 21.0


def test_a_restore_that_was_cut_short_is_done_again(storage, tmp_path, monkeypatch):
    storage.save(RUN, trained(tmp_path / "a", 1, 5.0, "010-001"))
    get = Storage._get

    def dies(self, path, local):
        if path.name == "clock":
            raise KeyboardInterrupt
        get(self, path, local)

    monkeypatch.setattr(Storage, "_get", dies)
    with pytest.raises(KeyboardInterrupt):
        storage.restore(RUN, tmp_path / "b")
    monkeypatch.setattr(Storage, "_get", get)
    storage.restore(RUN, tmp_path / "b")
    assert noted(tmp_path / "b" / RUN / "attempts" / "1").seconds == 5.0
    assert (tmp_path / "b" / RUN / "state" / "010-001" / "state.json").exists()


def test_a_state_that_its_training_prunes_meanwhile_costs_none_that_is_there(storage, tmp_path, monkeypatch):
    sent, upload = {}, Storage._upload
    first = trained(tmp_path / "a", 1, 5.0, "010-001")
    storage.save(RUN, first, sent)

    def pruned(self, local, remote):
        local.unlink()
        upload(self, local, remote)

    trained(first, 1, 6.0, "020-002")
    monkeypatch.setattr(Storage, "_upload", pruned)
    storage.save(RUN, first, sent)
    assert {name for name in names(storage) if name.startswith("state")} == {"state/010-001/state.json", "state/010-001/state.safetensors"}


def test_with_a_record_nothing_is_left_of_what_was_saved_and_spent(storage, tmp_path):
    storage.save(RUN, trained(tmp_path / "a", 1, 5.0, "010-001"))
    storage.commit(RUN, finished(tmp_path / "b", "b"))
    assert names(storage) == {"record.json", "samples.npz", "curve.csv", "attempts/1/train.log"}
    storage.save(RUN, trained(tmp_path / "c", 2, 5.0, "010-001"))  # by one that was out of sight, and finds the record when it ends
    storage.commit(RUN, finished(tmp_path / "c", "c"))
    assert names(storage) == {"record.json", "samples.npz", "curve.csv", "attempts/1/train.log"}


@pytest.mark.parametrize("storage", ["file", "s3"], indirect=True)
def test_of_many_that_create_one_object_at_once_one_succeeds(storage):
    for number in range(5):
        ready, answers = threading.Barrier(8), {}

        def create(who, ready=ready, answers=answers, number=number):
            ready.wait()
            answers[who] = storage._create(storage._path(RUN, f"claim-{number}"), who)

        threads = [threading.Thread(target=create, args=(str(who).encode(),)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        (winner,) = [who for who, created in answers.items() if created]
        assert storage.read(f"{RUN.as_posix()}/claim-{number}") == winner


@pytest.mark.parametrize("error", [OSError(5, "An error occurred (PreconditionFailed)"), RuntimeError("HTTP 412")])
def test_where_a_storage_words_a_failed_condition_its_own_way_the_first_still_counts(tmp_path, monkeypatch, error):
    storage = Storage(f"memory://{tmp_path.name}")

    def refuses(path, value, mode="overwrite", old=storage._fs.pipe_file):
        if mode == "create":
            raise error
        old(path, value)

    monkeypatch.setattr(storage._fs, "pipe_file", refuses)
    with pytest.raises(type(error)):  # where there is none, it was another fault
        storage._create(storage._path(RUN, "claim"), b"mine")
    storage.write(f"{RUN.as_posix()}/claim", b"another")
    assert storage._create(storage._path(RUN, "claim"), b"mine") is False
    assert storage.read(f"{RUN.as_posix()}/claim") == b"another"


def test_what_no_protocol_is_made_of_is_said_in_one_line():
    with pytest.raises(GenbenchError, match=r"storage 'nosuch://x': .*s3://bucket/folder") as error:
        Storage("nosuch://x")
    assert "\n" not in str(error.value)


def test_a_storage_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GenbenchError, match="can't be written"):
        Storage((Path(tmp_path) / "file" / "below").as_uri()).write("x", b"")


def test_another_runs_record_is_set_aside_and_the_run_is_open(storage, tmp_path):
    other = SPEC.model_copy(update={"seed": 1})
    storage.commit(RUN, finished(tmp_path / "a", "a"))
    content = storage.read(f"{RUN.as_posix()}/record.json")
    storage.write(f"{other.folder.as_posix()}/record.json", content)
    storage.fetch(other.folder, tmp_path / "b")
    assert Store(tmp_path / "b").get(other) is None
    assert storage.record(other.folder) is None
    assert not storage.has_record(other.folder)
    assert any("damaged-" in path.name for path in storage._below(other.folder))


def test_one_that_is_done_is_not_set_aside(storage, tmp_path):
    storage.commit(RUN, finished(tmp_path / "a", "a"))
    storage.set_aside(RUN)
    assert storage.has_record(RUN)


def test_a_retry_begins_anew_on_a_node_that_has_what_failed(storage, tmp_path):
    storage.commit(RUN, finished(tmp_path / "a", "a", status="error"))
    storage.set_aside(RUN)
    node = tmp_path / "node"

    def works(steps):
        (node / RUN / "state" / f"{steps}-1").mkdir(parents=True)
        (node / RUN / "state" / f"{steps}-1" / "state.json").write_text("x")
        Witness(node / RUN / "attempts" / str(steps)).note(60.0, steps, 1)

    works(1)  # of the run that failed
    storage.forget_failed(RUN, node)
    assert not (node / RUN / "state").exists()
    assert noted(node / RUN / "attempts" / "1") is None
    works(2)  # of its retry, which is interrupted and comes back
    storage.forget_failed(RUN, node)
    assert (node / RUN / "state" / "2-1").exists()
    assert noted(node / RUN / "attempts" / "2").seconds == 60.0


def test_whether_a_storage_can_be_written_is_seen_by_writing(storage, monkeypatch):
    assert storage.can_write()
    assert not storage.finished([TRACK])

    def away(*args, **more):
        raise ConnectionError("no route")

    monkeypatch.setattr(Storage, "_put", away)
    assert not storage.can_write()
