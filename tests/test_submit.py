"""``genbench submit``: new files only, each what its record says, and labels that a reader needs."""

import hashlib
import io
import json
import os
import shutil

import numpy as np
import pytest

from genbench.arrays import read_drawn
from genbench.bundle import EXCERPT, NOTE, SOURCE, read_note
from genbench.errors import GenbenchError
from genbench.leaderboard.check import check
from genbench.records import Spent
from genbench.submit import submit
from genbench.track import shipped_tracks
from genbench.verification import write_verification
from tests.leaderboard.published import honest, results_run
from tests.test_verification import verification

MNIST = next(track for track in shipped_tracks() if track.name == "mnist-3m")


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def published(out, seed=0, name="vae"):
    return next((out / "records" / "digits-20s" / name).glob(f"{seed}-*"))


def test_a_submission_is_whole_small_and_passes_the_check(results, tmp_path):
    out = tmp_path / "board"
    folders = [results_run(results, seed=seed) for seed in range(2)]
    write_verification(folders[0], verification(folders[0], 2))
    made = submit([results], out, by="A. Reader", plugin_url="https://code.example/plug", files_url="https://files.example/")
    first, second = published(out), published(out, 1)
    assert {path.parent for path in made.written} == {first, second}
    names = {path.name for path in first.iterdir() if not path.name.startswith("verification-2-")}
    assert names == {"record.json", "curve.csv", "grid.png", "samples.npz", "checkpoint.safetensors", "checkpoint.json", NOTE}
    assert {path.name for path in second.iterdir()} == {"record.json", "curve.csv", "grid.png", NOTE}  # one seed a row brings its files
    assert (first / "record.json").read_bytes() == (folders[0] / "record.json").read_bytes()
    note, other = read_note(first / NOTE), read_note(second / NOTE)
    assert (note.verified, other.verified, note.by) == ("T2 (self)", "T0", "A. Reader")
    assert (note.plugin.distribution, note.plugin.digest, note.plugin.url) == ("plug-in", "d" * 64, "https://code.example/plug")
    assert note.labels == ("preliminary: 2 of 5 seeds",)
    assert not note.elsewhere
    samples = other.elsewhere["samples.npz"]
    assert samples.sha256 == hashlib.sha256((folders[1] / "samples.npz").read_bytes()).hexdigest()
    assert samples.url == f"https://files.example/digits-20s/vae/{second.name}/samples.npz"
    assert any("not verified" in line for line in made.warnings)
    assert check(out, tables=False).faults == []
    (first / "grid.png").write_bytes((first / "grid.png").read_bytes() + b" ")
    assert any("grid.png is not the file that submission.json lists" in line for line in check(out, tables=False).faults)


