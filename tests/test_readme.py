"""What the README shows works as it stands there."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import genbench_gans
import genbench_vaes
import pytest

from genbench.sweep.plan import load_sweep
from genbench.track import parse_track, shipped_tracks

README = Path(__file__).parents[1] / "README.md"


def blocks(language, page=README):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def genbench(*arguments, cwd, env=None):
    command = [sys.executable, "-m", "genbench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}, timeout=200)


@pytest.fixture
def example(tmp_path):
    code, _ = blocks("python")
    (tmp_path / "my_gan.py").write_text(code)
    return tmp_path


def test_the_example_runs_from_its_file(example):
    command = ("run", "./my_gan.py:MyGAN", "--track", "digits-20s", "--budget", "20steps", "--device", "cpu", "--threads", "1", "--json")
    done = genbench(*command, cwd=example)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["status"] == "done"
    assert record["spent"]["steps"] == 20
    assert record["spec"]["model"]["source"] == "my_gan.py:MyGAN"


def test_the_example_conforms(example):
    (example / "test_my_gan.py").write_text(blocks("python")[1])
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=example, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "failed" not in done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 10


def test_the_example_sweep_is_one(tmp_path):
    (sweep,) = [block for block in blocks("toml") if "configurations" in block]
    (tmp_path / "night.toml").write_text(sweep)
    found = load_sweep(tmp_path / "night.toml")
    assert [len(found.configurations(name)) for name in found.models] == [2, 8]


def test_the_example_installs_and_is_listed(example):
    (project,) = [block for block in blocks("toml") if "[project]" in block]
    (example / "pyproject.toml").write_text(project)
    site = example / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--disable-pip-version-check", "--no-build-isolation"]
    done = subprocess.run([*install, "--no-deps", "--target", str(site), str(example)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = genbench("list", "models", "--json", cwd=site, env={"PYTHONPATH": str(site)})
    mine = {model["name"]: model for model in json.loads(listed.stdout)}["my-gan"]
    assert mine["distribution"] == "genbench-my-gan"
    (metadata,) = site.glob("*.dist-info/METADATA")
    assert re.search("^License(-Expression)?: Apache-2.0$", metadata.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: hparam["default"] for name, hparam in mine["hparams"].items()} == {"z_dim": 100, "width": 256, "lr": 2e-4}


@pytest.mark.parametrize(("page", "name"), [("README.md", "my-gan"), ("CONTRIBUTING.md", "mygan")])
def test_an_example_package_says_what_check_asks_of_it(page, name):
    (shown,) = [block for block in blocks("toml", README.with_name(page)) if "[project]" in block]
    project = tomllib.loads(shown)["project"]
    assert (project["name"], project["license"]) == (f"genbench-{name}", "Apache-2.0")
    assert project["version"]
    assert project["entry-points"]["genbench"] == {name: name.replace("-", "_")}
    (spec,) = [line for block in blocks("python", README.with_name(page)) for line in block.splitlines() if "ModelSpec(" in line]
    assert f'"{name}"' in spec
    assert all(f'{word}="' in spec for word in ("family", "paper", "description"))


def test_models_but_one_have_presets_for_the_tracks_that_it_says():
    tracks = {track.name for track in shipped_tracks() if track.dataset in ("digits", "mnist") and not track.reproduces}
    assert tracks == {"digits-20s", "mnist-60s", "mnist-3m", "mnist-10m"}
    models = genbench_gans.genbench_models() + genbench_vaes.genbench_models()
    assert {spec.name: tracks - set(spec.presets) for spec in models if not tracks <= set(spec.presets)} == {"aae": tracks - {"digits-20s"}}


def test_the_example_track_is_one():
    (track,) = [block for block in blocks("toml") if "dataset" in block]
    assert parse_track({"name": "mine", **tomllib.loads(track)}, "README").budget == "30m"


def test_the_results_shown_are_the_published_ones():
    published = (README.parent / "leaderboards" / "mnist-3m.md").read_text(encoding="utf-8")
    cells = {}
    for row in map(split, published.splitlines()):
        if len(row) > 9:  # the first table: the one of details repeats the names
            cells.setdefault(row[2].strip("* "), [cell.replace("**", "").strip() for cell in row])
    lines = map(split, README.read_text(encoding="utf-8").splitlines())
    shown = [row for row in lines if len(row) > 8 and row[3].strip().startswith(("gan", "vae"))]
    assert [row[2].strip() for row in shown] == [
        "rae", "vamp-vae", "acgan", "cvae", "conv-vae prior=gmm", "sngan", "vq-vae", "dcgan", "stylegan2", "conv-vae prior=normal", "vae",
        "wgan",
    ]  # fmt: skip
    for row in shown:
        name, fid, precision, recall, fidelity, rate = (row[i].strip() for i in (2, 4, 5, 6, 7, 8))
        assert re.sub(r"\s", "", fid) in [re.sub(r"\s", "", cell) for cell in cells[name]]
        for value in (precision, recall, fidelity, rate):
            assert any(plain(cell) == plain(value) for cell in cells[name]), (name, value)


def split(line):
    return line.split("|")


def plain(cell):
    """A mean without its interval, whatever space groups its digits."""
    return re.sub(r"\s", "", cell.split("±")[0])
