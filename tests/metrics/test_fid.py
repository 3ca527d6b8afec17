from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from tests.metrics.seen import Seen, by_name, evidence
from tests.metrics.test_golden import I8, Z2, Z8, mixed


def test_features_of_very_different_scale_all_count(fid: ModuleType) -> None:
    scales = np.array([1e-8, 1.0, 1e6])
    S1, S2 = np.diag(scales**2), np.diag((2 * scales) ** 2)
    assert fid.frechet(np.zeros(3), S1, np.zeros(3), S2) == pytest.approx((scales**2).sum(), rel=1e-12)
    assert fid.factor(S1).shape == (3, 3)


def test_factor_finds_the_rank_and_rebuilds(fid: ModuleType) -> None:
    S = np.cov(mixed(10, 30, 0), rowvar=False)
    L = fid.factor(S)
    assert L.shape == (30, 9)
    np.testing.assert_allclose(L @ L.T, S, atol=1e-12 * np.trace(S))


def test_frechet_refuses_what_is_no_covariance(fid: ModuleType) -> None:
    with pytest.raises(ValueError, match="finite"):
        fid.frechet(Z8, np.full((8, 8), np.nan), Z8, I8)
    with pytest.raises(ValueError, match="finite"):
        fid.moments([np.array([[1.0, np.inf], [0, 1]])])
    with pytest.raises(ValueError, match="at least 2"):
        fid.moments([np.ones((1, 3))])
    with pytest.raises(ArithmeticError, match="positive semidefinite"):
        fid.frechet(Z2, np.array([[1.0, 5], [5, 1]]), Z2, np.array([[-3.0, 0], [0, 0]]))


def test_too_few_images(fid: ModuleType) -> None:
    reference = fid.Gaussian.of(np.zeros(6), np.eye(6))
    with pytest.raises(ValueError, match="at least 72"):
        fid.extrapolate(mixed(71, 6, 1), reference, seed=1)
    real = Seen(mixed(90, 40, 2))
    found = by_name(fid.compute(evidence(Seen(mixed(30, 40, 1)), real)))
    assert found["fid"].value > 0
    assert found["fid"].interval is None
    assert "singular" in found["fid"].note
    # in 40 dimensions a third of 100 images has no full rank yet
    found = by_name(fid.compute(evidence(Seen(mixed(100, 40, 1)), real)))
    assert found["fid"].interval is not None
    assert (found["fid_infinity"].value, found["fid_infinity"].note) == (None, "needs at least 123 images")


def test_without_infinity_the_error_at_n_is_the_same(fid: ModuleType) -> None:
    rng = np.random.default_rng(0)
    x, reference = rng.standard_normal((150, 5)), fid.Gaussian.of(np.zeros(5), np.eye(5))
    whole, part = (fid.extrapolate(x, reference, seed=1, infinity=infinity) for infinity in (True, False))
    assert (part.fid, part.fid_se) == (whole.fid, whole.fid_se)
    assert np.isnan([part.infinity, part.infinity_se]).all()
    assert np.isfinite([whole.infinity, whole.infinity_se]).all()


def test_moments_of_more_dimensions_than_a_block(fid: ModuleType) -> None:
    x = np.random.default_rng(3).standard_normal((40, 300)) @ np.diag(np.linspace(1, 3, 300)) + 7
    mean, covariance, n = fid.moments([x[:13], x[13:]])
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(x, rowvar=False), atol=1e-12)
    assert n == 40
