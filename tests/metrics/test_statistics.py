from __future__ import annotations

import numpy as np
import pytest

from genbench.metrics import statistics as st


def images(n: int = 200, channels: int = 1, size: int = 8, seed: int = 0, low: int = 0, high: int = 100) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = rng.integers(low, high, (n, channels, size, size)) // 2
    smooth = smooth + np.roll(smooth, 1, axis=3)
    return smooth.astype(np.uint8)


def compare(g: np.ndarray, r: np.ndarray) -> dict[str, float]:
    return st.measure(st.summarise(g), st.summarise(r))


@pytest.mark.parametrize("channels", [1, 3])
def test_identical_sets_measure_zero(channels: int) -> None:
    x = images(channels=channels)
    values = compare(x, x)
    assert values.pop("diversity") == 1
    assert values == pytest.approx(dict.fromkeys(values, 0.0), abs=1e-12)


def test_a_shift_by_ten_levels() -> None:
    x = images()
    values = compare(x + 10, x)
    assert values["w1"] * 255 == pytest.approx(10, abs=1e-10)
    assert values["w1_pooled"] * 255 == pytest.approx(10, abs=1e-10)
    assert values["mean_gap"] * 255 == pytest.approx(10, abs=1e-10)
    assert values["quantile_gap"] * 255 == pytest.approx(10, abs=1e-10)
    assert values["diversity"] == pytest.approx(1)
    for name in ("variance_gap", "covariance", "correlation", "spectrum_db"):
        assert values[name] == pytest.approx(0, abs=1e-6), name


def test_doubled_contrast() -> None:
    x = images(size=16)
    g, r = st.summarise(2 * x), st.summarise(x)
    assert r.spectrum.min() > 20  # far above the quantisation power
    np.testing.assert_allclose(st.spectrum_gap(g, r), 6.0206, atol=0.02)
    assert st.covariance(g, r) == pytest.approx(3)  # 4 S - S
    assert st.correlation(g, r)[0] == pytest.approx(0, abs=1e-9)
    assert st.diversity(g, r) == pytest.approx(2)
    v = x.var(axis=0).ravel()
    assert st.variance_gap(g, r) == pytest.approx(np.log((4 * v + 1) / (v + 1)).mean())


def test_uniform_levels_against_their_lower_half() -> None:
    # every pixel takes each level equally often: W1 of U(0, 1) and U(0, ½) is ¼, on 256 levels 64 / 255; KS is ½
    levels = np.tile(np.arange(256, dtype=np.uint8)[:, None, None, None], (1, 1, 4, 4))
    values = compare(levels // 2, levels)
    assert values["w1"] == pytest.approx(64 / 255, abs=1e-3)
    assert values["w1"] == pytest.approx(values["w1_pooled"])
    assert values["ks"] == pytest.approx(0.5, abs=4e-3)


def test_quantiles_are_the_lower_inverse_of_the_cdf() -> None:
    # of 4 images: ranks ⌈.01·4⌉ … = 1, 1, 1, 2, 3, 4, 4
    x = np.array([10, 20, 30, 40], np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 1, 2, 2), np.uint8)
    zero = np.zeros_like(x)
    assert st.quantile_gap(st.summarise(x), st.summarise(zero)) * 255 * 7 == pytest.approx(10 + 10 + 10 + 20 + 30 + 40 + 40)


def test_two_samples_of_the_uniform_distribution() -> None:
    # W1 of U(0, 1) against itself at n = 1000 is 0.01401 on average
    a, b = (np.random.default_rng(s).integers(0, 256, (1000, 1, 16, 16), dtype=np.uint8) for s in (0, 1))
    assert compare(a, b)["w1"] == pytest.approx(0.01401, rel=0.05)


def test_permuting_pixels_keeps_the_marginals_and_changes_the_spectrum() -> None:
    x, y = images(seed=1, size=16), images(seed=2, size=16)
    order = np.random.default_rng(0).permutation(256)

    def shuffled(a: np.ndarray) -> np.ndarray:
        return a.reshape(len(a), -1)[:, order].reshape(a.shape)

    before, both = compare(x, y), compare(shuffled(x), shuffled(y))
    for name in ("mean_gap", "variance_gap", "quantile_gap", "w1", "w1_pooled", "ks", "diversity"):
        assert both[name] == pytest.approx(before[name], rel=1e-12), name
    one = compare(shuffled(x), x)
    assert one["w1_pooled"] == 0
    assert one["spectrum_db"] > 1


@pytest.mark.parametrize("channels", [1, 3])
def test_neither_chunks_nor_order_matter(channels: int) -> None:
    x, r = images(230, channels, 20), st.summarise(images(100, channels, 20, seed=3))
    value = st.measure(st.summarise(x), r)
    assert st.measure(st.summarise(x, chunk=17), r) == pytest.approx(value, rel=1e-9)
    assert st.measure(st.summarise(x[np.random.default_rng(0).permutation(230)], chunk=64), r) == pytest.approx(value, rel=1e-9)


def test_measures_are_not_symmetric_where_they_should_not_be() -> None:
    x, y = images(), images(low=20, high=90, seed=5)
    there, back = compare(x, y), compare(y, x)
    assert there["covariance"] != pytest.approx(back["covariance"], rel=1e-2)
    assert there["diversity"] == pytest.approx(1 / back["diversity"])
    for name in ("mean_gap", "variance_gap", "w1", "ks", "correlation", "spectrum_db"):
        assert there[name] == pytest.approx(back[name])


