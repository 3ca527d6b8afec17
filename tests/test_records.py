import errno
import json
import os

import pytest

import genbench
from genbench.errors import GenbenchError
from genbench.records import (
    CurvePoint,
    ModelRef,
    RunRecord,
    RunSpec,
    Score,
    Spent,
    Store,
    Throughput,
    curve_csv,
    read_record,
    safe_name,
    write_atomic,
)
from genbench.track import Track

TRACK = Track(name="t", dataset="digits", size=8, budget="5steps", num_samples=50, extractor="digits-cnn")


def make_record(seed=0, status="done", name="m", **changes):
    model = ModelRef(name=name, family="gan", source="s", distribution="d", version="1", digest="x", hparams={"lr": 0.1}, **changes)
    spec = RunSpec(model=model, track=TRACK, track_hash=TRACK.hash, seed=seed, device="cpu-2")
    scores = (Score(name="fid", value=3.25 + seed, better="lower", floor=1.0, extractor="digits-cnn", split="test"),)
    spent = Spent(budget="5steps", seconds=1.5, steps=5, images=320)
    return RunRecord(
        spec=spec, status=status, started="2026-01-01T00:00:00+00:00", scores=scores, spent=spent, throughput=Throughput(train=213.0)
    )


def test_a_record_comes_back_as_it_was(tmp_path):
    store, record = Store(tmp_path), make_record()
    path = store.commit(record)
    assert path.relative_to(tmp_path).as_posix() == f"runs/t/m/0-{record.spec.hash}/record.json"
    assert store.get(record.spec) == record == read_record(path)
    assert list(store) == [record]


def test_the_first_commit_wins(tmp_path):
    store = Store(tmp_path)
    store.commit(make_record())
    store.commit(make_record(status="error"))
    assert store.get(make_record().spec).status == "done"


def test_of_commits_at_the_same_moment_the_first_wins(tmp_path, monkeypatch):
    """Both have seen that there is no record when the other's comes."""
    from pathlib import Path

    store, first, second = Store(tmp_path), make_record(), make_record(status="error")
    store.commit(first)
    monkeypatch.setattr(Path, "exists", lambda self: False)
    path = store.commit(second)
    assert read_record(path).status == "done"
    assert [found.name for found in path.parent.iterdir()] == ["record.json"]


def test_the_status_alone_is_what_the_record_says(tmp_path):
    store, record = Store(tmp_path), make_record(status="oom")
    assert store.status(record.spec) is None
    path = store.commit(record)
    assert store.status(record.spec) == "oom"
    for damaged in ("{", "[]", '{"status": "fine"}', '{"status": ["done"]}', "{}"):
        path.write_text(damaged)
        assert store.status(record.spec) is None


def test_records_are_listed_in_the_order_of_their_folders_wherever_they_are(tmp_path):
    places = ["runs/t/m/10-a", "runs/t/m/2-a", "runs/t/m-b/0-a", "runs/t/m/2-a/attempts/1", "elsewhere", "elsewhere/deep/er", ""]
    for place in places:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "record.json").write_text("{}")
    (tmp_path / "runs/t/m/3-a/attempts/1").mkdir(parents=True)
    found = Store(tmp_path).paths()
    assert found == sorted(path for path in tmp_path.glob("**/record.json") if "attempts" not in path.parts)
    assert len(found) == len(places) - 1
    assert Store(tmp_path / "nowhere").paths() == []


def test_what_makes_two_runs_the_same_run():
    spec = make_record().spec
    assert spec.hash == make_record(seed=3).spec.hash
    assert spec.hash != make_record(name="other").spec.hash
    assert spec.hash != make_record(changed={"lr": 0.2}).spec.hash
    for change in ({"device": "cpu-4"}, {"track_hash": "ffffffff"}):
        assert spec.hash != spec.model_copy(update=change).hash


