from __future__ import annotations

import numpy as np
import pytest

from genbench.metrics.kid import kid, mmd2, subset_size


def test_points_at_0_against_points_at_1() -> None:
    assert mmd2(np.zeros((5, 1)), np.ones((4, 1))) == pytest.approx(7, abs=1e-12)
    assert kid(np.zeros((20, 1)), np.ones((30, 1)), seed=0)[0] == pytest.approx(7, abs=1e-12)


def test_by_hand_without_the_diagonal() -> None:
    x, y = np.array([[0.0, 1], [2, 0], [1, 1]]), np.array([[1.0, 3], [0, 0]])

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 2 + 1) ** 3)

    within_x = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / 6
    within_y = 2 * k(y[0], y[1]) / 2
    across = sum(k(a, b) for a in x for b in y) / 6
    assert mmd2(x, y) == pytest.approx(within_x + within_y - 2 * across, rel=1e-14)


def test_expectation_for_shifted_gaussians() -> None:
    d = 8
    m = float(d)  # |μ|² for μ = 1
    expected = 3 * m / d + 3 * m**2 / d**2 + (m**3 + 6 * m**2 + 3 * m * d + 6 * m) / d**3
    assert expected == pytest.approx(8.21875)
    rng = np.random.default_rng(0)
    values = [mmd2(rng.standard_normal((1500, d)), rng.standard_normal((1500, d)) + 1) for _ in range(6)]
    assert np.mean(values) == pytest.approx(expected, abs=0.35)


def test_about_half_of_the_estimates_are_negative_under_the_null() -> None:
    rng = np.random.default_rng(1)
    values = np.array([mmd2(rng.standard_normal((100, 6)), rng.standard_normal((100, 6))) for _ in range(200)])
    assert 0.4 < (values < 0).mean() < 0.75
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(200)


def test_symmetric_seeded_and_growing_with_noise() -> None:
    rng = np.random.default_rng(2)
    x, y, noise = (rng.standard_normal((n, 5)).astype(np.float32) for n in (200, 150, 200))
    assert mmd2(x, y) == pytest.approx(mmd2(y, x), abs=1e-12)
    assert kid(x, y, seed=3) == kid(x, y, seed=3)
    assert kid(x, y, seed=3) != kid(x, y, seed=4)
    values = [mmd2(x, x * 1 + amount * noise) for amount in (0.3, 1, 2, 4)]
    assert values == sorted(values)


@pytest.mark.parametrize(("m", "n", "size"), [(90, 70, 30), (700, 600, 200), (2000, 300, 20)])
def test_one_pass_over_all_images_and_one_a_subset_agree(m: int, n: int, size: int) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((m, 6)), rng.standard_normal((n, 6)) + 0.5
    drawn, rng = [], np.random.default_rng(1)
    for _ in range(40):
        r, f = rng.choice(m, size, replace=False), rng.choice(n, size, replace=False)
        drawn.append(mmd2(x[r], y[f]))
    assert kid(x, y, seed=1, subsets=40, size=size) == pytest.approx((np.mean(drawn), np.std(drawn)), abs=1e-10)


def test_subsets() -> None:
    assert subset_size(10_000, 10_000) == 1000
    assert subset_size(300, 500) == 150
    with pytest.raises(ValueError, match="at least 2"):
        kid(np.zeros((3, 2)), np.zeros((9, 2)), seed=0)
