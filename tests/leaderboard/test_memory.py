"""A build that goes on from an earlier one leaves the very files that a build from scratch makes, and takes nobody's word for them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import pytest

from genbench.leaderboard import memory, render


@pytest.fixture
def made(monkeypatch, tmp_path):
    """The names of the parts that builds make, as they are made; memory goes into a cache of this test's own."""
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    names = []
    write = render._write
    monkeypatch.setattr(render, "_write", lambda part, out: names.append(part.name.partition(" ")[2] or part.name) or write(part, out))
    return names


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
    }


def records(make):
    other = make.track(name="mnist-60s", budget="60s")
    first = [make.record(name, seed, 10.0 + at + seed, curve=make.falling(10.0)) for at, name in enumerate("abc") for seed in (0, 1)]
    return first + [make.record(name, 0, 20.0, the_track=other) for name in "xyz"]


def again(results, out, made):
    """Build on, and from scratch beside it: (names of parts made, whether both are equal)."""
    made.clear()
    written = render.build(results, out, remember=True)
    names = list(made)
    fresh = out.with_name("fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    scratch = render.build(results, fresh)
    assert [path.relative_to(out) for path in written] == [path.relative_to(fresh) for path in scratch]
    return names, digests(out) == digests(fresh)


def test_what_has_not_changed_is_not_made_again(tmp_path, make, made):
    results, out = make.write(tmp_path / "results", *records(make), grids=True), tmp_path / "out"
    names, equal = again(results, out, made)
    assert equal
    assert len(names) == 2 + 6 + 1  # tracks, models, what stands above
    assert again(results, out, made) == ([], True)


@pytest.mark.parametrize("library", ["jinja2", "matplotlib", "pydantic"])
def test_another_version_of_a_library_that_pages_are_made_with_makes_all_anew(monkeypatch, library):
    own = memory.metadata.version
    before = memory.code_digest.__wrapped__()
    monkeypatch.setattr(memory.metadata, "version", lambda name: "99" if name == library else own(name))
    assert memory.code_digest.__wrapped__() != before


def test_one_new_record_makes_its_track_anew_and_no_other(tmp_path, make, made):
    results, out = make.write(tmp_path / "results", *records(make), grids=True), tmp_path / "out"
    again(results, out, made)
    make.write(results, make.record("z", 1, 19.0, the_track=make.track(name="mnist-60s", budget="60s")))
    names, equal = again(results, out, made)
    assert equal
    assert "mnist-60s" in names
    assert "mnist-3m" not in names
    assert not [name for name in names if (tmp_path / "out" / "site" / "models" / f"a-{name}.html").exists()]


def test_what_lies_beside_a_record_counts_as_much(tmp_path, make, made):
    results, out = make.write(tmp_path / "results", *records(make), grids=True), tmp_path / "out"
    again(results, out, made)
    make.grid_png(next((results / "runs" / "mnist-3m" / "a").glob("0-*")) / "grid.png", seed=9)
    names, equal = again(results, out, made)
    assert equal
    assert "mnist-3m" in names


def test_more_trials_of_a_run_beyond_the_plan_are_told_anew(tmp_path, make, made):
    results, out = make.write(tmp_path / "results", make.record("a", 0, 1.0), make.record("a", 7, 1.0)), tmp_path / "out"
    again(results, out, made)
    shutil.rmtree(results / make.record("a", 7).spec.folder)
    make.write(results, make.record("a", 7, 1.0, trials=9))
    assert again(results, out, made)[1]
    assert "9 trials" in (out / "mnist-3m.md").read_text()


def test_tampered_and_missing_files_are_made_again_and_orphans_go(tmp_path, make, made):
    results, out = make.write(tmp_path / "results", *records(make), grids=True), tmp_path / "out"
    again(results, out, made)
    (out / "site" / "mnist-3m.html").write_text("<h1>I lead</h1>")
    next((out / "site" / "img").glob("*.png")).unlink()
    assert again(results, out, made)[1]
    (out / "notes.txt").write_text("mine")
    shutil.rmtree(results / "runs" / "mnist-3m" / "c")
    assert not again(results, out, made)[1]
    assert (out / "notes.txt").read_text() == "mine"  # not ours, hence left alone
    (out / "notes.txt").unlink()
    assert again(results, out, made) == ([], True)


def test_a_page_that_somebody_wrote_into_is_not_removed_with_its_record(tmp_path, make, made):
    results, out = make.write(tmp_path / "results", *records(make)), tmp_path / "out"
    again(results, out, made)
    (page,) = (out / "site" / "models").glob("c-*.html")
    page.write_text("kept")
    shutil.rmtree(results / "runs" / "mnist-3m" / "c")
    again(results, out, made)
    assert page.read_text() == "kept"


@pytest.mark.parametrize("kept", ["{", "[]", '{"front": 3}', '{"front": {"key": "", "files": {"../../victim": "e3b0"}}}'])
def test_a_damaged_memory_is_none(tmp_path, make, made, kept):
    results, out = make.write(tmp_path / "results", make.record("a", 0, 1.0)), tmp_path / "out"
    again(results, out, made)
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    (remembered,) = (tmp_path / "cache" / "leaderboards").iterdir()
    digest = hashlib.sha256(b"").hexdigest()
    remembered.write_text(kept.replace("e3b0", digest))
    names, equal = again(results, out, made)
    assert equal
    assert len(names) == 3
    assert victim.exists()


def test_an_unwritable_cache_costs_only_time(tmp_path, make, made, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "file" / "below"))
    results, out = make.write(tmp_path / "results", make.record("a", 0, 1.0)), tmp_path / "out"
    assert len(again(results, out, made)[0]) == len(again(results, out, made)[0]) == 3


def test_a_build_that_does_not_remember_leaves_no_trace(tmp_path, make, made):
    render.build(make.write(tmp_path / "results", make.record("a", 0, 1.0)), tmp_path / "out")
    assert not (tmp_path / "cache").exists()


def test_several_processes_make_the_same_files_and_pass_errors_on(tmp_path, make):
    results = make.write(tmp_path / "results", *records(make), grids=True)
    render.build(results, tmp_path / "one")
    (tmp_path / "blocked" / "site" / "index.html").mkdir(parents=True)
    code = f"""
import json, sys
from pathlib import Path
from genbench.errors import GenbenchError
from genbench.leaderboard import render
render._WORTH_FORKING = 1
render.build(Path({str(results)!r}), Path({str(tmp_path / "many")!r}), jobs=3)
try:
    render.build(Path({str(results)!r}), Path({str(tmp_path / "blocked")!r}), jobs=3)
except GenbenchError as error:
    print(json.dumps(str(error)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "can't be written" in json.loads(done.stdout)
    assert digests(tmp_path / "one") == digests(tmp_path / "many")
