from __future__ import annotations

import numpy as np
import pytest

from genbench.metrics import fid


def sample(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Correlated features of unequal scales: (n, d) float32."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((d, d)) * np.geomspace(0.1, 3, d)
    return (rng.standard_normal((n, d)) @ mix + 0.3 * seed).astype(np.float32)


def of_features(x: np.ndarray, y: np.ndarray) -> float:
    (mu1, S1, _), (mu2, S2, _) = fid.moments([x]), fid.moments([y])
    return fid.frechet(mu1, S1, mu2, S2)


Z2, Z8, I8 = np.zeros(2), np.zeros(8), np.eye(8)
GOLDEN = {
    "identical": (Z8, I8, Z8, I8, 0.0),
    "shift": (Z8, I8, Z8 + 0.5, I8, 2.0),
    "scale": (Z8, I8, Z8, 4 * I8, 8.0),
    "correlated": (Z2, np.array([[2.0, 1], [1, 2]]), Z2, np.diag([1.0, 3]), 8 - 2 * np.sqrt(14)),
    "rank one": (np.ones(16), np.ones((16, 16)), 2 * np.ones(16), 2 * np.ones((16, 16)), 64 - 32 * np.sqrt(2)),
    "both constant": (Z8, 0 * I8, Z8 + 1, 0 * I8, 8.0),
    "one constant": (Z8, I8, Z8, 0 * I8, 8.0),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_frechet_golden_values(case: str) -> None:
    *moments, expected = GOLDEN[case]
    assert fid.frechet(*moments) == pytest.approx(expected, abs=1e-8)
    assert fid.frechet(*moments[2:], *moments[:2]) == pytest.approx(expected, abs=1e-8)


def test_golden_constants_are_those_of_the_protocol() -> None:
    assert GOLDEN["correlated"][-1] == pytest.approx(0.5166852264521, abs=1e-12)
    assert GOLDEN["rank one"][-1] == pytest.approx(18.74516600406, abs=1e-11)


@pytest.mark.parametrize(("n", "d"), [(500, 16), (40, 128), (700, 300), (200, 400)])
def test_frechet_of_a_set_with_itself_is_zero_at_any_rank(n: int, d: int) -> None:
    x = sample(n, d)
    assert abs(of_features(x, x)) <= 1e-9 * max(1, np.trace(fid.moments([x])[1]))


@pytest.mark.parametrize(("n1", "n2", "d"), [(500, 400, 20), (15, 400, 32), (400, 15, 32), (12, 17, 48), (350, 900, 320)])
def test_frechet_equals_the_singular_values_of_the_data(n1: int, n2: int, d: int) -> None:
    # tr (S1 S2)^½ is the nuclear norm of X Yᵀ for centred, scaled data: no covariance is squared on the way
    x, y = sample(n1, d, 1).astype(float), sample(n2, d, 2).astype(float)
    X, Y = (x - x.mean(0)) / np.sqrt(n1 - 1), (y - y.mean(0)) / np.sqrt(n2 - 1)
    shift = x.mean(0) - y.mean(0)
    expected = shift @ shift + (X**2).sum() + (Y**2).sum() - 2 * np.linalg.svd(X @ Y.T, compute_uv=False).sum()
    assert of_features(x, y) == pytest.approx(expected, abs=1e-10 * ((X**2).sum() + (Y**2).sum()))


def test_frechet_is_symmetric_rotation_invariant_and_quadratic_in_scale() -> None:
    x, y = sample(300, 24, 1).astype(float), sample(260, 24, 2).astype(float)
    value = of_features(x, y)
    rotation = np.linalg.qr(np.random.default_rng(5).standard_normal((24, 24)))[0]
    assert of_features(y, x) == pytest.approx(value, rel=1e-10)
    assert of_features(x @ rotation, y @ rotation) == pytest.approx(value, rel=1e-9)
    assert of_features(3 * x, 3 * y) == pytest.approx(9 * value, rel=1e-10)
    assert of_features(x[::-1], y) == pytest.approx(value, rel=1e-12)


def test_features_of_very_different_scale_all_count() -> None:
    scales = np.array([1e-8, 1.0, 1e6])
    S1, S2 = np.diag(scales**2), np.diag((2 * scales) ** 2)
    assert fid.frechet(np.zeros(3), S1, np.zeros(3), S2) == pytest.approx((scales**2).sum(), rel=1e-12)
    assert fid.factor(S1).shape == (3, 3)


def test_factor_finds_the_rank_and_rebuilds() -> None:
    x = sample(10, 30).astype(float)
    S = np.cov(x, rowvar=False)
    L = fid.factor(S)
    assert L.shape == (30, 9)
    np.testing.assert_allclose(L @ L.T, S, atol=1e-12 * np.trace(S))


def test_frechet_grows_with_noise() -> None:
    x = sample(400, 12)
    rng = np.random.default_rng(3)
    noise = rng.standard_normal(x.shape).astype(np.float32)
    values = [of_features(x, x + amount * noise) for amount in (0, 0.5, 1, 2, 4)]
    assert values == sorted(values)
    assert values[-1] > 10 * values[1] > 0


def test_frechet_refuses_what_is_no_covariance() -> None:
    with pytest.raises(ValueError, match="finite"):
        fid.frechet(Z8, np.full((8, 8), np.nan), Z8, I8)
    with pytest.raises(ValueError, match="finite"):
        fid.moments([np.array([[1.0, np.inf], [0, 1]])])
    with pytest.raises(ValueError, match="at least 2"):
        fid.moments([np.ones((1, 3))])
    with pytest.raises(ArithmeticError, match="positive semidefinite"):
        fid.frechet(Z2, np.array([[1.0, 5], [5, 1]]), Z2, np.array([[-3.0, 0], [0, 0]]))


def test_moments_match_numpy_far_from_the_origin_and_do_not_depend_on_chunks() -> None:
    x = sample(1000, 7).astype(np.float64) * 1e-2 + 1e4
    mu, S, n = fid.moments([x])
    assert n == 1000
    np.testing.assert_allclose(mu, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(S, np.cov(x - x.mean(0), rowvar=False), rtol=1e-9)
    mu2, S2, n2 = fid.moments(np.split(x, [1, 3, 400, 401, 900]))
    assert n2 == n
    np.testing.assert_allclose(mu2, mu, rtol=1e-14)
    np.testing.assert_allclose(S2, S, rtol=1e-8)


def test_bias_of_two_samples_of_one_gaussian() -> None:
    d, n = 16, 500
    expected = 2 * d / n + d * (d + 1) / (2 * (n - 1))
    assert expected == pytest.approx(0.3365, abs=5e-5)
    rng = np.random.default_rng(0)
    values = [of_features(rng.standard_normal((n, d)), rng.standard_normal((n, d))) for _ in range(60)]
    assert np.mean(values) == pytest.approx(expected, abs=0.02)


def test_extrapolation_removes_the_bias_and_its_errors_are_of_the_right_size() -> None:
    d, n, shift = 16, 600, 0.2
    reference = fid.Gaussian.of(np.zeros(d), np.eye(d))
    runs = [fid.extrapolate(np.random.default_rng(s).standard_normal((n, d)) + shift, reference, seed=s) for s in range(60)]
    at_n, infinite = np.array([r.fid for r in runs]), np.array([r.infinity for r in runs])
    truth = d * shift**2
    assert at_n.mean() - truth > 0.1
    assert abs(infinite.mean() - truth) < 0.02
    # the jackknife's errors against the spread over independent samples
    assert np.mean([r.fid_se for r in runs]) == pytest.approx(at_n.std(ddof=1), rel=0.35)
    assert np.mean([r.infinity_se for r in runs]) == pytest.approx(infinite.std(ddof=1), rel=0.35)


def test_extrapolation_is_exact_at_n_and_follows_its_seed() -> None:
    x, y = sample(240, 6, 1), sample(300, 6, 2)
    reference = fid.Gaussian.of(*fid.moments([y])[:2])
    first = fid.extrapolate(x, reference, seed=1)
    assert first.fid == pytest.approx(of_features(x, y), rel=1e-10)
    assert first == fid.extrapolate(x, reference, seed=1)
    assert first.infinity != fid.extrapolate(x, reference, seed=2).infinity
    with pytest.raises(ValueError, match="at least 72"):
        fid.extrapolate(x[:71], reference, seed=1)
