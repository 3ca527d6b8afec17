"""``genbench leaderboard check``: passes what is whole, and has one clear line for each thing that is not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genbench.errors import GenbenchError
from genbench.leaderboard import build
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.check import check
from genbench.leaderboard.consistency import record_faults
from genbench.records import Spent
from genbench.verification import write_verification
from tests.leaderboard.published import arrays, honest, images, publish
from tests.test_verification import compared, verification

OWN = Path(__file__).parents[2] / "leaderboards"


@pytest.fixture
def board(tmp_path):
    """Two rows of three and two seeds, one of them failed."""
    root = tmp_path / "board"
    rows = [honest(seed=seed) for seed in range(3)]
    rows += [honest("gan", 0, 12.0, family="gan"), honest("gan", 1, family="gan", status="diverged", digests={})]
    publish(root, *rows)
    return root


def one(board, name="vae", seed=0):
    return next((board / "records" / "digits-20s" / name).glob(f"{seed}-*"))


def edit(folder, change):
    value = json.loads((folder / "record.json").read_text())
    change(value)
    (folder / "record.json").write_text(json.dumps(value))


def faults(board, **options):
    return check(board, tables=False, **options).faults


def test_what_is_whole_passes_and_what_was_not_looked_at_is_counted(board):
    report = check(board, tables=False)
    assert (report.faults, report.records, report.files) == ([], 5, 0)
    assert report.unchecked == [
        "digests of checkpoints, which are not beside them, of 4 records",
        "digests of samples, which are not beside them, of 4 records",
        "grids, which no note names, of 5 records",
    ]


def test_tables_are_compared_byte_for_byte_and_pages_that_no_record_gives_are_told(board):
    written = build(board / "records", board)
    report = check(board)
    assert (report.faults, report.files) == ([], len(written))
    page = board / "digits-20s.md"
    page.write_text(page.read_text().replace("vae", "vea", 1))
    (board / "digits-20s.csv").unlink()
    (board / "extra.md").write_text("# mine")
    (board / "mine.txt").write_text("beside the site anybody may keep notes")
    for name in ("more.html", "track.js", "payload", ".hidden", "img/shot.exe"):
        (board / "site" / name).write_text("<p>")
    (board / "site" / "elsewhere").symlink_to(board)
    found = check(board).faults
    assert len(found) == 9
    told = ["digits-20s.md: not what the records give: line", "digits-20s.csv: not there", "extra.md: no record"]
    told += [f"site/{name}: no record gives it" for name in ("more.html", "track.js", "payload", ".hidden", "img/shot.exe", "elsewhere")]
    for says in told:
        assert any(line.startswith(says) for line in found), (says, found)


def budget(**changes):
    return lambda r: r["spent"].update(changes)


def score(name, **changes):
    return lambda r: next(s for s in r["scores"] if s["name"] == name).update(changes)


EDITS = {
    "more seconds than budget and grace": (budget(seconds=99.0, overshoot=79.0), "trained 99.0 s; budget and grace are 50 s"),
    "overshoot that the ledger denies": (budget(overshoot=0.0), "overshoot 0 recorded, 0.5 seconds by its own ledger"),
    "fewer images than steps": (budget(images=800), "100 steps of 16 images are more than the 800 images drawn"),
    "images that are no batches": (budget(images=1601), "1601 images drawn are no multiple of the batch of 16"),
    "an end before the budget's": (budget(seconds=9.0, overshoot=0.0), "finished_early is False after 9 of 20 seconds"),
    "another budget": (budget(budget="90s"), "charged a budget of 90s; the track's is 20s"),
    "a negative ledger": (budget(lost=-3.0), "a negative amount"),
    "precision above 1": (score("precision", value=1.5), "precision: 1.5 is no value of this score"),
    "negative FID": (score("fid", value=-2.0), "fid: -2 is no value of this score"),
    "an interval upside down": (score("fid", interval=[30.0, 20.0]), "its interval is upside down"),
    "more samples than the track draws": (score("fid", n_fake=5000), "of 5000 images; the track draws 300"),
    "another extractor": (score("fid", extractor="friendly-cnn"), "seen by friendly-cnn, which the track does not name"),
    "a score twice": (lambda r: r["scores"].append(r["scores"][0]), "fid stands there twice"),
    "no ranked score": (lambda r: r["scores"].pop(0), "it is done and has no fid"),
    "a floor of its own": (score("fid", floor=40.0), "fid: its floor is 40; under the same protocol"),
    "a curve that ends elsewhere": (lambda r: r["curve"].pop(), "its curve ends at step 50, not at the last, 100"),
    "hparams that it does not have": (lambda r: r["spec"]["model"]["hparams"].update(width=64), "changed hparam width=8 is not among"),
    "threads that its class does not have": (lambda r: r["environment"].update(threads=64), "device class cpu-2 ran with 64 threads"),
    "a track that ships otherwise": (
        lambda r: r["spec"]["track"].update(flip=True), "its track has other keys than the digits-20s that ships: flip",
    ),
    "a grace of its own": (lambda r: r["spec"]["track"].update(grace=1e6), "its track says grace = 1000000.0; digits-20s ships with 30.0"),
    "a target that its track lacks": (
        lambda r: r["spec"]["track"].update(target=1e6), "its track says target = 1000000.0; digits-20s ships with None",
    ),
    "published results of its own": (
        lambda r: r["spec"]["track"].update(published={"vae": {"fid": [0, 1]}}), "its track says published = {'vae': {'fid': (0.0, 1.0)}}",
    ),
    "no ledger": (lambda r: r.update(spent=None), "it is done and has no ledger"),
    "no environment": (lambda r: r.update(environment=None), "it is done and does not say where it ran"),
    "a class that names no threads": (lambda r: r["spec"].update(device="cpu"), "device class 'cpu' is none"),
    "a class with what nobody sees": (lambda r: r["spec"].update(device="cpu-2\u200b"), "device class 'cpu-2\\u200b' is none"),
    "one device counted as several": (lambda r: r["spec"].update(device="1x cpu-2"), "device class '1x cpu-2' is none"),
    "threads that devices can't share": (lambda r: r["spec"].update(device="3x cpu-0"), "device class 3x cpu-0 ran with 2 threads"),
    "an accelerator that it did not run on": (lambda r: r["spec"].update(device="NVIDIA H100"), "device class NVIDIA H100 ran on A proc"),
    "a score that overflows": (score("fid", value=1e200), "fid: a number beyond 1e+40"),
    "steps without end": (budget(steps=10**400), "ledger: a number beyond 1e+40"),
    "no digests": (lambda r: r.update(digests={}), "no digest of its samples"),
    "a moment that is none": (lambda r: r.update(started="yesterday"), "is no moment"),
    "another seed": (lambda r: r["spec"].update(seed=4), "belongs into digits-20s/vae/4-"),
    "other code": (lambda r: r["spec"]["model"].update(digest="e" * 64), "belongs into digits-20s/vae/0-"),
    "scores of a failure": (lambda r: r.update(status="oom"), "it ended as oom and has scores"),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_a_record_that_contradicts_itself_is_told(board, what):
    change, says = EDITS[what]
    edit(one(board), change)
    found = faults(board)
    assert any(line.startswith("digits-20s/vae/0-") and says in line for line in found), found


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"status"', '"started": "x", "status"', "duplicate key 'started'"),
        ("21.0", "NaN", "NaN is not strict JSON"),
        ('"reason"', '"raeson"', "raeson"),
        ("{", "[" * 100_000 + "{", "recursion"),
    ],
)
def test_a_record_that_is_no_record_is_told(board, old, new, says):
    path = one(board, seed=1) / "record.json"
    path.write_text(path.read_text().replace(old, new, 1))
    assert any("digits-20s/vae/1-" in line and says in line for line in faults(board)), faults(board)


def gan(seed=0, **changes):
    """A row of its own beside those of the board."""
    return honest("began", seed, family="gan", **changes)


COPY = {"samples": "a" * 64, "checkpoint": "b" * 64}
NEIGHBOURS = {
    "a copy that takes another's place in the table": (
        [honest(fid=1.0, device="cpu", started="2025-01-01T00:00:00+00:00")], "seed 0 stands there more than once",
    ),
    "one run under five seeds": ([gan(seed, digests=COPY) for seed in range(5)], "the same samples as seed 0: a copy"),
    "one run's samples under other weights": (
        [gan(seed, digests=COPY | {"checkpoint": str(seed) * 64}) for seed in range(2)], "the same samples as seed 0: a copy",
    ),
    "one run's weights under other samples": (
        [gan(seed, digests=COPY | {"samples": str(seed) * 64}) for seed in range(2)], "the same checkpoint as seed 0: a copy",
    ),
    "a copy that calls itself blank": ([gan(digests=COPY), gan(1, digests=COPY, flags=("collapsed", "blank"))], "the same samples as"),
    "a seed of another family": ([gan(), honest("began", 1, family="control")], "its family is 'control', that of seed 0"),
    "a seed with other hparams": ([gan(), gan(1, model={"hparams": {"width": 8, "batch_size": 16, "lr": 9}})], "its hparams is {'width'"),
    "a seed with outside weights": ([gan(), gan(1, model={"pretrained": "Inception"})], "its pretrained is 'Inception', that of seed 0"),
    "a score that turns the order of a table": (
        [gan(started="2026-02-01T00:00:00+00:00", scores=tuple(one.model_copy(update={"better": "higher"}) for one in honest().scores))],
        "fid: higher is better, it says; gan seed 0 says lower",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", NEIGHBOURS)
def test_records_that_do_not_fit_each_other_are_told(board, what):
    forged, says = NEIGHBOURS[what]
    publish(board, *forged)
    assert any(says in line for line in faults(board)), faults(board)


def test_seeds_may_come_to_the_same_where_there_is_nothing_to_tell_them_apart(board):
    """Controls; images that are all black or white; what is computed in closed form and ends before its budget."""
    blank, whole = ("collapsed", "blank"), honest().spent
    early = whole.model_copy(update={"seconds": 5.0, "overshoot": 0.0, "finished_early": True})
    publish(board, *(honest("mean-image", seed, family="control", digests=COPY) for seed in range(3)))
    publish(board, *(gan(seed, digests=COPY | {"checkpoint": str(seed) * 64}, flags=blank) for seed in range(3)))
    publish(board, *(honest("ppca", seed, digests=COPY | {"samples": str(seed) * 64}, spent=early) for seed in range(3)))
    assert faults(board) == []


def test_of_a_shipped_track_tables_show_what_ships_whatever_the_latest_record_says(board):
    changes = {"description": "my own words", "target": 1e6, "published": {"vae": {"fid": (0, 1)}}, "rank_by": "precision", "seeds": 1}
    shipped = honest().spec.track
    publish(board, honest("began", started="2027-01-01T00:00:00+00:00", track=shipped.model_copy(update=changes)))
    (table,) = read(board / "records").tables
    assert table.track == shipped


@pytest.mark.parametrize("values", [(1e200, -1e200), (1.7e308, 1.7e308), (9e39, 1e-320), (9e39, -9e39)])
def test_no_finite_number_stops_a_build(board, values):
    """Beyond what can be computed with, a record is listed as damaged; up to there it is a row."""
    for seed, value in enumerate(values):
        edited = tuple(one.model_copy(update={"value": value, "interval": None}) for one in honest().scores)
        publish(board, honest("wild", seed, scores=edited))
    build(board / "records", board)
    found = read(board / "records")
    damaged = [one.path for one in found.damaged]
    assert len(damaged) == (2 if abs(values[0]) > 1e40 else 0)
    assert all("a number beyond 1e+40" in one.reason for one in found.damaged)
    assert any(row.model.name == "wild" for table in found.tables for row in table.rows) is not bool(damaged)
    assert "wild" in (board / "README.md").read_text()


def test_other_budgets_are_held_to_their_own_kind():
    def told(budget, **changes):
        track = honest().spec.track.model_copy(update={"name": "mine", "budget": budget})
        spent = Spent(budget=budget, **{"seconds": 9.0, "steps": 100, "images": 1600} | changes)
        return record_faults(honest(track=track, spent=spent))

    assert told("100steps") == []
    assert told("90steps", overshoot=10.0) == ["trained 100 steps of 90"]
    assert told("1590img", overshoot=10.0) == []
    assert told("800img", overshoot=800.0) == ["drew 1600 images of 800: more than one step beyond the budget"]
    assert told("1e9flops", flops=1.01e9, overshoot=1e7) == []
    assert told("1e9flops") == ["its budget is 1e9flops, and its ledger counts no flops"]
    assert told("1e9flops", flops=1.6e9, overshoot=6e8) == ["spent 1.6e+09 FLOPs of 1e+09: more than a step beyond the budget"]


def test_a_row_that_leaves_a_seed_out_is_told(board):
    shutil.rmtree(one(board, "gan", 0))
    told = f"digits-20s/gan/{one(board, 'gan', 1).name}: its row has seeds 1 and leaves out 0: a failed one is a record too"
    assert faults(board) == [told]


def test_one_record_cannot_change_its_table(tmp_path):
    track = honest().spec.track.model_copy(update={"name": "mine"})
    publish(tmp_path, honest(track=track), honest(seed=1, track=track.model_copy(update={"rank_by": "precision"})))
    (line,) = faults(tmp_path)
    assert line.endswith("its track says rank_by = 'precision', earlier records of mine say 'fid'")


def test_files_beside_a_record_are_its_own(board):
    folder = one(board)
    content, _ = arrays(images=images(7))
    (folder / "samples.npz").write_bytes(content)
    (folder / "checkpoint.safetensors").write_bytes(b"other weights")
    (folder / "curve.csv").write_text("progress\n")
    (folder / "grid.png").write_bytes(b"<svg onload=alert(1)>")
    found = faults(board)
    for says in ("samples.npz has another digest", "checkpoint.safetensors has another digest", "checkpoint.json can't be read",
                 "curve.csv is not the curve", "grid.png is no PNG"):  # fmt: skip
        assert any(says in line for line in found), (says, found)
    assert len(found) == 5


def test_files_that_no_run_has_are_told(board, tmp_path):
    (tmp_path / "secret").write_text("x")
    os.symlink(tmp_path / "secret", one(board) / "samples.npz")
    (one(board) / "evil.pkl").write_bytes(b"\x80\x04.")
    (one(board) / "samples-1000.npz").write_bytes(b"0" * (9 << 20))
    (board / "records" / "conftest.py").write_text("raise SystemExit")
    found = faults(board)
    for says in ("samples.npz: a link", "evil.pkl: no published run has", "samples-1000.npz: 9437184 bytes", "conftest.py: no published"):
        assert any(says in line for line in found), (says, found)


def test_verifications_must_be_of_the_record_beside_them_and_find_nothing(board):
    folder, other = one(board), one(board, seed=1)
    good = write_verification(folder, verification(folder, 2))
    assert faults(board) == []
    shutil.copy(good, other / good.name)
    bad = write_verification(other, verification(other, 1, ok=False, by="A. Reader"))
    changed = write_verification(folder, verification(folder, 1))
    changed.write_text(changed.read_text().replace("looked", "booked"))
    found = faults(board)
    assert len(found) == 3
    for says in (f"{good.name} is of another record", f"{bad.name}, by A. Reader, found what is not", f"{changed.name} was changed"):
        assert any(says in line for line in found), (says, found)


def test_a_verification_that_did_not_see_what_the_track_ranks_by_is_told(board):
    folder = one(board)
    path = write_verification(folder, verification(folder, 2, scores=[compared("fresh seed", score="precision")]))
    empty = write_verification(folder, verification(folder, 3, findings=[], scores=[]))
    found = faults(board)
    assert len(found) == 2
    for says in (f"{path.name} says T2 and did not see the record's fid", f"{empty.name} says that it reached tier 3: nothing found of"):
        assert any(says in line for line in found), (says, found)


def test_published_records_are_never_changed_and_new_ones_are_welcome(board, tmp_path):
    before = shutil.copytree(board, tmp_path / "before")
    publish(board, honest(seed=3))
    assert faults(board, against=before) == []
    edit(one(board), lambda r: r.update(flags=["nice"]))
    (one(board, seed=1) / "grid.png").unlink()
    found = faults(board, against=before)
    assert [line.partition(": ")[2] for line in found] == ["published, and altered: a record is never changed", "published, and gone"]
    with pytest.raises(GenbenchError, match=r"no record\.json"):
        check(board, against=tmp_path / "nowhere")


def test_the_records_of_this_repository_are_whole():
    if not OWN.is_dir():
        pytest.skip("leaderboards/ is not beside the tests")
    assert check(OWN, tables=False).faults == []


def test_the_command_imports_no_torch_and_its_exit_code_tells(board):
    build(board / "records", board)
    script = (
        "import sys; from genbench.cli import main\n"
        f"sys.argv = ['genbench', 'leaderboard', 'check', {str(board)!r}]\n"
        "try: main()\nexcept SystemExit as end: code = end.code\n"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 records" in done.stdout
    assert "0 faults" in done.stdout
    assert "not checked: digests of samples, which are not beside them, of 4 records" in done.stdout
    edit(one(board), score("fid", value=1.0))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, "fault: digits-20s.csv: not what the records give" in done.stdout) == (1, True)
