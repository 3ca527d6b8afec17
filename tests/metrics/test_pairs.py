from __future__ import annotations

import tracemalloc
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from genbench.metrics import Evidence, kid, pairs, prdc


def clouds(n: int = 700, m: int = 600, d: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Clumps far apart, some points twice and some generated ones copies of real ones: float32 products alone can't order them."""
    rng = np.random.default_rng(0)
    centres = 40 * rng.standard_normal((5, d))
    x, y = (centres[rng.integers(0, 5, k)] + scale * rng.standard_normal((k, d)) for k, scale in ((n, 1.0), (m, 0.7)))
    x[:20], y[:40], y[50:60] = x[20:40], x[100:140], y[60:70]
    return x.astype(np.float32), y.astype(np.float32)


def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x[:, None].astype(np.float64) - y[None].astype(np.float64)) ** 2).sum(-1)


def by_definition(x: np.ndarray, y: np.ndarray, k: int, k_density: int) -> prdc.PRDC:
    across, tie = squared(x, y), 1 + 1e-12

    def radius(z: np.ndarray, neighbour: int) -> np.ndarray:
        return np.sort(squared(z, z), axis=1)[:, neighbour] * tie

    inside = across <= radius(x, k_density)[:, None]
    precision = (across <= radius(x, k)[:, None]).any(axis=0).mean()
    recall = (across <= radius(y, k)).any(axis=1).mean()
    return prdc.PRDC(precision, recall, inside.sum() / (k_density * len(y)), inside.any(axis=1).mean())


@pytest.mark.parametrize("k", [(3, 5), (5, 2)])
@pytest.mark.parametrize("block", [37, 512])
def test_float32_neighbourhoods_are_exact(k: tuple[int, int], block: int) -> None:
    x, y = clouds()
    expected = by_definition(x, y, *k)
    assert 0 < expected.precision != expected.recall > 0
    assert prdc.prdc(x, y, k=k[0], k_density=k[1], block=block) == pytest.approx(expected, abs=1e-12)


def test_radii_are_those_of_the_sorted_distances() -> None:
    x, _ = clouds()
    found = pairs.within(x, k=5, block=64)
    np.testing.assert_allclose(found.radii, np.sort(squared(x, x), axis=1)[:, 1:6].T, rtol=1e-12, atol=0)
    assert (found.radii[0] == 0).sum() >= 40  # of two equal points each is the other's first neighbour
    assert found.kernel.shape == (0,)
    assert pairs.within(x[:4], k=3).radii.shape == (3, 4)


@pytest.mark.parametrize("d", [24, 600])
def test_float32_kernel_sums_give_kid_to_a_millionth(d: int) -> None:
    rng = np.random.default_rng(1)
    x, y = (np.abs(rng.standard_normal((900, d)) * scale).astype(np.float32) for scale in (1.0, 1.1))
    drawn = [[rng.choice(900, 200, replace=False) for _ in range(30)] for _ in range(2)]
    of_x, of_y = (pairs.members(subsets, 900) for subsets in drawn)
    between = pairs.across(x, y, subsets=(of_x, of_y), block=200).kernel
    values = pairs.unbiased(pairs.within(x, subsets=of_x, block=200).kernel, pairs.within(y, subsets=of_y).kernel, between, 200)
    expected = [kid.mmd2(x[a], y[b]) for a, b in zip(*drawn, strict=True)]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)


def test_features_whose_cubes_overflow_float32() -> None:
    rng = np.random.default_rng(2)
    x, y = ((1e7 * rng.standard_normal((100, 3)) * scale).astype(np.float32) for scale in (1, 2))
    assert kid.kid(x, y, seed=0) == pytest.approx(kid.kid(x.astype(np.float64), y.astype(np.float64), seed=0), rel=1e-9)


def test_sets_of_two_precisions() -> None:
    x, y = clouds()
    expected = by_definition(x, y, 3, 5)
    assert prdc.prdc(x, y.astype(np.float64)) == pytest.approx(expected, abs=1e-12)
    assert prdc.prdc(x.astype(np.float64), y) == pytest.approx(expected, abs=1e-12)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds()

    def values() -> tuple[Any, ...]:
        return *prdc.prdc(x, y, block=100), *kid.kid(x, y, seed=0, subsets=20, size=200)

    first = values()

    @contextmanager
    def one():
        with threadpool_limits(1, user_api="blas"):  # a product of several threads rounds in another order
            yield map

    monkeypatch.setattr(pairs, "_threads", one)
    assert values() == first


