"""The command line as users type it, through real processes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest


def genbench(*arguments, cwd=None, env=None, timeout=120):
    command = [sys.executable, "-m", "genbench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}, timeout=timeout)


def imported(*arguments):
    """Modules that a command imports."""
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "genbench", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("--version",), ("list", "tracks")])
def test_light_commands_import_no_torch(arguments):
    assert not {"torch", "scipy", "pandas", "matplotlib"} & imported(*arguments)


def test_list_models_says_where_they_come_from():
    models = {model["name"]: model for model in json.loads(genbench("list", "models", "--json").stdout)}
    assert {"gan", "dcgan", "wgan-gp", "vae", "conv-vae", "beta-vae", "noise", "pca-gaussian", "real-holdout"} <= set(models)
    dcgan = models["dcgan"]
    assert dcgan["family"] == "gan"
    assert dcgan["paper"] == "arXiv:1511.06434"
    assert dcgan["distribution"] == "genbench-gans"
    assert dcgan["version"] == "0.1.0"
    assert dcgan["hparams"]["z_dim"] == {"default": 100, "type": "int", "choices": None}
    assert "torch" not in imported("list", "models")  # the second time the description is cached


@pytest.mark.parametrize("kind", ["datasets", "metrics", "extractors", "tracks"])
def test_every_kind_is_listed_with_names(kind):
    items = json.loads(genbench("list", kind, "--json").stdout)
    assert items
    assert all(item["name"] and item["distribution"] == "genbench" for item in items)
    assert items[0]["name"] in genbench("list", kind).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "dcgna", "--track", "digits-20s"), "unknown model 'dcgna'; did you mean 'dcgan'?"),
        (("run", "dcgan", "--track", "digit-20s"), "did you mean 'digits-20s'?"),
        (("run", "dcgan", "--track", "nothere.toml"), "nothere.toml"),
        (("run", "./nothere.py:X", "--track", "digits-20s"), "nothere.py"),
        (("run", "dcgan", "--track", "digits-20s", "--hp", "dcgan.zdim=3"), "did you mean 'z_dim'?"),
        (("run", "dcgan", "--track", "digits-20s", "--hp", "dcgan.z_dim=x"), "z_dim=x is not a whole number"),
        (("run", "dcgan", "--track", "digits-20s", "--hp", "z_dim=3"), "MODEL.KEY=VALUE"),
        (("run", "dcgan", "--track", "digits-20s", "--hp", "vae.z_dim=3"), "unknown model 'vae'"),
        (("run", "dcgan", "--track", "digits-20s", "--budget", "0s"), "above 0"),
        (("run", "dcgan", "--track", "digits-20s", "--budget", "5 parsecs"), "5000steps"),
        (("run", "dcgan", "--track", "digits-20s", "--device", "tpu"), "tpu"),
        (("run", "dcgan", "--track", "digits-20s", "--results", "/dev/null/results"), "can't be written"),
        (("list", "modles"), "did you mean 'models'?"),
        (("leaderboard", "build", "--results", "nowhere"), "nowhere"),
        (("evaluate", "nowhere.npz", "--reference", "digits"), "nowhere.npz"),
        (("evaluate", "nowhere.npz", "--reference", "digist"), "did you mean 'digits'?"),
        (("evaluate", "nowhere.npz", "--reference", "digits:tset"), "did you mean 'test'?"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(arguments, says, tmp_path):
    done = genbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert not list(tmp_path.glob("results/runs/*"))


@pytest.mark.parametrize("track", ["mnist-60s", "cifar10-30m"])
def test_missing_data_or_weights_offline_are_one_line_and_exit_code_2(track, tmp_path):
    env = {"GENBENCH_DATA": str(tmp_path / "data"), "GENBENCH_OFFLINE": "1", "TORCH_HOME": str(tmp_path / "torch")}
    done = genbench("run", "noise", "--track", track, cwd=tmp_path, env=env)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert ("mnist" if "mnist" in track else "weights") in done.stderr.lower()


def test_run_rank_repeat_and_build(tmp_path):
    command = ("run", "noise", "conv-vae", "--track", "digits-20s", "--budget", "20steps", "--device", "cpu", "--threads", "1")
    first = genbench(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr + first.stdout
    assert "[2/2] conv-vae seed 0: done" in first.stdout
    assert "20 steps" in first.stdout
    records = {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/runs/digits-20s-at-20steps/*/*/record.json")}
    assert len(records) == 2

    again = genbench(*command, "--json", cwd=tmp_path)
    assert again.returncode == 0
    assert [record["spec"]["model"]["name"] for record in json.loads(again.stdout)] == ["noise", "conv-vae"]
    assert {path: path.stat().st_mtime_ns for path in records} == records
    assert json.loads(again.stdout)[1]["spec"]["model"]["preset"] == "digits-20s"  # a preset outlives another budget

    # A control of the same package, with as few hparams changed, is another run.
    more = genbench(*command[:2], "real-holdout", *command[2:], "--json", cwd=tmp_path)
    assert [record["spec"]["model"]["name"] for record in json.loads(more.stdout)] == ["noise", "real-holdout", "conv-vae"]
    assert len(list(tmp_path.glob("results/runs/*/*/*/record.json"))) == 3

    # From the samples that are kept, the same numbers follow.
    (path,) = tmp_path.glob("results/runs/*/conv-vae/*/record.json")
    evaluated = genbench("evaluate", path.parent, "--device", "cpu", "--json", cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    assert evaluated.returncode == 0, evaluated.stderr
    said, found = (
        {score["name"]: score["value"] for score in scores if score["value"] is not None and score["extractor"] != "pixels-pca"}
        for scores in (json.loads(path.read_text())["scores"], json.loads(evaluated.stdout))
    )
    assert {"fid", "kid", "precision", "statistical_fidelity"} <= set(found)
    assert found == pytest.approx({name: said[name] for name in found}, rel=1e-6, abs=1e-9)

    built = genbench("leaderboard", "build", "--results", "results", "--out", "board", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    page = built.stdout.strip().splitlines()[-1]
    assert os.path.isfile(page)
    assert "conv-vae" in (tmp_path / "board" / "digits-20s-at-20steps.md").read_text()


def test_a_failed_run_is_exit_code_1_and_a_row(tmp_path):
    (tmp_path / "bad.py").write_text(
        "from torch import nn\nclass Bad(nn.Module):\n"
        "    def __init__(self, image): super().__init__()\n"
        "    def configure_optimizers(self): return {}\n"
        "    def training_step(self, batches, optimizers): raise ValueError('on purpose')\n"
        "    def sample(self, n): ...\n"
    )
    command = ("run", "./bad.py:Bad", "noise", "--track", "digits-20s", "--budget", "5steps", "--device", "cpu", "--threads", "1")
    done = genbench(*command, cwd=tmp_path)
    assert done.returncode == 1
    assert "ValueError: on purpose" in done.stdout
    assert "noise seed 0: done" in done.stdout
    assert "on purpose" not in genbench(*command, "--json", cwd=tmp_path).stderr.replace("error (ValueError: on purpose)", "")
    retried = genbench(*command, "--retry-failed", cwd=tmp_path)
    assert retried.returncode == 1
    assert len(list(tmp_path.glob("results/runs/*/Bad/*/attempts/*"))) == 2
    assert len(list(tmp_path.glob("results/**/record.json"))) == 2


def test_evaluate_images_against_digits(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "noise.npz", rng.integers(0, 256, (300, 8, 8, 1), dtype=np.uint8))
    done = genbench("evaluate", "noise.npz", "--reference", "digits", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = {score["name"]: score for score in json.loads(done.stdout)}
    assert scores["fid"]["value"] > 20 * scores["fid"]["floor"]
    assert scores["fid"]["extractor"] == "digits-cnn"
    assert scores["statistical_fidelity"]["value"] < 0.05
    table = genbench("evaluate", "noise.npz", "--reference", "digits", "-m", "fid", cwd=tmp_path)
    assert "fid" in table.stdout
    assert "kid" not in table.stdout


def test_an_extractor_of_ones_own(tmp_path):
    trained = genbench("extractor", "train", "digits", "--out", "mine.safetensors", "--epochs", "2", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    about = json.loads(trained.stdout)
    assert about == json.loads((tmp_path / "mine.json").read_text())
    assert 0.3 < about["test_accuracy"] <= 1
    assert (tmp_path / "mine.safetensors").stat().st_size < 1_000_000
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), dtype=np.uint8))
    evaluate = ("evaluate", "noise.npy", "--reference", "digits", "-x", "cnn", "--weights", "mine.safetensors", "-m", "fid", "--json")
    done = genbench(*evaluate, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = {score["name"]: score for score in json.loads(done.stdout)}
    assert scores["fid"]["extractor"] == "cnn"
    assert scores["fid"]["value"] > scores["fid"]["floor"]


def test_doctor_names_what_is_there_and_what_is_missing(tmp_path):
    env = {"GENBENCH_DATA": str(tmp_path / "data"), "TORCH_HOME": str(tmp_path / "torch")}
    done = genbench("doctor", "--json", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    findings = {(finding["kind"], finding["name"]): finding for finding in json.loads(done.stdout)}
    assert findings["dataset", "digits"]["ok"]
    assert findings["extractor", "digits-cnn"]["ok"]
    assert "99." in findings["extractor", "digits-cnn"]["state"]
    assert not findings["dataset", "mnist"]["ok"]
    assert "GENBENCH_DATA" in findings["dataset", "mnist"]["state"]
    assert not findings["extractor", "inception-v3-compat"]["ok"]
    assert "--weights" in findings["extractor", "inception-v3-compat"]["state"]
    assert findings["plugin", "genbench-gans 0.1.0"]["ok"]
