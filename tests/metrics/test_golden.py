"""Every value that can be written down: closed forms, and each statistical measure computed a second way.

The modules come as fixtures: test_sabotage.py calls these very functions with altered ones, and each alteration must fail here.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.spatial.distance import pdist

Z2, Z8, I8 = np.zeros(2), np.zeros(8), np.eye(8)
ONES = np.ones((16, 16))
CORRELATED = np.array([[2.0, 1], [1, 2]])
FRECHET = {
    "identical": (Z8, I8, Z8, I8, 0.0),
    "shift of 0.5 each": (Z8, I8, Z8 + 0.5, I8, 2.0),
    "I against 4 I": (Z8, I8, Z8, 4 * I8, 8.0),
    "do not commute": (Z2, CORRELATED, Z2, np.diag([1.0, 3]), 0.5166852264521),
    "rank one": (np.ones(16), ONES, 2 * np.ones(16), 2 * ONES, 18.74516600406),
    "both constant": (Z8, 0 * I8, Z8 + 1, 0 * I8, 8.0),
    "one constant": (Z8, I8, Z8, 0 * I8, 8.0),
}


# Fréchet distance


def test_frechet(fid: ModuleType) -> None:
    for case, (mu1, S1, mu2, S2, expected) in FRECHET.items():
        assert fid.frechet(mu1, S1, mu2, S2) == pytest.approx(expected, abs=1e-8), case
        assert fid.frechet(mu2, S2, mu1, S1) == pytest.approx(expected, abs=1e-8), case


def test_the_written_constants() -> None:
    assert FRECHET["do not commute"][-1] == pytest.approx(8 - 2 * np.sqrt(14), abs=1e-12)
    assert FRECHET["rank one"][-1] == pytest.approx(64 - 32 * np.sqrt(2), abs=1e-11)
    for case, (mu1, S1, mu2, S2, expected) in FRECHET.items():
        roots = np.sqrt(np.clip(np.linalg.eigvals(S1 @ S2).real, 0, None))  # of S1 S2: a form that the code does not use
        assert ((mu1 - mu2) ** 2).sum() + np.trace(S1 + S2) - 2 * roots.sum() == pytest.approx(expected, abs=1e-6), case


def test_frechet_equals_the_singular_values_of_the_data(fid: ModuleType) -> None:
    # tr (S1 S2)^½ is the nuclear norm of X Yᵀ for centred, scaled data: no covariance is squared on the way
    for n1, n2, d in ((500, 400, 20), (15, 400, 32), (400, 15, 32), (12, 17, 48), (350, 900, 320)):
        x, y = (mixed(n, d, seed) for n, seed in ((n1, 1), (n2, 2)))
        X, Y = (x - x.mean(0)) / np.sqrt(n1 - 1), (y - y.mean(0)) / np.sqrt(n2 - 1)
        shift, total = x.mean(0) - y.mean(0), (X**2).sum() + (Y**2).sum()
        expected = shift @ shift + total - 2 * np.linalg.svd(X @ Y.T, compute_uv=False).sum()
        assert fid.frechet(*fid.moments([x])[:2], *fid.moments([y])[:2]) == pytest.approx(expected, abs=1e-10 * total), (n1, n2, d)


def test_frechet_of_singular_covariances(fid: ModuleType) -> None:
    # projections on 60 of 120 dimensions that share 30: tr (S1 S2)^½ = 30; half of the factors' product is nothing but rounding
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((120, 120)))[0]
    S1, S2 = Q[:, :60] @ Q[:, :60].T, Q[:, 30:90] @ Q[:, 30:90].T
    assert fid.frechet(np.zeros(120), S1, np.zeros(120), S2) == pytest.approx(60, abs=1e-9)
    # small eigenvalues are no rounding: a geometric series down to 1e-11
    S = (Q * np.geomspace(1e-11, 1, 120)) @ Q.T
    assert fid.frechet(np.zeros(120), S, np.ones(120), 4 * S) == pytest.approx(120 + np.geomspace(1e-11, 1, 120).sum(), abs=1e-9)


def test_bias_of_two_samples_of_one_gaussian(fid: ModuleType) -> None:
    d, n = 16, 500
    expected = 2 * d / n + d * (d + 1) / (2 * (n - 1))
    assert expected == pytest.approx(0.3365, abs=5e-5)
    rng = np.random.default_rng(0)
    pairs = [[fid.moments([rng.standard_normal((n, d))])[:2] for _ in "gr"] for _ in range(150)]
    values = [fid.frechet(*g, *r) for g, r in pairs]
    assert np.mean(values) == pytest.approx(expected, abs=0.009)  # 3 standard errors, and terms of higher order


def test_moments(fid: ModuleType) -> None:
    x = np.array([[1.0, 2], [3, 2], [5, 8]])
    mu, S, n = fid.moments([x])
    np.testing.assert_allclose(mu, [3, 4], rtol=1e-15)
    np.testing.assert_allclose(S, [[4, 6], [6, 12]], rtol=1e-14)
    assert n == 3


# Kernel distance


def test_kid_of_points_at_0_against_points_at_1(kid: ModuleType) -> None:
    assert kid.mmd2(np.zeros((5, 1)), np.ones((4, 1))) == pytest.approx(7, abs=1e-12)
    assert kid.kid(np.zeros((20, 1)), np.ones((30, 1)), seed=0) == pytest.approx((7, 0), abs=1e-12)


def test_kid_by_hand_without_the_diagonal(kid: ModuleType) -> None:
    x, y = np.array([[0.0, 1], [2, 0], [1, 1]]), np.array([[1.0, 3], [0, 0]])

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 2 + 1) ** 3)

    within_x = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / 6
    within_y = 2 * k(y[0], y[1]) / 2
    across = sum(k(a, b) for a in x for b in y) / 6
    assert kid.mmd2(x, y) == pytest.approx(within_x + within_y - 2 * across, rel=1e-14)
    # of subsets that are the whole sets, each is that value, and its spread is none
    assert kid.kid(x[:2], y, seed=0, subsets=3, size=2)[0] == pytest.approx(kid.mmd2(x[:2], y), rel=1e-12)


def test_kid_of_shifted_gaussians(kid: ModuleType) -> None:
    d = m = 8  # m = |μ|² for μ = 1
    expected = 3 * m / d + 3 * m**2 / d**2 + (m**3 + 6 * m**2 + 3 * m * d + 6 * m) / d**3
    assert expected == 8.21875
    rng = np.random.default_rng(0)
    values = [kid.mmd2(rng.standard_normal((250, d)), rng.standard_normal((250, d)) + 1) for _ in range(80)]
    assert np.mean(values) == pytest.approx(expected, abs=0.25)
    assert abs(np.mean(values) - expected) < 3 * np.std(values) / np.sqrt(80)


def test_kid_over_subsets_is_that_of_each_subset(kid: ModuleType) -> None:
    # both ways to compute it: few small subsets one by one, many from one kernel matrix
    rng = np.random.default_rng(5)
    for m, n, size in ((90, 70, 30), (700, 600, 200), (2000, 300, 20)):
        x, y = rng.standard_normal((m, 6)), rng.standard_normal((n, 6)) + 0.5
        drawn = np.random.default_rng(1)
        values = [kid.mmd2(x[drawn.choice(m, size, replace=False)], y[drawn.choice(n, size, replace=False)]) for _ in range(40)]
        assert kid.kid(x, y, seed=1, subsets=40, size=size) == pytest.approx((np.mean(values), np.std(values)), abs=1e-10), (m, n)


# Inception Score


def one_hot(n: int, smooth: float = 0.0) -> np.ndarray:
    """(n, 10) log-probabilities of images sorted by class; `smooth` of the mass is spread over all classes."""
    p = np.eye(10)[np.repeat(np.arange(10), n // 10)] * (1 - smooth) + smooth / 10
    with np.errstate(divide="ignore"):
        return np.log(p)


def test_inception_score(inception_score: ModuleType) -> None:
    assert inception_score.inception_score(np.zeros((50, 10)), seed=0) == pytest.approx((1, 0), abs=1e-12)
    assert inception_score.score_in_order(one_hot(1000), 1)[0] == pytest.approx(10, abs=1e-12)
    assert np.exp(0.91 * np.log(9.1) + 0.09 * np.log(0.1)) == pytest.approx(6.0635598278, abs=1e-10)
    assert inception_score.score_in_order(one_hot(1000, smooth=0.1), 1)[0] == pytest.approx(6.0635598278, abs=1e-9)


def test_inception_score_by_hand_in_two_splits(inception_score: ModuleType) -> None:
    p = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    first = np.exp(np.mean([np.sum(row * np.log(row / p[:2].mean(0))) for row in p[:2]]))
    mean, spread = inception_score.score_in_order(3 + np.log(p), 2)
    assert (mean, spread) == pytest.approx(((first + 1) / 2, (first - 1) / 2), rel=1e-12)


def test_inception_score_of_splits_sorted_by_class_is_a_trap(inception_score: ModuleType) -> None:
    assert inception_score.score_in_order(one_hot(5000), 10)[0] == pytest.approx(1)
    mean, spread = inception_score.inception_score(one_hot(5000), seed=0)
    assert 9.8 < mean < 10
    assert 0 < spread < 0.1


# Precision, recall, density, coverage


def clouds(n: int = 60, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)).astype(np.float32), rng.standard_normal((n, d)).astype(np.float32) + 100


def test_prdc(prdc: ModuleType) -> None:
    A, B = clouds()
    both = np.concatenate([A, B])
    for real, fake, expected in ((A, A, (1, 1, 4 / 3, 1)), (both, A, (1, 0.5, 4 / 3, 0.5)), (A, both, (0.5, 1, 2 / 3, 1))):
        for block in (7, 512):
            assert prdc.prdc(real, fake, k=3, k_density=3, block=block) == pytest.approx(expected, abs=1e-12)


def test_prdc_of_duplicates(prdc: ModuleType) -> None:
    x = np.tile(np.float32([0.1, 1.7, -2.3]), (12, 1))
    assert prdc.prdc(x, x)[:2] == (1, 1)


def test_the_rim_is_inside(prdc: ModuleType) -> None:
    # radii on the line 0 … 9 with k = 3: at least 2; a point at distance exactly 3 from the end 0 lies on its ball's rim
    real = np.arange(10.0)[:, None]
    fake = np.concatenate([np.full((1, 1), -3.0), np.full((9, 1), -1e3)])
    assert prdc.prdc(real, fake).precision == pytest.approx(0.1)
    assert prdc.prdc(real, fake - 1e-6).precision == 0


def test_prdc_against_the_definitions(prdc: ModuleType) -> None:
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
    expected = (precision, recall, inside.sum() / (5 * 110), inside.any(axis=0).mean())
    assert len({round(value, 3) for value in expected}) == 4
    assert prdc.prdc(real, fake) == pytest.approx(expected, abs=1e-12)


def test_density_and_coverage_of_two_samples_of_one_distribution(prdc: ModuleType) -> None:
    covered = 1 - 0.5**5
    assert covered == pytest.approx(0.969, abs=5e-4)
    rng = np.random.default_rng(2)
    values = np.mean([prdc.prdc(rng.standard_normal((400, 8)), rng.standard_normal((400, 8))) for _ in range(8)], axis=0)
    assert values[2] == pytest.approx(1, abs=0.05)
    assert values[3] == pytest.approx(covered, abs=0.012)


# Statistical fidelity: each measure a second way, on colour images whose levels, ranges and numbers are unequal


def mixed(n: int, d: int, seed: int) -> np.ndarray:
    """(n, d) correlated float64 features of unequal scales and, by seed, other means."""
    mix = np.random.default_rng(99).standard_normal((d, d)) * np.geomspace(0.1, 3, d)
    return np.random.default_rng(seed).standard_normal((n, d)) @ mix + 0.3 * seed


def pictures(n: int, channels: int = 3, size: int = 32, *, seed: int = 0, low: int = 0, high: int = 160) -> np.ndarray:
    """(n, C, size, size) uint8: smooth noise under a gradient, so that no two pixels or channels are alike."""
    rng = np.random.default_rng(seed)
    grain = rng.integers(low, high, (n, channels, size, size)) * np.linspace(0.5, 1, size)
    grain *= np.linspace(0.6, 1, channels)[:, None, None]
    return ((grain + np.roll(grain, 1, axis=3)) / 2).astype(np.uint8)


G, R = pictures(60, seed=1), pictures(85, seed=2, low=30, high=220)[:, :, :, ::-1]  # brighter on the left, darker on the right
CROP_G, CROP_R = G[:, :, :9, -9:], R[:, :, :9, -9:]
FLAT_G, FLAT_R = (x.reshape(len(x), -1).astype(np.float64) for x in (CROP_G, CROP_R))


def compare(statistics: ModuleType, g: np.ndarray, r: np.ndarray) -> dict[str, float]:
    return statistics.measure(statistics.summarise(g), statistics.summarise(r))


def luminance_16(x: np.ndarray) -> np.ndarray:
    """(N, 3, 32, 32) -> (N, 256): ITU-R BT.601, 2 × 2 means."""
    y = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    return y.reshape(len(x), 16, 2, 16, 2).mean(axis=(2, 4)).reshape(len(x), -1)


def spectrum(x: np.ndarray) -> np.ndarray:
    """(N, C, H, H) -> (H // 2,) mean power at radii 1 … H // 2, from the whole plane."""
    size = x.shape[-1]
    power = (np.abs(np.fft.fft2(x)) ** 2 / size**2).mean(axis=(0, 1))
    f = np.fft.fftfreq(size, 1 / size)
    radius = np.rint(np.hypot(f[:, None], f)).astype(int)
    return np.array([power[radius == r].mean() for r in range(1, size // 2 + 1)])


def test_gaps_of_moments(statistics: ModuleType) -> None:
    values = compare(statistics, CROP_G, CROP_R)
    assert 0.2 < (FLAT_G.mean(0) < FLAT_R.mean(0)).mean() < 0.8  # the gaps have both signs
    mean, variance = (np.abs(f(FLAT_G) - f(FLAT_R)).mean() for f in (lambda x: x.mean(0) / 255, lambda x: np.log(x.var(0) + 1)))
    assert values["mean_gap"] == pytest.approx(mean, rel=1e-12)
    assert values["variance_gap"] == pytest.approx(variance, rel=1e-12)


def test_gap_of_quantiles(statistics: ModuleType) -> None:
    q = np.array([1, 5, 25, 50, 75, 95, 99]) / 100
    gap = np.quantile(FLAT_G, q, axis=0, method="inverted_cdf") - np.quantile(FLAT_R, q, axis=0, method="inverted_cdf")
    assert compare(statistics, CROP_G, CROP_R)["quantile_gap"] == pytest.approx(np.abs(gap).mean() / 255, rel=1e-12)
    # of 4 images: ranks ⌈.01·4⌉ … = 1, 1, 1, 2, 3, 4, 4
    x = np.array([10, 20, 30, 40], np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 1, 2, 2), np.uint8)
    assert compare(statistics, x, 0 * x)["quantile_gap"] * 255 * 7 == pytest.approx(10 + 10 + 10 + 20 + 30 + 40 + 40)


def test_distances_of_distributions(statistics: ModuleType) -> None:
    g, r = CROP_G[:, :, :2, :5], CROP_R[:, :, :2, :5]
    columns = list(zip(g.reshape(len(g), -1).T.astype(float), r.reshape(len(r), -1).T.astype(float), strict=True))
    values = compare(statistics, g, r)
    assert values["w1"] == pytest.approx(np.mean([scipy.stats.wasserstein_distance(a, b) for a, b in columns]) / 255, rel=1e-12)
    assert values["w1_pooled"] == pytest.approx(scipy.stats.wasserstein_distance(g.ravel(), r.ravel()) / 255, rel=1e-12)
    ks = [np.abs([(a <= v).mean() - (b <= v).mean() for v in range(256)]).max() for a, b in columns]
    assert values["ks"] == pytest.approx(np.mean(ks), rel=1e-12)


def test_dependence(statistics: ModuleType) -> None:
    g, r = luminance_16(G), luminance_16(R)
    S_g, S_r = np.cov(g, rowvar=False), np.cov(r, rowvar=False)
    values = compare(statistics, G, R)
    assert values["covariance"] == pytest.approx(np.linalg.norm(S_g - S_r) / np.linalg.norm(S_r), rel=1e-9)
    gap = (np.corrcoef(g, rowvar=False) - np.corrcoef(r, rowvar=False))[~np.eye(256, dtype=bool)]
    assert values["correlation"] == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-9)


def test_spectrum_of_the_whole_plane(statistics: ModuleType) -> None:
    for size in (12, 7, 9):  # even and odd: the half plane is counted differently
        g, r = G[:, :, :size, :size], R[:, :, :size, :size]
        gap = 10 * np.log10((spectrum(g) + 1 / 12) / (spectrum(r) + 1 / 12))
        np.testing.assert_allclose(statistics.spectrum_gap(statistics.summarise(g), statistics.summarise(r)), gap, rtol=1e-4, atol=1e-5)
        assert compare(statistics, g, r)["spectrum_db"] == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-5)


def test_spectrum_counts_the_power_of_rounding(statistics: ModuleType) -> None:
    # constant against a wave of known power: one level of amplitude is barely above 1/12
    wave = np.tile((np.arange(16) % 2).astype(np.uint8), (4, 1, 16, 1))  # radius 8 alone: |FFT|²/(HW) is 256/4 at one point
    flat = np.zeros_like(wave)
    gap = statistics.spectrum_gap(statistics.summarise(flat), statistics.summarise(wave))
    np.testing.assert_allclose(gap[:7], 0, atol=1e-9)
    assert gap[7] == pytest.approx(10 * np.log10((1 / 12) / (spectrum(wave)[7] + 1 / 12)), rel=1e-6)


def test_classes(statistics: ModuleType) -> None:
    one, uniform = np.array([500, *[0] * 9]), np.full(10, 30)
    assert statistics.class_tv(one, uniform) == pytest.approx(0.9)
    assert statistics.class_kl(one, uniform) == pytest.approx(2.302585, abs=1e-6)
    # the other way round KL meets nine classes that are unseen: each counts as half an image of 500
    assert statistics.class_kl(uniform, one) == pytest.approx(0.1 * np.log(0.1) + 0.9 * np.log(0.1 / (0.5 / 500)))
    g, r = np.array([60, 30, 10]), np.array([10, 20, 20])
    p, q = g / 100, r / 50
    values = statistics.measure(statistics.summarise(CROP_G, g), statistics.summarise(CROP_R, r))
    assert values["class_tv"] == pytest.approx(0.4)
    assert values["class_kl"] == pytest.approx(scipy.stats.entropy(p, q), rel=1e-12)


def test_diversity_and_duplicates(statistics: ModuleType) -> None:
    assert compare(statistics, CROP_G, CROP_R)["diversity"] == pytest.approx(pdist(FLAT_G).mean() / pdist(FLAT_R).mean(), rel=1e-9)
    assert statistics.mean_distance(np.array([[0, 0], [3, 4], [3, 0]], np.uint8)) == pytest.approx((5 + 3 + 4) / 3)
    many = np.random.default_rng(0).integers(0, 256, (1200, 30), dtype=np.uint8)  # more than a block
    assert statistics.mean_distance(many) == pytest.approx(pdist(many).mean(), rel=2e-3)
    one_apart = np.array([[5, 5, 5], [5, 5, 6]], np.uint8)
    assert statistics.mean_distance(one_apart) == pytest.approx(1)
    some = CROP_G[:10].copy()
    some[3] = some[7] = some[0]
    assert compare(statistics, some, CROP_R)["duplicates"] == pytest.approx(0.2)


def test_a_shift_by_ten_levels(statistics: ModuleType) -> None:
    values = compare(statistics, CROP_R + 10, CROP_R)
    for name in ("w1", "w1_pooled", "mean_gap", "quantile_gap"):
        assert values[name] * 255 == pytest.approx(10, abs=1e-9), name
    assert values["diversity"] == pytest.approx(1)
    for name in ("variance_gap", "covariance", "correlation", "spectrum_db"):
        assert values[name] == pytest.approx(0, abs=1e-5), name


def test_uniform_levels_against_their_lower_half(statistics: ModuleType) -> None:
    # W1 of U(0, 1) and U(0, ½) is ¼, on 256 levels exactly 64 / 255; KS is ½
    levels = np.tile(np.arange(256, dtype=np.uint8)[:, None, None, None], (1, 1, 4, 4))
    values = compare(statistics, levels // 2, levels)
    assert values["w1"] == pytest.approx(64 / 255, rel=1e-12)
    assert values["w1_pooled"] == pytest.approx(64 / 255, rel=1e-12)
    assert values["ks"] == pytest.approx(0.5, rel=1e-12)


def test_two_samples_of_the_uniform_distribution(statistics: ModuleType) -> None:
    # E W1 of two empirical distributions of n is ∫ √(4 u (1 - u) / (π n)) du = √π / (4 √n)
    assert np.sqrt(np.pi) / (4 * np.sqrt(1000)) == pytest.approx(0.01401, abs=5e-6)
    a, b = (np.random.default_rng(s).integers(0, 256, (1000, 1, 16, 16), dtype=np.uint8) for s in (0, 1))
    assert compare(statistics, a, b)["w1"] == pytest.approx(0.01401, rel=0.05)


def test_doubled_contrast(statistics: ModuleType) -> None:
    x = pictures(200, 1, 16, high=127)
    g, r = statistics.summarise(2 * x), statistics.summarise(x)
    P = spectrum(x)
    assert P.min() > 50  # far above the power of rounding
    np.testing.assert_allclose(statistics.spectrum_gap(g, r), 6.0206, atol=0.01)
    np.testing.assert_allclose(statistics.spectrum_gap(g, r), 10 * np.log10((4 * P + 1 / 12) / (P + 1 / 12)), rtol=1e-4)
    assert statistics.covariance(g, r) == pytest.approx(3)  # 4 S - S
    assert statistics.correlation(g, r)[0] == pytest.approx(0, abs=1e-9)
    assert statistics.diversity(g, r) == pytest.approx(2)
    v = x.var(axis=0).ravel()
    assert statistics.variance_gap(g, r) == pytest.approx(np.log((4 * v + 1) / (v + 1)).mean())


def test_white_noise_has_the_power_of_its_variance_at_every_radius(statistics: ModuleType) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1, 16, 16), dtype=np.uint8)
    np.testing.assert_allclose(statistics.summarise(noise).spectrum, (256**2 - 1) / 12, rtol=0.03)


# Quantisation


def test_quantise(sample: ModuleType) -> None:
    x = torch.tensor([-1.0, 1.0, -1.3, 7.0, 0.0, -1 + 0.49 * 2 / 255, -1 + 0.51 * 2 / 255])
    assert sample.quantise(x).tolist() == [0, 255, 0, 255, 128, 0, 1]
    levels = torch.arange(256)
    assert sample.quantise(levels / 127.5 - 1).tolist() == levels.tolist()