def test_growing_noise_never_brings_measures_closer() -> None:
    x = images(400, size=16)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(x.shape)
    runs = [compare(np.clip(x + amount * noise, 0, 255).astype(np.uint8), x) for amount in (5, 15, 45, 120)]
    for name in ("w1", "ks", "mean_gap", "variance_gap", "covariance", "correlation", "spectrum_db"):
        values = [run[name] for run in runs]
        assert values == sorted(values), name


def test_constant_pixels_are_masked_and_counted() -> None:
    x, y = images(seed=1), images(seed=2)
    y[:, :, 0, :3] = 7
    value, masked = st.correlation(st.summarise(x), st.summarise(y))
    assert masked == 3
    keep = np.arange(3, 64)
    flat_x, flat_y = (a.reshape(len(a), -1)[:, keep].astype(float) for a in (x, y))
    gap = np.corrcoef(flat_x, rowvar=False) - np.corrcoef(flat_y, rowvar=False)
    assert value == pytest.approx(np.sqrt((gap[~np.eye(61, dtype=bool)] ** 2).mean()), rel=1e-9)


def test_a_constant_generator_is_finite_everywhere_and_gains_nothing() -> None:
    r = st.summarise(images())
    flat = np.full((50, 1, 8, 8), 49, np.uint8)
    values = st.measure(st.summarise(flat), r)
    assert np.isfinite(list(values.values())).all()
    assert values["diversity"] == 0
    assert values["duplicates"] == pytest.approx(0.98)
    assert values["covariance"] == pytest.approx(1)
    off = st.correlation(r, r)[0]
    assert values["correlation"] > off == 0


def test_class_histograms() -> None:
    g, r = np.array([500, *[0] * 9]), np.full(10, 30)
    assert st.class_tv(g, r) == pytest.approx(0.9)
    assert st.class_kl(g, r) == pytest.approx(2.302585, abs=1e-6)
    # the other way round KL meets nine classes that are unseen: each counts as half an image of 500
    assert st.class_kl(r, g) == pytest.approx(0.1 * np.log(0.1) + 0.9 * np.log(0.1 / (0.5 / 500)))
    values = st.measure(st.summarise(images(), g), st.summarise(images(), r))
    assert values["class_tv"] == pytest.approx(0.9)


def test_radial_power_obeys_parseval_and_finds_a_wave() -> None:
    x = np.arange(16)
    wave = np.rint(127 + 100 * np.sin(2 * np.pi * 3 * x / 16)).astype(np.uint8)
    image = np.tile(wave, (2, 1, 16, 1))
    power = st.radial_power(image)
    assert power.shape == (2, 8)
    assert power[0].argmax() == 2  # radius 3
    noise = np.random.default_rng(0).integers(0, 256, (4000, 1, 16, 16), dtype=np.uint8)
    np.testing.assert_allclose(st.radial_power(noise).mean(axis=0), (256**2 - 1) / 12, rtol=0.03)
    np.testing.assert_allclose(st.radial_power(np.swapaxes(noise, 2, 3)), st.radial_power(noise), rtol=1e-4)


@pytest.mark.parametrize("size", [7, 9])
def test_radial_power_against_the_whole_plane(size: int) -> None:
    x = np.random.default_rng(1).integers(0, 256, (3, 2, size, size), dtype=np.uint8)
    power = (np.abs(np.fft.fft2(x)) ** 2 / size**2).mean(axis=1)
    f = np.fft.fftfreq(size, 1 / size)
    radius = np.rint(np.hypot(f[:, None], f)).astype(int)
    expected = np.stack([power[:, radius == r].mean(axis=1) for r in range(1, size // 2 + 1)], axis=1)
    np.testing.assert_allclose(st.radial_power(x), expected, rtol=1e-4)


def test_area_pooling() -> None:
    np.testing.assert_allclose(st.area_weights(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(st.area_weights(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    np.testing.assert_allclose(st.area_weights(28, 16).sum(axis=1), 1)
    np.testing.assert_allclose(st.area_weights(28, 16).sum(axis=0), 16 / 28)


def test_luminance_weighs_colours() -> None:
    red = np.zeros((1, 3, 2, 2), np.uint8)
    red[:, 0] = 200
    np.testing.assert_allclose(st.luminance(red), 0.299 * 200)


def test_mean_distance_over_all_pairs() -> None:
    points = np.array([[0, 0], [3, 4], [3, 0]], np.uint8)
    assert st.mean_distance(points) == pytest.approx((5 + 3 + 4) / 3)
    many = np.random.default_rng(0).integers(0, 256, (1300, 30), dtype=np.uint8)
    d = np.sqrt(((many[:, None].astype(float) - many[None]) ** 2).sum(-1))
    assert st.mean_distance(many) == pytest.approx(d.sum() / (1300 * 1299), rel=1e-3)


def test_duplicates_are_counted_beyond_the_first() -> None:
    x = images(10)
    x[3] = x[7] = x[0]
    assert st.summarise(x, chunk=4).duplicates == pytest.approx(0.2)


def test_one_image_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        st.summarise(images(1))
