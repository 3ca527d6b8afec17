from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from tests.metrics.test_golden import pictures


def test_area_pooling(statistics: ModuleType) -> None:
    np.testing.assert_allclose(statistics.area_weights(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(statistics.area_weights(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    np.testing.assert_allclose(statistics.area_weights(28, 16).sum(axis=1), 1)
    np.testing.assert_allclose(statistics.area_weights(28, 16).sum(axis=0), 16 / 28)


def test_luminance_weighs_colours(statistics: ModuleType) -> None:
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        x = np.zeros((1, 3, 2, 2), np.uint8)
        x[:, channel] = 200
        np.testing.assert_allclose(statistics.luminance(x), weight * 200)


def test_radial_power_of_each_image(statistics: ModuleType) -> None:
    x = pictures(5, 3, 16)
    power = statistics.radial_power(x)
    assert power.shape == (5, 8)
    np.testing.assert_allclose(power.mean(axis=0), statistics.summarise(x).spectrum, rtol=1e-6)
    np.testing.assert_allclose(statistics.radial_power(np.swapaxes(x, 2, 3)), power, rtol=1e-4)


def test_real_images_without_variance(statistics: ModuleType) -> None:
    flat, x = (statistics.summarise(images) for images in (np.full((9, 1, 8, 8), 3, np.uint8), pictures(40, 1, 8)))
    assert (statistics.covariance(flat, flat), statistics.covariance(x, flat)) == (0, np.inf)
    assert (statistics.diversity(flat, flat), statistics.diversity(x, flat)) == (1, np.inf)
    assert statistics.correlation(x, flat) == (0, 64)


def test_one_image_is_too_few(statistics: ModuleType) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        statistics.summarise(pictures(1))


def test_parts_merge_into_the_whole(statistics: ModuleType) -> None:
    x = pictures(90, 3, 20)
    x[:50] //= 2
    x[70] = x[3]  # a duplicate in another part
    classes = np.array([[20, 10, 20], [5, 30, 5]])
    whole = statistics.summarise(x, classes.sum(axis=0))
    merged = statistics.merge(statistics.summarise(x[:50], classes[0]), statistics.summarise(x[50:], classes[1]))
    assert (merged.n, merged.duplicates) == (whole.n, whole.duplicates)
    assert whole.duplicates == pytest.approx(1 / 90)
    for name in ("counts", "classes", "digests"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
    for name in ("mean", "covariance", "spectrum"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-9, atol=1e-9)
    parts = [statistics.mean_distance(part) for part in (x[:50], x[50:])]
    assert merged.distance == pytest.approx((50 * parts[0] + 40 * parts[1]) / 90)
    with pytest.raises(ValueError, match="class counts"):
        statistics.merge(whole, statistics.summarise(x))
