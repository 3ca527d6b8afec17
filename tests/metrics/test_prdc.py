from __future__ import annotations

import numpy as np
import pytest

from genbench.metrics.prdc import PRDC, prdc


def clouds(n: int = 60, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)).astype(np.float32), rng.standard_normal((n, d)).astype(np.float32) + 100


A, B = clouds()
AB = np.concatenate([A, B])


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [(A, A, (1, 1, 4 / 3, 1)), (AB, A, (1, 0.5, 4 / 3, 0.5)), (A, AB, (0.5, 1, 2 / 3, 1))],
    ids=["identical", "half missing", "half wrong"],
)
@pytest.mark.parametrize("block", [7, 512])
def test_golden_values(real: np.ndarray, fake: np.ndarray, expected: tuple[float, ...], block: int) -> None:
    assert prdc(real, fake, k=3, k_density=3, block=block) == pytest.approx(expected, abs=1e-12)


def test_all_duplicates() -> None:
    x = np.tile(np.float32([0.1, 1.7, -2.3]), (12, 1))
    assert prdc(x, x)[:2] == (1, 1)


def test_the_rim_is_inside() -> None:
    # radii on the line 0 … 9 with k = 3: at least 2; a point at distance exactly 3 from the end 0 lies on its ball's rim
    real = np.arange(10.0)[:, None]
    fake = np.concatenate([np.full((1, 1), -3.0), np.full((9, 1), -1e3)])
    assert prdc(real, fake).precision == pytest.approx(0.1)
    assert prdc(real, fake - 1e-6).precision == 0


def test_against_the_definitions() -> None:
    rng = np.random.default_rng(4)
    real, fake = rng.standard_normal((80, 4)), 0.7 * rng.standard_normal((110, 4)) + 0.4

    def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))

    def radius(x: np.ndarray, k: int) -> np.ndarray:
        return np.sort(distances(x, x), axis=1)[:, k]

    across = distances(fake, real)
    inside = across <= radius(real, 5)
    precision = (across <= radius(real, 3)).any(axis=1).mean()
    recall = (across <= radius(fake, 3)[:, None]).any(axis=0).mean()
    expected = PRDC(precision, recall, inside.sum() / (5 * 110), inside.any(axis=0).mean())
    assert prdc(real, fake, block=13) == pytest.approx(expected, abs=1e-12)


def test_swapping_the_sets_swaps_precision_and_recall() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((200, 5)), 0.5 * rng.standard_normal((200, 5))
    there, back = prdc(x, y), prdc(y, x)
    assert there.precision > there.recall + 0.2
    assert (back.precision, back.recall) == (there.recall, there.precision)


def test_expectation_for_two_samples_of_one_distribution() -> None:
    rng = np.random.default_rng(2)
    values = np.mean([prdc(rng.standard_normal((500, 8)), rng.standard_normal((500, 8))) for _ in range(6)], axis=0)
    assert values[2] == pytest.approx(1, abs=0.05)
    assert values[3] == pytest.approx(0.969, abs=0.015)


def test_scale_rotation_and_order_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((150, 6)), rng.standard_normal((150, 6)) + 0.5
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    value = prdc(x, y)
    assert prdc(1e3 * x, 1e3 * y) == pytest.approx(value)
    assert prdc(x @ rotation + 5, y @ rotation + 5) == pytest.approx(value)
    assert prdc(x[::-1], y[rng.permutation(150)]) == pytest.approx(value)


def test_too_few_points() -> None:
    with pytest.raises(ValueError, match="at least 6"):
        prdc(A[:5], A)