def test_no_matrix_of_all_pairs_is_held() -> None:
    x = np.random.default_rng(3).standard_normal((6000, 8), dtype=np.float32)
    tracemalloc.start()
    try:
        with threadpool_limits(2, user_api="blas"):  # each thread holds a block
            prdc.prdc(x, x + 0.1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(x) ** 2 * 4 / 4


@dataclass
class Seen:
    """An `ImageSet` of features alone."""

    features: np.ndarray

    @property
    def images(self) -> np.ndarray:
        return self.features


class Scoring:
    """What the scorer hands to metrics: shared within one scoring, remembered between them; counts the passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept: dict[str, Any] = {}
        self.passes = {"within": 0, "across": 0}
        for name in self.passes:
            monkeypatch.setattr(pairs, name, self._counted(name, getattr(pairs, name)))

    def _counted(self, name: str, function: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.passes[name] += 1
            return function(*arguments, **options)

        return counted

    def evidence(self, real: np.ndarray, fake: np.ndarray, *, seed: int = 0, metrics: tuple[str, ...] = ("kid", "prdc")) -> Evidence:
        shared: dict[str, Any] = {}

        def remember(key: str, compute: Any) -> Any:
            if key not in self.kept:
                self.kept[key] = compute()
            return self.kept[key]

        def share(key: str, compute: Any) -> Any:
            if key not in shared:
                shared[key] = compute(seed)
            return shared[key]

        seen: Any = Seen
        return Evidence(
            fake=seen(fake), real=seen(real), second=seen(real), reference="test", seed=0, labels_named=False, metrics=metrics,
            remember=remember, share=share,
        )  # fmt: skip


def measured(evidence: Evidence, *metrics: Any) -> dict[str, float | None]:
    return {m.name: m.value for metric in metrics for m in metric.compute(evidence)}


def test_one_pass_serves_both_metrics_and_the_reference_is_passed_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scoring, (real, fake) = Scoring(monkeypatch), clouds()
    first = measured(scoring.evidence(real, fake), kid, prdc)
    assert scoring.passes == {"within": 2, "across": 1}
    again = measured(scoring.evidence(real, fake), prdc, kid)
    assert scoring.passes == {"within": 3, "across": 2}
    assert again == first
    assert measured(scoring.evidence(real, fake + 1), kid) != {"kid": first["kid"]}
    assert list(first) == ["kid", "precision", "recall", "density", "coverage"]


def test_a_value_does_not_depend_on_what_else_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    scoring, (real, fake) = Scoring(monkeypatch), clouds()
    both = measured(scoring.evidence(real, fake), kid, prdc)
    with monkeypatch.context() as patch:
        patch.setattr(pairs, "_inside", None)  # who asks for KID alone pays for no neighbourhoods …
        patch.setattr(pairs, "_Nearest", None)
        alone = measured(scoring.evidence(real, fake, metrics=("fid", "kid")), kid)
    with monkeypatch.context() as patch:
        patch.setattr(pairs, "_kernel_sums", None)  # … and the other way round
        alone |= measured(scoring.evidence(real, fake, metrics=("prdc",)), prdc)
    assert alone == both


def test_sets_of_different_size_are_compared_in_equal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    scoring, (real, fake) = Scoring(monkeypatch), clouds(700, 240)
    found = [m for metric in (kid, prdc) for m in metric.compute(scoring.evidence(real, fake))]
    assert {(m.n_real, m.n_fake) for m in found} == {(240, 240)}
    # another seed draws other generated images and subsets, never other real ones
    assert [len(key) for key in scoring.kept] == [len("within real: 240, 5 neighbours, 100 subsets of 120")]
    before = dict(scoring.kept)
    other = measured(scoring.evidence(real, fake, seed=1), kid)
    assert scoring.kept == before
    assert other["kid"] != found[0].value
    assert other["kid"] == pytest.approx(found[0].value, rel=0.2)
    swapped = measured(scoring.evidence(fake, real), prdc)
    assert swapped["precision"] != found[1].value


def test_too_few_images_for_one_or_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    scoring, (real, fake) = Scoring(monkeypatch), clouds()
    few = measured(scoring.evidence(real, fake[:5]), kid, prdc)
    assert few["kid"] is not None
    assert few["precision"] is None
    assert set(measured(scoring.evidence(real, fake[:3]), kid, prdc).values()) == {None}
    with pytest.raises(ValueError, match="not asked for"):
        measured(scoring.evidence(real, fake, metrics=("kid",)), prdc)