def test_records_are_strict_json(tmp_path):
    with pytest.raises(ValueError, match="strict JSON"):
        Score(name="fid", value=float("nan"), better="lower")
    path = Store(tmp_path).commit(make_record())
    text = path.read_text()
    for damaged, says in [
        (text.replace("3.25", "NaN"), "NaN is not strict JSON"),
        (text.replace('"status"', '"started": "x", "status"'), "duplicate key 'started'"),
        (text[: len(text) // 2], "record"),
        ("", "record"),
        (text.replace('"reason"', '"raeson"'), "raeson"),
        ("[1]", "record"),
    ]:
        path.write_text(damaged)
        with pytest.raises(GenbenchError, match=says) as error:
            read_record(path)
        assert str(path) in str(error.value)


def test_a_damaged_record_is_set_aside_and_the_run_is_open_again(tmp_path):
    store, record = Store(tmp_path), make_record()
    path = store.commit(record)
    path.write_text("{")
    assert store.get(record.spec) is None
    assert path.with_name("record.damaged.json").read_text() == "{"
    assert not path.exists()


@pytest.mark.parametrize("name", ["../../x", "a/b", "<script>", "=HYPERLINK()", "..", "", "a\nb", "a|b"])
def test_names_stay_inside_their_folder(tmp_path, name):
    assert (tmp_path / safe_name(name)).resolve().parent == tmp_path.resolve()
    assert "/" not in safe_name(name)
    assert safe_name(name)


def test_an_unwritable_results_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GenbenchError, match="--results DIR"):
        Store(tmp_path / "file" / "results").prepare()


def test_atomic_writes_leave_no_temporary_file(tmp_path):
    write_atomic(tmp_path / "deep" / "x", b"1")
    write_atomic(tmp_path / "deep" / "x", b"2")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "deep").iterdir()] == [("x", b"2")]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    import os

    write_atomic(tmp_path / "x", b"1")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_atomic(tmp_path / "x", b"2")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"1"


def test_names_of_losses_are_no_formulas_in_the_curve():
    losses = {"loss_D": -0.5, '=HYPERLINK("http://x.example")': 1.0, "@SUM(A1)": None, "a\nb": 2.0}
    head, line, *rest = curve_csv([CurvePoint(progress=0.5, seconds=1.5, steps=3, images=12, fid=None, losses=losses)]).split(b"\n")
    assert head == b"""progress,seconds,steps,images,fid,"'=HYPERLINK(""http://x.example"")",'@SUM(A1),a b,loss_D"""
    assert (line, rest) == (b"0.5,1.5,3,12,,1.0,,2.0,-0.5", [b""])


def test_load_gives_a_row_a_run(tmp_path):
    store = Store(tmp_path)
    for seed in (0, 1):
        store.commit(make_record(seed))
    frame = genbench.load(tmp_path)
    assert list(frame["seed"]) == [0, 1]
    assert list(frame["fid"]) == [3.25, 4.25]
    assert set(frame["hp_lr"]) == {0.1}
    assert set(frame["spent_images"]) == {320}
    assert json.loads(frame.to_json(orient="records"))[0]["track"] == "t"


def test_load_has_a_column_for_every_score_of_every_extractor(tmp_path):
    record = make_record()
    others = [Score(name="fid", value=7.5, better="lower", extractor="pixels-pca"), Score(name="w1", value=0.5, better="lower")]
    Store(tmp_path).commit(record.model_copy(update={"scores": (*record.scores, *others)}))
    (row,) = genbench.load(tmp_path).to_dict("records")
    assert {key: row.get(key) for key in ("fid", "fid@pixels-pca", "w1")} == {"fid": 3.25, "fid@pixels-pca": 7.5, "w1": 0.5}


@pytest.mark.parametrize(("name", "says"), [("nowhere", "does not exist"), ("file", "is a file; name the folder")])
def test_load_of_no_folder_is_an_error(tmp_path, name, says):
    (tmp_path / "file").write_text("{}")
    with pytest.raises(GenbenchError, match=says):
        genbench.load(str(tmp_path / name))


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_record_that_cannot_be_read_at_the_moment_stays_where_it_is(tmp_path, monkeypatch, error):
    record, store = make_record(), Store(tmp_path)
    path = store.commit(record)

    def fails(self):
        raise OSError(error, os.strerror(error), str(self))

    with monkeypatch.context() as patched:
        patched.setattr(type(path), "read_bytes", fails)
        with pytest.raises(GenbenchError, match=r"can't be read: .*; the same command goes on once it can"):
            store.get(record.spec)
    assert [one.name for one in path.parent.iterdir()] == ["record.json"]
    assert store.get(record.spec) == record


def test_of_two_that_find_a_damaged_record_one_sets_it_aside(tmp_path, monkeypatch):
    record, store = make_record(), Store(tmp_path)
    path = store.commit(record)
    path.write_text("{")

    def another_was_faster(self):
        self.replace(self.with_name("record.damaged.json"))
        return b"{"

    monkeypatch.setattr(type(path), "read_bytes", another_was_faster)
    assert store.get(record.spec) is None
    assert [one.name for one in path.parent.iterdir()] == ["record.damaged.json"]


def test_a_record_that_nests_without_end_has_no_status(tmp_path):
    record, store = make_record(), Store(tmp_path)
    path = store.commit(record)
    path.write_text("[" * 100_000)
    assert store.status(record.spec) is None
    assert store.get(record.spec) is None
