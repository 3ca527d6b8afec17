"""Equal to torch-fidelity on the same features, wherever both define the same thing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genbench.metrics import fid, inception_score, kid, prdc
from genbench.torchvision_shim import import_torchvision

import_torchvision()
metric_fid = pytest.importorskip("torch_fidelity.metric_fid")
from torch_fidelity import metric_isc, metric_kid, metric_prc  # noqa: E402


@pytest.fixture(scope="module")
def features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((24, 24)) / 5
    real = rng.standard_normal((700, 24)) @ mix
    fake = rng.standard_normal((700, 24)) @ mix * 0.9 + 0.1
    return real.astype(np.float32), fake.astype(np.float32)


def test_fid(features: tuple[np.ndarray, np.ndarray]) -> None:
    real, fake = features
    theirs = metric_fid.fid_statistics_to_metric(
        *(metric_fid.fid_features_to_statistics(torch.from_numpy(x.astype(np.float64))) for x in (fake, real)), verbose=False
    )
    ours = fid.frechet(*fid.moments([fake])[:2], *fid.moments([real])[:2])
    assert ours == pytest.approx(theirs["frechet_inception_distance"], abs=1e-9)


def test_kid_on_the_same_subsets(features: tuple[np.ndarray, np.ndarray]) -> None:
    real, fake = features
    theirs = metric_kid.kid_features_to_metric(
        torch.from_numpy(fake).double(), torch.from_numpy(real).double(), kid_subsets=5, kid_subset_size=200, rng_seed=7, verbose=False
    )
    rng = np.random.RandomState(7)
    draws = [(rng.choice(700, 200, replace=False), rng.choice(700, 200, replace=False)) for _ in range(5)]
    ours = [kid.mmd2(fake[f], real[r]) for f, r in draws]
    assert np.mean(ours) == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-12)
    assert np.std(ours) == pytest.approx(theirs["kernel_inception_distance_std"], abs=1e-12)
    # other subsets of the same size: the same quantity within its spread
    mean, spread = kid.kid(real, fake, seed=1, subsets=50, size=200)
    assert abs(mean - np.mean(ours)) < 3 * spread
    assert spread > 0


def test_inception_score(features: tuple[np.ndarray, np.ndarray]) -> None:
    logits = 3 * features[0][:, :10]
    theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=False)
    assert inception_score.score_in_order(logits, 10) == pytest.approx(
        (theirs["inception_score_mean"], theirs["inception_score_std"]), abs=1e-12
    )  # fmt: skip


def test_precision_and_recall(features: tuple[np.ndarray, np.ndarray]) -> None:
    real, fake = features
    theirs = metric_prc.prc_features_to_metric(
        torch.from_numpy(fake).double(), torch.from_numpy(real).double(), prc_neighborhood=3, verbose=False, save_cpu_ram=False
    )
    ours = prdc.prdc(real, fake)
    assert theirs["precision"] != theirs["recall"]
    assert ours.precision == pytest.approx(theirs["precision"], abs=1e-7)  # their mean is float32
    assert ours.recall == pytest.approx(theirs["recall"], abs=1e-7)
