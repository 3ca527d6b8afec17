"""Each metric against torch-fidelity's on the same features: ``pytest tests/benchmarks --benchmark-only --benchmark-group-by=group``."""

from __future__ import annotations

import importlib.util
import json
import statistics as of_numbers
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from genbench.datasets.prepare import prepare
from genbench.errors import GenbenchError
from genbench.metrics import fid, inception_score, kid, prdc, statistics
from genbench.torchvision_shim import import_torchvision

import_torchvision()
pytest.importorskip("torch_fidelity")
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc  # noqa: E402

SHAPES = [(10_000, 128), (3_000, 2048)]


def features(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scale = np.geomspace(0.05, 1, d, dtype=np.float32)
    return tuple(np.abs(rng.standard_normal((n, d), dtype=np.float32) * scale * k) for k in (1.0, 1.1))


def fid_ours(real: np.ndarray, fake: np.ndarray) -> float:
    return fid.frechet(*fid.moments([real])[:2], *fid.moments([fake])[:2])


def fid_theirs(real: np.ndarray, fake: np.ndarray) -> float:
    statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (fake, real)]
    return metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def kid_ours(real: np.ndarray, fake: np.ndarray) -> float:
    return kid.kid(real, fake, seed=0, size=1000)[0]


def kid_theirs(real: np.ndarray, fake: np.ndarray) -> float:
    found = metric_kid.kid_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), verbose=False)
    return found["kernel_inception_distance_mean"]


def prdc_ours(real: np.ndarray, fake: np.ndarray) -> float:
    return prdc.prdc(real, fake).precision


def prdc_theirs(real: np.ndarray, fake: np.ndarray) -> float:
    """Precision and recall only: it has neither density nor coverage."""
    return metric_prc.prc_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), verbose=False)["precision"]


def is_ours(real: np.ndarray, fake: np.ndarray) -> float:
    return inception_score.inception_score(fake[:, :100], seed=0)[0]


def is_theirs(real: np.ndarray, fake: np.ndarray) -> float:
    return metric_isc.isc_features_to_metric(torch.from_numpy(fake[:, :100]))["inception_score_mean"]


PAIRS = {"fid": (fid_ours, fid_theirs), "kid": (kid_ours, kid_theirs), "prdc": (prdc_ours, prdc_theirs), "is": (is_ours, is_theirs)}


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("who", ["genbench", "torch-fidelity"])
@pytest.mark.parametrize("metric", PAIRS)
def test_metric(benchmark, metric: str, who: str, n: int, d: int) -> None:
    compute: Callable[[np.ndarray, np.ndarray], float] = PAIRS[metric][who != "genbench"]
    benchmark.group = f"{metric} {n} x {d}"
    value = benchmark.pedantic(compute, args=features(n, d), rounds=2, warmup_rounds=0)
    assert np.isfinite(value)


def test_fid_at_infinite_n(benchmark) -> None:
    real, fake = features(10_000, 128)
    reference = fid.Gaussian.of(*fid.moments([real])[:2])
    found = benchmark.pedantic(fid.extrapolate, args=(fake, reference), kwargs={"seed": 0}, rounds=3)
    assert found.infinity < found.fid


def test_statistics_of_10k_images(benchmark) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10_000, 1, 32, 32), dtype=np.uint8)
    assert benchmark.pedantic(statistics.summarise, args=(images,), rounds=3).n == 10_000


# Whole programs, each measurement in a process of its own, the programs by turns ------------------------------------------

ROUNDS = 3


def compare(benchmark, what: str, everyone: list[str], *more: str) -> dict[str, dict[str, float]]:
    """Median seconds and peak bytes of each program."""
    found: dict[str, list[dict]] = {who: [] for who in everyone}

    def turn() -> None:
        for who in everyone:
            command = [sys.executable, str(Path(__file__).with_name("measure.py")), what, who, *more]
            found[who].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))

    benchmark.pedantic(turn, rounds=ROUNDS)
    result = {who: {key: of_numbers.median(one[key] for one in all_) for key in ("seconds", "bytes")} for who, all_ in found.items()}
    benchmark.extra_info.update(result)
    for who, one in result.items():
        print(f"{what}: {who}: {one['seconds']:.2f} s, {one['bytes'] / 1e6:.0f} MB, {found[who][-1]['values']}")
    return result


@pytest.mark.timeout(1200)
def test_is_fid_kid_and_prc_of_10k_images(benchmark, tmp_path: Path) -> None:
    try:
        data = prepare("mnist", 32)
    except GenbenchError as error:
        pytest.skip(str(error))
    drawn = np.random.default_rng(0).permutation(len(data.train.images))
    fake, other = (np.ascontiguousarray(data.train.images[drawn[start : start + 10_000]]) for start in (0, 10_000))
    np.savez(tmp_path / "images.npz", real=data.test.images, fake=fake, other=other)
    everyone = ["torch-fidelity", "genbench", "genbench, warm", "torch-fidelity, warm"]
    found = compare(benchmark, "suite", everyone, str(tmp_path / "images.npz"))
    theirs = found["torch-fidelity"]
    assert theirs["seconds"] / found["genbench"]["seconds"] >= 2.5
    assert found["genbench"]["bytes"] / theirs["bytes"] <= 1 / 4
    assert theirs["seconds"] / found["genbench, warm"]["seconds"] >= 5


@pytest.mark.timeout(1200)
def test_kid_precision_and_recall_from_2048_features(benchmark) -> None:
    found = compare(benchmark, "pairs", ["torch-fidelity", "genbench"])
    assert found["torch-fidelity"]["seconds"] / found["genbench"]["seconds"] >= 2.3
    assert found["genbench"]["bytes"] / found["torch-fidelity"]["bytes"] <= 1 / 5


@pytest.mark.timeout(1200)
def test_fid_from_2048_features(benchmark) -> None:
    others = {"torch-fidelity": 1.4} | ({"pytorch-fid": 4.0} if importlib.util.find_spec("pytorch_fid") else {})
    found = compare(benchmark, "fid", ["genbench", *others])
    for who, times in others.items():
        assert found[who]["seconds"] / found["genbench"]["seconds"] >= times
