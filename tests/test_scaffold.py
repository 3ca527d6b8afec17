"""`genbench new`: what it writes installs, passes the conformance suite and trains; what it must not do it refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from genbench.errors import GenbenchError
from genbench.scaffold import check_name, class_name, new_package

ROOT = Path(__file__).parents[1]


def genbench(*arguments, cwd, env=None):
    command = [sys.executable, "-m", "genbench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}, timeout=200)


@pytest.mark.parametrize(
    ("name", "cls"),
    [("my-gan", "MyGAN"), ("gan2", "Gan2"), ("tiny-infovae", "TinyInfoVAE"), ("gan", "GAN"), ("flow", "Flow"), ("a-2b", "A2b")],
)
def test_class_names(name, cls):
    check_name(name)
    assert class_name(name) == cls


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MyGAN", r"lower-case words joined by dashes\); what would do: my-gan"),
        ("my_gan", "what would do: my-gan"),
        ("3d-gan", "what would do: my-gan"),
        ("", "what would do: my-gan"),
        ("../evil", "what would do: evil"),
        ("genbench-my-gan", "leave that part out.*what would do: my-gan"),
        ("gans", "genbench-gans is installed already"),
    ],
)
def test_names_that_would_not_do(name, message, tmp_path):
    with pytest.raises(GenbenchError, match=message):
        new_package(name, "gan", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_families_and_existing_folders_are_refused(tmp_path):
    with pytest.raises(GenbenchError, match="unknown family 'gna'; did you mean 'gan'"):
        new_package("mine", "gna", tmp_path)
    kept = tmp_path / "genbench-mine" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(GenbenchError, match="exists already; nothing was written"):
        new_package("mine", "gan", tmp_path)
    assert [path.name for path in kept.parent.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_refused(place, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(GenbenchError, match=r"file.*genbench-mine can't be written: .*--path"):
        new_package("mine", "gan", tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("family", ["gan", "vae"])
def test_what_is_written(family, tmp_path):
    written = new_package(f"my-{family}", family, tmp_path)
    folder = tmp_path / f"genbench-my-{family}"
    package = f"genbench_my_{family}"
    assert [path.relative_to(folder).as_posix() for path in written] == [
        "pyproject.toml", "README.md", ".gitignore", f"src/{package}/__init__.py", f"src/{package}/model.py", f"src/{package}/py.typed",
        "tests/test_conformance.py",
    ]  # fmt: skip
    project = tomllib.loads(written[0].read_text(encoding="utf-8"))["project"]
    assert project["name"] == folder.name
    assert project["license"]
    assert project["entry-points"]["genbench"] == {f"my-{family}": package}
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\$\{?[a-z]|TODO|FIXME", text), path
        assert not text or text.endswith("\n")
        assert max(map(len, text.splitlines()), default=0) <= 140
        if path.suffix == ".py":
            compile(text, path, "exec")
    readme = written[1].read_text(encoding="utf-8")
    defaults = dict(re.findall(r"\| `(\w+)` \| ([\w.-]+) \|", readme))
    assert set(defaults) == {"z_dim", "width", "batch_size", "lr", *(["beta1"] if family == "gan" else [])}
    assert defaults["width"] == "256"


RUFF = shutil.which("ruff", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.skipif(RUFF is None, reason="no ruff here")
@pytest.mark.parametrize("family", ["gan", "vae"])
def test_it_is_in_the_style_of_this_repository(family, tmp_path):
    new_package("mine", family, tmp_path)
    for command in (["check"], ["format", "--check"]):
        more = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
        done = subprocess.run([RUFF, *command, *more], capture_output=True, text=True, cwd=tmp_path / "genbench-mine")
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("family", ["gan", "vae"])
def test_it_installs_passes_its_own_test_and_trains(family, tmp_path):
    name = f"my-{family}"
    made = genbench("new", name, "--family", family, "--path", str(tmp_path), cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    folder = tmp_path / f"genbench-{name}"
    assert f"genbench check {name}" in made.stdout
    assert "choose a licence" in made.stdout

    site = tmp_path / "site"
    install = ["install", "-q", "--no-index", "--no-build-isolation", "--no-deps", "--target", str(site), str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, cwd=tmp_path)
    env = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(tests, capture_output=True, text=True, cwd=folder, env={**os.environ, **env}, timeout=200)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed in", done.stdout, re.MULTILINE), "a check said nothing about a model that has everything"

    run = ("run", name, "--track", "digits-20s", "--budget", "20steps", "--device", "cpu", "--threads", "1", "--json")
    done = genbench(*run, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert (record["status"], record["spec"]["model"]["distribution"]) == ("done", f"genbench-{name}")
    scores = {score["name"]: score["value"] for score in record["scores"]}
    assert scores["fid"] > 0
    if family == "vae":
        assert scores["elbo"] < 0 if "elbo" in scores else any("elbo" in score or "bits" in score for score in scores)

    again = genbench("new", name, "--family", family, "--path", str(tmp_path / "elsewhere"), cwd=tmp_path, env=env)
    assert again.returncode == 2
    assert f"a model called '{name}' is installed already, by genbench-{name}" in again.stderr


def test_the_command_line_lists_what_it_wrote(tmp_path):
    done = genbench("new", "mine", "--family", "vae", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / path).is_file() for path in json.loads(done.stdout))
    done = genbench("new", "dcgan", "--family", "gan", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "genbench: a model called 'dcgan' is installed already, by genbench-gans; choose another name\n"
