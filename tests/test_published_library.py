"""A model of a library from the index, wrapped in a file of under 60 lines, passes the conformance suite and runs to a record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from genbench.testing import check_model

FILE = Path(__file__).with_name("pythae_vae.py")


@pytest.fixture(scope="module", autouse=True)
def _library():
    pytest.importorskip("pythae", reason="pythae is not installed")


def test_the_wrapper_is_short():
    assert len(FILE.read_text().splitlines()) < 60


def test_it_conforms():
    from genbench.modelfile import load_model_file

    check_model(load_model_file(f"{FILE}:PythaeVAE").spec)


def test_it_runs(tmp_path):
    command = [sys.executable, "-m", "genbench", "run", f"{FILE}:PythaeVAE", "--track", "digits-20s", "--budget", "600steps"]
    done = subprocess.run([*command, "--results", str(tmp_path)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = tmp_path.glob("runs/**/record.json")
    record = json.loads(path.read_text())
    assert (record["status"], record["prior"], record["spec"]["model"]["family"]) == ("done", "N(0, I)", "vae")
    scores = {score["name"]: score["value"] for score in record["scores"]}
    assert scores["fid"] < 60  # of digits; noise has 210
    assert scores["psnr"] > 10
