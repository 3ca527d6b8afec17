"""What must hold whatever the data: symmetry, invariance, scaling, order, chunks, bounds, and that no argument is taken for another."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from genbench.extractors.builtin import builtin_extractors
from genbench.view import View
from tests.metrics.seen import Seen, by_name, evidence
from tests.metrics.test_golden import clouds, compare, mixed, one_hot, pictures

few = settings(max_examples=8, derandomize=True, deadline=None, database=None, phases=[Phase.generate], report_multiple_bugs=False)
seeds = st.integers(0, 10_000)


def rotation(d: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def distance(fid: ModuleType, x: np.ndarray, y: np.ndarray) -> float:
    return fid.frechet(*fid.moments([x])[:2], *fid.moments([y])[:2])


# Fréchet distance


def test_frechet_is_symmetric_rotation_invariant_and_quadratic_in_scale(fid: ModuleType) -> None:
    @few
    @given(seed=seeds, n=st.integers(5, 300), d=st.integers(1, 24), c=st.floats(1e-3, 1e3))
    def check(seed: int, n: int, d: int, c: float) -> None:
        x, y = mixed(n, d, seed % 5), mixed(60, d, 7)
        value, Q, order = distance(fid, x, y), rotation(d, seed), np.random.default_rng(seed).permutation(n)
        near = {"rel": 1e-7, "abs": 1e-9 * (x.var(0).sum() + y.var(0).sum())}
        assert distance(fid, y, x) == pytest.approx(value, **near)
        assert distance(fid, x @ Q, y @ Q) == pytest.approx(value, **near)
        assert distance(fid, c * x, c * y) == pytest.approx(c**2 * value, rel=1e-7, abs=c**2 * near["abs"])
        assert distance(fid, x + 3, y + 3) == pytest.approx(value, **near)
        assert distance(fid, x[order], y) == pytest.approx(value, **near)
        assert value > 0

    check()


def test_frechet_of_a_set_with_itself_is_zero_at_any_rank(fid: ModuleType) -> None:
    for n, d in ((500, 16), (40, 128), (700, 300), (200, 400)):
        x = mixed(n, d, 0).astype(np.float32)
        assert abs(distance(fid, x, x)) <= 1e-9 * max(1, np.trace(fid.moments([x])[1])), (n, d)


def test_moments_far_from_the_origin_do_not_depend_on_the_chunks(fid: ModuleType) -> None:
    @few
    @given(st.lists(st.integers(1, 999), max_size=6))
    def check(cuts: list[int]) -> None:
        x = mixed(1000, 7, 0) * 1e-2 + 1e4
        mu, S, n = fid.moments(np.split(x, sorted(cuts)))
        assert n == 1000
        np.testing.assert_allclose(mu, x.mean(0), rtol=1e-14)
        np.testing.assert_allclose(S, np.cov(x - x.mean(0), rowvar=False), rtol=1e-8)

    check()


def test_moments_of_float32_features_are_summed_in_float64(fid: ModuleType) -> None:
    x = (np.random.default_rng(0).standard_normal((3000, 3)) + 1000).astype(np.float32)
    mu, S, _ = fid.moments([x])
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mu, wide.mean(0), rtol=1e-13)
    np.testing.assert_allclose(S, np.cov(wide, rowvar=False), rtol=1e-9, atol=1e-12)


def test_extrapolation_removes_the_bias_and_its_errors_are_of_the_right_size(fid: ModuleType) -> None:
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


def test_extrapolation_is_exact_at_n_and_follows_its_seed(fid: ModuleType) -> None:
    x, y = mixed(240, 6, 1), mixed(300, 6, 2)
    reference = fid.Gaussian.of(*fid.moments([y])[:2])
    first = fid.extrapolate(x, reference, seed=1)
    assert first.fid == pytest.approx(distance(fid, x, y), rel=1e-10)
    assert first == fid.extrapolate(x, reference, seed=1)
    assert first.infinity != fid.extrapolate(x, reference, seed=2).infinity


def test_fid_is_against_the_reference_and_its_companion_against_the_other_split(fid: ModuleType) -> None:
    fake, test, train = (Seen(mixed(n, 6, seed)) for n, seed in ((150, 1), (160, 2), (170, 5)))
    found = by_name(fid.compute(evidence(fake, test, train)))
    assert found["fid"].value == pytest.approx(distance(fid, fake.features, test.features), rel=1e-9)
    assert found["fid_train"].value == pytest.approx(distance(fid, fake.features, train.features), rel=1e-9)
    assert (found["fid_train"].split, found["fid_train"].n_real) == ("train", 170)
    more = fid.extrapolate(fake.features, fid.Gaussian.of(*test.moments[:2]), seed=0)
    assert found["fid_infinity"].value == pytest.approx(more.infinity, rel=1e-9)
    # Student's t of 11 degrees of freedom: 95 % lies within 2.201
    low, high = found["fid"].interval
    assert (low, high) == pytest.approx((found["fid"].value - 2.201 * more.fid_se, found["fid"].value + 2.201 * more.fid_se), rel=1e-3)
    back = by_name(fid.compute(evidence(fake, train, test, reference="train", train=train, test=test)))
    assert (back["fid"].value, back["fid_test"].value) == pytest.approx((found["fid_train"].value, found["fid"].value), rel=1e-9)


# Kernel distance


def test_kid_is_symmetric_rotation_invariant_and_blind_to_order(kid: ModuleType) -> None:
    @few
    @given(seed=seeds, m=st.integers(2, 40), n=st.integers(2, 40), d=st.integers(1, 9))
    def check(seed: int, m: int, n: int, d: int) -> None:
        rng = np.random.default_rng(seed)
        x, y, Q = rng.standard_normal((m, d)), rng.standard_normal((n, d)) + 1, rotation(d, seed)
        value = kid.mmd2(x, y)
        near = pytest.approx(value, rel=1e-9, abs=1e-9)
        assert kid.mmd2(y, x) == near
        assert kid.mmd2(x @ Q, y @ Q) == near
        assert kid.mmd2(x[::-1], y[rng.permutation(n)]) == near
        # the kernel's 1/d: features repeated k times are as far apart as once
        assert kid.mmd2(np.tile(x, 3), np.tile(y, 3)) == near

    check()


def test_kid_is_unbiased(kid: ModuleType) -> None:
    rng = np.random.default_rng(1)
    values = np.array([kid.mmd2(rng.standard_normal((40, 6)), rng.standard_normal((60, 6))) for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert 0.4 < (values < 0).mean() < 0.75
    pairs = [(rng.standard_normal((60, 6)), rng.standard_normal((60, 6))) for _ in range(60)]
    several = np.array([kid.kid(x, y, seed=0, subsets=10, size=20)[0] for x, y in pairs])
    assert abs(several.mean()) < 3 * several.std() / np.sqrt(len(several))


def test_kid_follows_its_seed_and_its_size(kid: ModuleType) -> None:
    x, y = mixed(200, 5, 1).astype(np.float32), mixed(150, 5, 2).astype(np.float32)
    assert kid.kid(x, y, seed=3) == kid.kid(x, y, seed=3)
    assert kid.kid(x, y, seed=3) != kid.kid(x, y, seed=4)
    assert (kid.subset_size(10_000, 10_000), kid.subset_size(300, 500), kid.subset_size(500, 301)) == (1000, 150, 150)
    same = kid.kid(x, y, seed=3, size=75)
    assert kid.kid(x, y, seed=3) == pytest.approx(same, rel=1e-9)


def test_kid_hook_compares_fake_with_real(kid: ModuleType) -> None:
    rng = np.random.default_rng(0)
    x, y, z = (rng.standard_normal((n, 5)) + shift for n, shift in ((120, 0), (140, 1), (130, -3)))
    (found,) = kid.compute(evidence(Seen(x), Seen(y), Seen(z)))
    mean, spread = kid.kid(y, x, seed=0)
    assert abs(found.value - mean) < spread  # other subsets perhaps, the same quantity
    assert kid.kid(z, x, seed=0)[0] > 2 * found.value > 0
    assert "over 100 subsets of 60" in found.note


# Inception Score


def test_inception_score_lies_between_1_and_the_number_of_classes(inception_score: ModuleType) -> None:
    @few
    @given(seed=seeds, k=st.integers(2, 12), scale=st.floats(0, 50))
    def check(seed: int, k: int, scale: float) -> None:
        logits = scale * np.random.default_rng(seed).standard_normal((200, k))
        mean, spread = inception_score.inception_score(logits, seed=seed)
        assert 1 - 1e-9 <= mean <= k
        assert spread >= 0
        # a softmax does not see a constant, and classes have no order
        assert inception_score.inception_score(logits[:, ::-1] + 1e4, seed=seed) == pytest.approx((mean, spread), rel=1e-6, abs=1e-8)

    check()


def test_inception_score_hook_shuffles_and_follows_its_seed(inception_score: ModuleType) -> None:
    fake = Seen(np.zeros((1000, 2)), logits=one_hot(1000).clip(-50, 0))
    real = Seen(np.zeros((1000, 2)), logits=np.zeros((1000, 10)))
    found, _ = inception_score.compute(evidence(fake, real))
    assert 9.3 < found.value < 10
    again, _ = inception_score.compute(evidence(fake, real, seed=1))
    assert again.value != found.value


# Precision, recall, density, coverage


def test_swapping_the_sets_swaps_precision_and_recall(prdc: ModuleType) -> None:
    @few
    @given(seed=seeds, scale=st.floats(0.3, 0.75))
    def check(seed: int, scale: float) -> None:
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((200, 5)), scale * rng.standard_normal((200, 5))
        there, back = prdc.prdc(x, y), prdc.prdc(y, x)
        assert there.precision > there.recall + 0.1
        assert (back.precision, back.recall) == (there.recall, there.precision)

    check()


def test_prdc_is_blind_to_scale_rotation_place_order_and_blocks(prdc: ModuleType) -> None:
    @few
    @given(seed=seeds, block=st.integers(20, 400), c=st.sampled_from([1e-3, 1e3]))
    def check(seed: int, block: int, c: float) -> None:
        rng = np.random.default_rng(seed)
        x, y, Q = rng.standard_normal((150, 6)), rng.standard_normal((130, 6)) + 0.5, rotation(6, seed)
        value = prdc.prdc(x, y)
        assert prdc.prdc(c * x, c * y) == pytest.approx(value)
        assert prdc.prdc(x @ Q + 5, y @ Q + 5) == pytest.approx(value)
        assert prdc.prdc(x[::-1], y[rng.permutation(130)]) == pytest.approx(value)
        assert prdc.prdc(x, y, block=block) == pytest.approx(value)
        assert min(value) >= 0
        assert max(value.precision, value.recall, value.coverage) <= 1

    check()


def test_prdc_hook_judges_the_generated_images(prdc: ModuleType) -> None:
    A, B = clouds()
    both = np.concatenate([A, B])
    (found, back) = (by_name(prdc.compute(evidence(Seen(f), Seen(r)))) for f, r in ((A, both), (both, A)))
    assert min(found["precision"].value, back["recall"].value) > 0.85
    assert found["recall"].value < 0.75 > back["precision"].value
    assert found["precision"].n_real == found["precision"].n_fake == 60  # equal numbers
    x, y = both, 0.7 * both[::-1] + np.float32(0.2)
    assert tuple(m.value for m in prdc.compute(evidence(Seen(y), Seen(x)))) == pytest.approx(prdc.prdc(x, y))
    # five neighbours for density and coverage, three for the others
    same = by_name(prdc.compute(evidence(Seen(A), Seen(A))))
    assert {name: m.value for name, m in same.items()} == pytest.approx({"precision": 1, "recall": 1, "density": 6 / 5, "coverage": 1})


# Statistical fidelity


def test_identical_sets_measure_zero(statistics: ModuleType) -> None:
    for channels in (1, 3):
        x = pictures(60, channels, 12)
        values = compare(statistics, x, x)
        assert values.pop("diversity") == 1
        assert values == pytest.approx(dict.fromkeys(values, 0.0), abs=1e-12)


def test_neither_chunks_nor_order_matter(statistics: ModuleType) -> None:
    @few
    @given(seed=seeds, chunk=st.integers(1, 200), channels=st.sampled_from([1, 3]))
    def check(seed: int, chunk: int, channels: int) -> None:
        x, r = pictures(130, channels, 20), statistics.summarise(pictures(100, channels, 20, seed=3))
        value = statistics.measure(statistics.summarise(x), r)
        order = np.random.default_rng(seed).permutation(len(x))
        assert statistics.measure(statistics.summarise(x[order], chunk=chunk), r) == pytest.approx(value, rel=1e-7)

    check()


def test_which_measures_are_symmetric(statistics: ModuleType) -> None:
    x, y = pictures(80, 3, 12, seed=1), pictures(90, 3, 12, seed=2, low=20, high=230)
    there, back = compare(statistics, x, y), compare(statistics, y, x)
    for name in ("mean_gap", "variance_gap", "quantile_gap", "w1", "w1_pooled", "ks", "correlation", "spectrum_db"):
        assert there[name] == pytest.approx(back[name], rel=1e-9), name
    assert there["covariance"] != pytest.approx(back["covariance"], rel=1e-2)
    assert there["diversity"] == pytest.approx(1 / back["diversity"])


def test_permuting_pixels_keeps_the_marginals_and_changes_the_spectrum(statistics: ModuleType) -> None:
    x, y = pictures(120, 1, 16, seed=1), pictures(120, 1, 16, seed=2, high=200)
    order = np.random.default_rng(0).permutation(256)

    def shuffled(a: np.ndarray) -> np.ndarray:
        return a.reshape(len(a), -1)[:, order].reshape(a.shape)

    before, both, one = compare(statistics, x, y), compare(statistics, shuffled(x), shuffled(y)), compare(statistics, shuffled(x), x)
    for name in ("mean_gap", "variance_gap", "quantile_gap", "w1", "w1_pooled", "ks", "diversity"):
        assert both[name] == pytest.approx(before[name], rel=1e-12), name
    assert (one["w1_pooled"], one["diversity"]) == pytest.approx((0, 1), abs=1e-12)
    assert one["spectrum_db"] > 1


def test_wasserstein_of_a_shift_is_the_shift_and_ks_is_bounded(statistics: ModuleType) -> None:
    x = pictures(60, 3, 8)
    for by in range(1, 90, 17):
        values = compare(statistics, x + np.uint8(by), x)
        assert values["w1"] * 255 == pytest.approx(by)
        assert 0 < values["ks"] <= 1
        assert values["covariance"] == pytest.approx(0, abs=1e-9)


def test_constant_pixels_are_masked_and_counted(statistics: ModuleType) -> None:
    x, y = pictures(200, 1, 8, seed=1), pictures(200, 1, 8, seed=2)
    y[:, :, 0, :3] = 7
    value, masked = statistics.correlation(statistics.summarise(x), statistics.summarise(y))
    assert masked == 3
    flat_x, flat_y = (a.reshape(len(a), -1)[:, 3:].astype(float) for a in (x, y))
    gap = np.corrcoef(flat_x, rowvar=False) - np.corrcoef(flat_y, rowvar=False)
    assert value == pytest.approx(np.sqrt((gap[~np.eye(61, dtype=bool)] ** 2).mean()), rel=1e-9)


def test_a_constant_generator_is_finite_everywhere_and_gains_nothing(statistics: ModuleType) -> None:
    x = pictures(120, 1, 8)
    r = statistics.summarise(x)
    values = statistics.measure(statistics.summarise(np.full((50, 1, 8, 8), 49, np.uint8)), r)
    assert np.isfinite(list(values.values())).all()
    assert (values["diversity"], values["duplicates"], values["covariance"]) == pytest.approx((0, 0.98, 1))
    correlations = np.corrcoef(x.reshape(120, -1).astype(float), rowvar=False)[~np.eye(64, dtype=bool)]
    assert values["correlation"] == pytest.approx(np.sqrt((correlations**2).mean()))  # as uncorrelated pixels


def test_waves_are_found_at_their_radius(statistics: ModuleType) -> None:
    for cycles in (1, 3, 7):
        wave = np.rint(127 + 100 * np.sin(2 * np.pi * cycles * np.arange(16) / 16)).astype(np.uint8)
        for images in (np.tile(wave, (2, 1, 16, 1)), np.tile(wave[:, None], (2, 1, 1, 16))):
            assert statistics.summarise(images).spectrum.argmax() == cycles - 1


# The one score


def test_fidelity_hook_places_real_at_1_and_noise_at_0(fidelity: ModuleType) -> None:
    rng = np.random.default_rng(0)
    sets = [pictures(n, 1, 8, seed=s) for n, s in ((150, 1), (150, 2), (400, 3))]
    noise = rng.integers(0, 256, (150, 1, 8, 8), dtype=np.uint8)
    logits = [np.eye(4)[np.arange(len(x)) % 7 // 2] for x in sets] + [np.eye(4)[np.full(150, 3)]]
    fresh, real, second, noise = (Seen(np.zeros((len(x), 1)), y, x) for x, y in zip((*sets, noise), logits, strict=True))

    def score(fake: Seen) -> dict[str, float]:
        found = by_name(fidelity.compute(evidence(fake, real, second, noise=lambda: noise)))
        return {name: m.value for name, m in found.items()}

    good, bad = score(fresh), score(noise)
    assert good["statistical_fidelity"] > 0.93
    assert bad["statistical_fidelity"] < 1e-9
    assert good["class_tv"] < 0.01
    assert bad["class_tv"] == pytest.approx(6 / 7, abs=0.01)
    darker = Seen(fresh.features, fresh.logits, fresh.images // 2)
    assert bad["statistical_fidelity"] < score(darker)["statistical_fidelity"] < good["statistical_fidelity"]
    assert score(darker)["diversity"] == pytest.approx(0.5, abs=0.05)
    # floors and scores are those of as many images as were generated, against the reference
    half = Seen(fresh.features[:60], fresh.logits[:60], fresh.images[:60])
    assert score(half)["w1"] > good["w1"]
    assert score(half)["statistical_fidelity"] > 0.85


def test_fidelity_is_the_same_whenever_it_is_asked(fidelity: ModuleType) -> None:
    fake, real, second = (Seen(np.zeros((n, 1)), None, pictures(n, 1, 8, seed=s)) for n, s in ((50, 4), (300, 2), (300, 3)))
    real.images[:, :, 0, 0] = 7  # a level that more than 255 images have
    values = [[(m.name, m.value) for m in fidelity.compute(evidence(fake, real, second, seed=s))] for s in (0, 1)]
    assert values[0] == values[1]
    # the median over twenty seeded real samples is the floor
    statistics = fidelity.statistics
    r, gaps = statistics.summarise(real.images), []
    for seed in range(20):
        some = np.random.default_rng(seed).permutation(300)[:50]
        gaps.append(statistics.mean_gap(statistics.summarise(second.images[some]), r))
    kept: dict[str, dict[str, np.ndarray]] = {}

    def remember(key: str, compute: object) -> dict[str, np.ndarray]:
        kept[key] = compute()
        return kept[key]

    list(fidelity.compute(evidence(fake, real, second, remember=remember, remember_floor=remember)))
    (known,) = (arrays for arrays in kept.values() if "floor w1" in arrays)
    assert known["floor mean_gap"] == pytest.approx(np.median(gaps), rel=1e-12)
    assert known["noise w1"] > 5 * known["floor w1"]
    # what is kept serves the next model: real images are not looked at again
    blank = Seen(real.features, None, np.zeros_like(real.images))
    again = fidelity.compute(evidence(fake, blank, second, remember=lambda key, _: kept[key], remember_floor=lambda key, _: kept[key]))
    assert [(m.name, m.value) for m in again] == values[0]


# Extraction


def test_features_do_not_depend_on_the_batch() -> None:
    spec = next(spec for spec in builtin_extractors() if spec.name == "digits-cnn")
    extractor = spec.load(torch.device("cpu"), None)
    images = torch.from_numpy(pictures(60, 1, 8))
    with torch.inference_mode():
        features, logits = extractor(images)
        for batch in (1, 7, 64):
            parts = [extractor(part) for part in images.split(batch)]
            np.testing.assert_allclose(torch.cat([f for f, _ in parts]), features, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(torch.cat([y for _, y in parts]), logits, rtol=1e-4, atol=1e-4)


def test_moments_of_a_view_do_not_depend_on_its_batches(fid: ModuleType) -> None:
    images, features = pictures(100, 1, 8), mixed(100, 5, 1).astype(np.float32)
    mu, S, _ = fid.moments([features])
    for batch in (1, 33, 100):
        view = View(lambda _, b=batch: ((features[i : i + b], None) for i in range(0, 100, b)), images, None)
        np.testing.assert_allclose(view.moments[0], mu, rtol=1e-10)
        np.testing.assert_allclose(view.moments[1], S, rtol=1e-10)
