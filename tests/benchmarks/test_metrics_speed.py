"""Each metric against torch-fidelity's on the same features: ``pytest tests/benchmarks --benchmark-only --benchmark-group-by=group``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

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