def test_what_is_published_stays_as_it_is_and_more_seeds_may_follow(results, tmp_path):
    out = tmp_path / "board"
    run = results_run(results)
    submit([run], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = submit([run / "record.json"], out)
    assert again.written == []
    assert "published already" in again.warnings[0]
    results_run(results, seed=1)
    more = submit([results], out)
    assert {path.parent for path in more.written} == {published(out, 1)}
    assert {path.name for path in more.written} == {"record.json", "curve.csv", "grid.png", NOTE}  # the row has its samples already
    assert {path: path.read_bytes() for path in before} == before
    record = run / "record.json"
    record.write_text(record.read_text().replace('"waited": 0.01', '"waited": 0.02'))
    with pytest.raises(GenbenchError, match="published already, with another outcome"):
        submit([run], out)


def test_a_file_in_the_way_stops_everything_before_anything_is_written(results, tmp_path):
    out, run = tmp_path / "board", results_run(results)
    target = out / "records" / "digits-20s" / "vae" / run.name
    target.mkdir(parents=True)
    os.symlink("/etc/passwd", target / "grid.png")
    with pytest.raises(GenbenchError, match=r"grid\.png is there already: a submission adds new files only"):
        submit([run], out)
    assert [path.name for path in target.iterdir()] == ["grid.png"]


def test_failures_are_records_too_and_everything_a_reader_should_know_is_a_label(results, tmp_path):
    spent = Spent(budget="20s", seconds=20.5, steps=100, images=1600, overshoot=0.5, waited=0.4, contended=True)
    results_run(results, spent=spent, model={"pretrained": "Inception"})
    results_run(results, seed=1, status="diverged", model={"pretrained": "Inception"})
    out = tmp_path / "board"
    made = submit([results], out)
    assert read_note(published(out) / NOTE).labels == (
        "preliminary: 2 of 5 seeds", "contended: others used the machine while it trained", "pretrained: Inception"
    )  # fmt: skip
    assert read_note(published(out, 1) / NOTE).labels[0] == "failed: diverged"
    assert {path.name for path in published(out, 1).iterdir()} == {"record.json", "curve.csv", NOTE}
    done = {text: holds for holds, text in made.checklist}
    assert not any(holds for text, holds in done.items() if text.startswith(("nothing else used", "all planned seeds", "every finished")))
    assert check(out, tables=False).faults == []


SPOILT = {
    "a seed left out": (lambda run: None, "leaves out 0"),
    "other samples": (lambda run: _npz(run / "samples.npz", images=np.zeros((300, 1, 8, 8), np.uint8)), "not what was drawn"),
    "other weights": (lambda run: (run / "checkpoint.safetensors").write_bytes(b"x"), "not the one that was sealed"),
    "a picture that is none": (lambda run: (run / "grid.png").write_bytes(b"GIF89a"), "no PNG"),
    "an edited record": (lambda run: _edit(run, lambda r: r["spent"].update(seconds=5000)), "overshoot 0.5 recorded"),
    "a failed verification": (lambda run: write_verification(run, verification(run, ok=False)), "found what is not as recorded"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_contradicts_its_record_is_not_submitted(results, tmp_path, what):
    spoil, says = SPOILT[what]
    run = results_run(results, seed=int(what == "a seed left out"))
    spoil(run)
    with pytest.raises(GenbenchError, match=says):
        submit([run], tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_a_run_is_not_submitted_as_two(results, tmp_path):
    first, second = results_run(results), results_run(results, seed=1)
    for name in ("samples.npz", "grid.png", "checkpoint.safetensors", "checkpoint.json"):
        shutil.copy(first / name, second / name)
    digests = json.loads((first / "record.json").read_text())["digests"]
    _edit(second, lambda record: record.update(digests=digests))
    with pytest.raises(GenbenchError, match=f"{second.name}: the same samples as seed 0: a copy"):
        submit([results], tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_verifications_by_others_are_theirs_to_add(results, tmp_path):
    run = results_run(results)
    theirs = write_verification(run, verification(run, 2, by="A. Reader"))
    made = submit([run], tmp_path / "board")
    assert not list(published(tmp_path / "board").glob("verification*"))
    assert any(f"left out: {theirs.name} is by A. Reader" in line for line in made.warnings)


def test_of_many_samples_the_first_thousand_go_along_and_large_checkpoints_stay_away(results, tmp_path):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 1, 32, 32), dtype=np.uint8)
    np.savez(buffer, images=pixels)
    digests = {"samples": hashlib.sha256(pixels.tobytes()).hexdigest(), "checkpoint": hashlib.sha256(b"0" * (2 << 20)).hexdigest()}
    run = results_run(results)  # for its files
    spent = Spent(budget="3m", seconds=180.5, steps=100, images=1600, overshoot=0.5)
    scores = tuple(one.model_copy(update={"extractor": "mnist-cnn", "n_fake": 3000}) for one in honest().scores)
    record = honest(track=MNIST, digests=digests, spent=spent, scores=scores)
    (run / "record.json").write_text(record.model_dump_json())
    (run / "samples.npz").write_bytes(buffer.getvalue())
    (run / "checkpoint.safetensors").write_bytes(b"0" * (2 << 20))
    (run / "checkpoint.json").write_text(json.dumps({"sha256": digests["checkpoint"]}))
    out = tmp_path / "board"
    submit([run], out)
    (target,) = (out / "records" / "mnist-3m" / "vae").iterdir()
    kept, _ = read_drawn(target / EXCERPT, 1000, 32)
    np.testing.assert_array_equal(kept["images"], pixels[:1000])
    assert set(read_note(target / NOTE).elsewhere) == {"samples.npz", "checkpoint.safetensors"}
    report = check(out, tables=False)
    assert report.faults == []
    assert any(EXCERPT in line for line in report.unchecked)


def test_the_source_of_a_model_that_is_not_packaged_goes_along_where_it_is_the_one(results, tmp_path):
    source = tmp_path / "mine.py"
    source.write_text("class Mine: ...\n")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    run = results_run(results, model={"distribution": "unpackaged", "version": "", "digest": digest, "source": "mine.py:Mine"})
    submit([run], tmp_path / "board", model=source)
    assert (published(tmp_path / "board") / SOURCE).read_text() == "class Mine: ...\n"
    assert check(tmp_path / "board", tables=False).faults == []
    source.write_text("class Mine: better = True\n")
    with pytest.raises(GenbenchError, match="not the one file that vae was trained from"):
        submit([run], tmp_path / "other", model=source)


@pytest.mark.parametrize("name", ["../../../etc", "<script>", "a/b", "=HYPERLINK()", ".."])
def test_hostile_names_stay_inside_the_folder(results, tmp_path, name):
    out = tmp_path / "deep" / "board"
    made = submit([results_run(results, name=name)], out)
    assert made.written
    assert all(path.resolve().is_relative_to((out / "records" / "digits-20s").resolve()) for path in made.written)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["board"]


def test_a_folder_without_a_record_is_one_line(tmp_path):
    with pytest.raises(GenbenchError, match=r"no record\.json in"):
        submit([tmp_path], tmp_path / "board")


def _npz(path, **arrays):
    np.savez(path, **arrays)


def _edit(run, change):
    value = json.loads((run / "record.json").read_text())
    change(value)
    (run / "record.json").write_text(json.dumps(value))
