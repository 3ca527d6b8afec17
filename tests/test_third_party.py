"""A stranger's plugin: one file and one toml, installed with pip outside this repository, is found, runs and is ranked."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOML = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "strangers_model"
version = "0.3"

[project.entry-points.genbench]
mine = "strangers_model"
"""

CODE = '''
"""A Gaussian per pixel, by gradient descent."""

import torch
from torch import nn
from torch.optim import Adam

from genbench import ImageSpec, ModelSpec, hookimpl


class PixelGaussian(nn.Module):
    def __init__(self, image: ImageSpec, lr: float = 0.1, batch_size: int = 64):
        super().__init__()
        self.lr, self.batch_size = lr, batch_size
        self.mu, self.logvar = nn.Parameter(torch.zeros(image.shape)), nn.Parameter(torch.zeros(image.shape))

    def configure_optimizers(self):
        return {"p": Adam(self.parameters(), self.lr)}

    def training_step(self, batches, optimizers):
        x = next(batches).images
        loss = 0.5 * (self.logvar + (x - self.mu) ** 2 / self.logvar.exp()).mean()
        optimizers["p"].minimize(loss)
        return {"loss": loss.detach()}

    def sample(self, n):
        eps = torch.randn(n, *self.mu.shape, device=self.mu.device)
        return (self.mu + eps * (0.5 * self.logvar).exp()).clamp(-1, 1)


@hookimpl
def genbench_models():
    return [ModelSpec("pixel-gaussian", PixelGaussian, family="other", paper="none yet")]
'''

TRACK = """
dataset = "digits"
size = 8
budget = "20s"
num_samples = 100
extractor = "digits-cnn"
metrics = ["fid", "statistical_fidelity"]
curve = [1.0]
curve_samples = 50
seeds = 1
"""


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A folder outside the repository -> a function that runs genbench there with the stranger's package installed."""
    home = tmp_path_factory.mktemp("stranger")
    source = home / "source"
    source.mkdir()
    (source / "strangers_model.py").write_text(CODE)
    (source / "pyproject.toml").write_text(TOML)
    (home / "mine.toml").write_text(TRACK)
    install = ["install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps", "--target", str(home / "site"), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, cwd=home)
    assert sorted(path.name for path in (home / "site").iterdir() if path.suffix) == ["strangers_model-0.3.dist-info", "strangers_model.py"]

    def genbench(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        places = os.pathsep.join(map(str, [home / "site", *([path] if path else [])]))
        environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, "-m", "genbench", *arguments], capture_output=True, text=True, cwd=home, env=environment)

    genbench.home = home
    return genbench


def test_it_is_found(stranger):
    done = stranger("list", "models", "--json")
    assert done.returncode == 0, done.stderr
    (model,) = [item for item in json.loads(done.stdout) if item["name"] == "pixel-gaussian"]
    assert (model["family"], model["paper"], model["distribution"], model["version"]) == ("other", "none yet", "strangers_model", "0.3")
    assert model["hparams"]["lr"] == {"default": 0.1, "type": "float", "choices": None}
    assert f"{Path.cwd()}/genbench" not in done.stdout


def test_it_runs_and_is_ranked(stranger):
    run = ("run", "pixel-gaussian", "--track", "mine.toml", "--results", "results", "--budget", "50steps", "--hp", "pixel-gaussian.lr=0.05")
    done = stranger(*run, "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    model = record["spec"]["model"]
    assert (record["status"], record["spent"]["steps"], record["spent"]["images"]) == ("done", 50, 50 * 64)
    assert (model["source"], model["distribution"], model["changed"]) == ("strangers_model", "strangers_model", {"lr": 0.05})
    scores = {score["name"]: score for score in record["scores"]}
    assert scores["fid"]["value"] > scores["fid"]["floor"] > 0

    built = stranger("leaderboard", "build", "--results", "results", "--out", "board")
    assert built.returncode == 0, built.stderr
    tables = [list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) for path in (stranger.home / "board").glob("*.csv")]
    (row,) = [row for table in tables for row in table if row["model"] == "pixel-gaussian"]
    assert row["rank"] == "1"
    assert float(row["fid"]) == pytest.approx(scores["fid"]["value"], rel=1e-3)
    assert "pixel-gaussian" in (stranger.home / "board" / "README.md").read_text(encoding="utf-8")


def test_a_misspelt_hparam_is_refused_before_anything_runs(stranger):
    done = stranger("run", "pixel-gaussian", "--track", "mine.toml", "--results", "none", "--hp", "pixel-gaussian.learning_rate=1")
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "unknown hparam 'learning_rate'" in done.stderr
    assert not (stranger.home / "none" / "runs").exists()


def test_a_plugin_that_ends_its_process_costs_nobody_elses_run(stranger, tmp_path):
    info = tmp_path / "fatal-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fatal\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[genbench]\nfatal = fatal\n")
    (tmp_path / "fatal.py").write_text("import os; os._exit(0)\ndef genbench_models(): ...\n")
    run = ("run", "pixel-gaussian", "--track", "mine.toml", "--results", "beside", "--budget", "3steps", "--threads", "1", "--json")
    done = stranger(*run, path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [record["status"] for record in json.loads(done.stdout)] == ["done"]
    listed = stranger("list", "models", path=tmp_path)
    assert "pixel-gaussian" in listed.stdout
    assert "broken: fatal 1.0 (fatal): importing it ended the process with exit status 0" in listed.stderr
