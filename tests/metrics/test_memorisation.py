from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from genbench.metrics import fid
from genbench.metrics.builtin import builtin_metrics
from tests.metrics.seen import Seen, by_name, evidence

NAMES = ["exact_copies", "nn_ratio", "nn_excess", "ct", "auth_pct", "fid_gap"]


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 4, 4), dtype=np.uint8)


def normal(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def test_exact_copies_are_equal_byte_for_byte(memorisation: ModuleType) -> None:
    train = images(6)
    fake = np.concatenate([images(5, 1), train[[4, 4, 0]]])
    fake[6] = train[4]
    fake[6, 2, 3, 3] ^= 1  # one level off in one channel: no copy
    assert memorisation.exact_copies(fake, train) == 2 / 8
    assert memorisation.exact_copies(train, fake) == 2 / 6
    mirrored = train[:, :, :, ::-1]
    assert memorisation.exact_copies(mirrored, train) == 0
    assert memorisation.exact_copies(np.moveaxis(np.moveaxis(train, 1, 3).copy(), 3, 1), train) == 1  # other strides, equal pixels


@pytest.mark.parametrize(("n", "m", "d"), [(1100, 9000, 3), (3, 1, 2), (513, 4097, 20)])
def test_nearest_is_the_nearest(memorisation: ModuleType, n: int, m: int, d: int) -> None:
    """Against all distances, over the edges of blocks, far from the origin."""
    x, y = (100 + 3 * normal(k, d, k).astype(np.float32) for k in (n, m))
    x[-1] = y[m // 2]
    index, distance = memorisation.nearest(x, y)
    every = cdist(x, y)
    assert (index == every.argmin(axis=1)).mean() > 0.99
    np.testing.assert_allclose(distance, every[np.arange(n), index], atol=1e-12)
    np.testing.assert_allclose(distance, every.min(axis=1), atol=3e-3)
    assert (index[-1], distance[-1]) == (m // 2, 0)


def test_spacing_leaves_out_the_point_itself(memorisation: ModuleType) -> None:
    np.testing.assert_array_equal(memorisation.spacing(np.array([[0.0], [1], [3], [7]])), [1, 1, 2, 4])
    np.testing.assert_array_equal(memorisation.spacing(np.array([[2.0, 1], [5, 5], [2, 1]])), [0, 5, 0])
    x = normal(4700, 4, 0)
    every = cdist(x, x)
    np.fill_diagonal(every, np.inf)
    np.testing.assert_allclose(memorisation.spacing(x), every.min(axis=1), rtol=1e-3)


def test_nn_ratio_by_hand(memorisation: ModuleType) -> None:
    train, test = np.array([1.0, 2, 9, 4, 5]), np.array([2.0, 1, 3, 8, 5])
    assert memorisation.nn_ratio(train, test) == 1  # of 0.5, 2, 3, 0.5, 1
    assert memorisation.nn_ratio(train[[0, 2, 3]], test[[0, 2, 3]]) == 0.5
    assert memorisation.nn_ratio(np.array([0.0, 0, 0]), np.array([0.0, 0, 1])) == 1
    assert memorisation.nn_ratio(np.array([1.0, 2, 3]), np.array([0.0, 1, 0])) == np.inf


def test_nn_excess_counts_each_neighbour_once(memorisation: ModuleType) -> None:
    def found(index: list[int], distance: list[float]) -> object:
        return memorisation.Neighbours(np.array(index), np.array(distance))

    to_train = found([5, 5, 6, 7, 8, 0, 0], [1, 1, 1, 1, 1, 3, 2])
    to_test = found([5, 5, 5, 5, 5, 2, 2], [2, 2, 2, 2, 2, 1, 2])
    assert memorisation.nn_excess(to_train, to_test) == (4 - 1) / 5**0.5  # training images 5 6 7 8, test image 2; a tie is nobody's
    assert memorisation.nn_excess(to_test, to_train) == -(4 - 1) / 5**0.5
    assert memorisation.nn_excess(found([3], [1]), found([3], [1])) == 0


def test_nn_excess_is_standard_without_copying(memorisation: ModuleType) -> None:
    values = []
    for seed in range(40):
        x = normal(900, 6, seed)
        values.append(memorisation.nn_excess(memorisation.nearest(x[:300], x[300:600]), memorisation.nearest(x[:300], x[600:])))
    assert abs(np.mean(values)) < 3 / 40**0.5
    assert 0.4 < np.std(values) < 1.3


def test_ct_is_the_weighted_mean_of_z_scored_u(memorisation: ModuleType) -> None:
    """Every pair counted, two cells of unequal weight, a third with too few generated images."""
    rng = np.random.default_rng(0)
    fake, test = rng.integers(0, 30, 100).astype(float), 3 + rng.integers(0, 30, 140).astype(float)  # with ties
    fake_cells, test_cells = np.repeat([0, 1, 2], [30, 60, 10]), np.repeat([0, 1, 2], [80, 40, 20])
    expected = []
    for cell in (0, 1):
        g, t = fake[fake_cells == cell], test[test_cells == cell]
        u = sum((a > b) + (a == b) / 2 for a in g for b in t)
        expected.append((u - len(g) * len(t) / 2) / np.sqrt(len(g) * len(t) * (len(g) + len(t) + 1) / 12))
    value = memorisation.ct(fake, test, fake_cells, test_cells)
    assert value == pytest.approx((80 * expected[0] + 40 * expected[1]) / 120, abs=1e-12)
    assert value < -0.5
    assert np.isnan(memorisation.ct(fake, test, np.zeros(100, int), np.ones(140, int)))


def test_ct_golden(memorisation: ModuleType) -> None:
    """n = 1000, d = 8, one cell: copies at the formula's least, fresh points 0 ± 1, far ones above 0."""

    def ct(fake: np.ndarray, seed: int) -> float:
        train, test = normal(1000, 8, 2 * seed), normal(1000, 8, 2 * seed + 1)
        cell = np.zeros(1000, int)
        return memorisation.ct(memorisation.nearest(fake, train).distance, memorisation.nearest(test, train).distance, cell, cell)

    assert ct(normal(1000, 8, 0)[::-1], 0) == pytest.approx(-500_000 / np.sqrt(1e6 * 2001 / 12), abs=1e-9)  # -38.7
    fresh = [ct(normal(1000, 8, 1000 + seed), seed) for seed in range(25)]
    assert abs(np.mean(fresh)) < 0.6
    assert 0.6 < np.std(fresh) < 1.4
    assert ct(3 * normal(1000, 8, 999), 0) > 30
    half = np.concatenate([normal(1000, 8, 0)[:500], normal(500, 8, 999)])
    assert -25 < ct(half, 0) < -12


def test_auth_pct_by_hand(memorisation: ModuleType) -> None:
    train = np.array([[0.0], [1], [10], [14]])  # spacing 1, 1, 4, 4
    fake = np.array([[-0.9], [-1.1], [6.5], [5.9], [10]])  # nearer than 1, farther; nearer than 4 (10), farther (10); a copy
    to_train = memorisation.nearest(fake, train)
    assert memorisation.auth_pct(to_train, memorisation.spacing(train)) == 40
    at_its_rim = memorisation.nearest(np.array([[2.0]]), train)
    assert memorisation.auth_pct(at_its_rim, memorisation.spacing(train)) == 0  # farther, not as far


@pytest.mark.parametrize(("d", "expected"), [(2, 38), (8, 59), (16, 70), (128, 83)])
def test_auth_pct_golden(memorisation: ModuleType, d: int, expected: float) -> None:
    values = []
    for seed in range(6):
        train, fake = normal(1000, d, 2 * seed), normal(1000, d, 2 * seed + 1)
        spacing = memorisation.spacing(train)
        values.append(memorisation.auth_pct(memorisation.nearest(fake, train), spacing))
        assert memorisation.auth_pct(memorisation.nearest(train[::-1], train), spacing) == 0
    assert np.mean(values) == pytest.approx(expected, abs=3)


def test_invariant_under_rotation_and_scaling(memorisation: ModuleType) -> None:
    fake, train, test = (normal(n, 6, n) for n in (300, 400, 350))

    def measured(turn: np.ndarray) -> list[float]:
        f, t, p = fake @ turn, train @ turn, test @ turn
        to_train, cell = memorisation.nearest(f, t), np.zeros(350, int)
        return [
            memorisation.nn_ratio(to_train.distance, memorisation.nearest(f, p).distance),
            memorisation.nn_excess(to_train, memorisation.nearest(f, p)),
            memorisation.ct(to_train.distance, memorisation.nearest(p, t).distance, cell[:300], cell),
            memorisation.auth_pct(to_train, memorisation.spacing(t)),
        ]

    rotation = np.linalg.qr(normal(6, 6, 1))[0]
    assert measured(7 * rotation) == pytest.approx(measured(np.eye(6)), rel=1e-4)


def test_values_grow_with_distance_from_training_images(memorisation: ModuleType) -> None:
    train, test = normal(800, 8, 0), normal(800, 8, 1)
    cell, rows = np.zeros(800, int), []
    for amount in (0, 0.1, 0.3, 1, 2):
        fake = train + amount * normal(800, 8, 2)
        to_train, to_test = memorisation.nearest(fake, train), memorisation.nearest(fake, test)
        c = memorisation.ct(to_train.distance, memorisation.nearest(test, train).distance, cell, cell)
        auth = memorisation.auth_pct(to_train, memorisation.spacing(train))
        rows.append((memorisation.nn_ratio(to_train.distance, to_test.distance), c, auth, -memorisation.nn_excess(to_train, to_test)))
    for column in zip(*rows, strict=True):
        assert list(column) == sorted(column)


def test_cell_centres_are_those_of_clusters(memorisation: ModuleType) -> None:
    centres = np.array([[0.0, 0], [40, 0], [0, 40], [-40, -40]])
    x = np.concatenate([c + normal(n, 2, n) for c, n in zip(centres, (500, 60, 300, 200), strict=True)])
    found = memorisation.cell_centres(x, 4, seed=0)
    expected = np.array([part.mean(axis=0) for part in np.split(x, [500, 560, 860])])
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=1e-6)
    np.testing.assert_array_equal(found, memorisation.cell_centres(x, 4, seed=0))
    np.testing.assert_allclose(memorisation.cell_centres(x, 1, seed=3), [x.mean(axis=0)], atol=1e-9)
    np.testing.assert_array_equal(memorisation.cell_centres(np.ones((5, 2)), 3, seed=0), np.ones((3, 2)))


def test_draw(memorisation: ModuleType) -> None:
    np.testing.assert_array_equal(memorisation.draw(5, 5), range(5))
    some = memorisation.draw(1000, 100)
    assert len(set(some.tolist())) == 100
    assert (np.diff(some) > 0).all()
    assert some.max() > 900  # not the first ones


FLOOR = {"exact_copies": 0.0, "auth_pct": 60.0, "ct": 0.0, "nn_excess": 3.0}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (FLOOR, []),
        (FLOOR | {"exact_copies": 1.0}, ["memorised: 100 % exact copies"]),
        (FLOOR | {"exact_copies": 0.02}, ["memorised: 2 % exact copies"]),
        (FLOOR | {"exact_copies": 0.01}, []),
        ({"auth_pct": 8.0, "ct": -31.4, "nn_excess": 17.9}, ["nearer to training than to test images"]),
        ({"auth_pct": 8.0, "ct": -31.4, "nn_excess": 8.0}, []),  # a collapsed model, or one near test images as well
        ({"auth_pct": 31.0, "ct": -31.4, "nn_excess": 17.9}, []),
        ({"auth_pct": 8.0, "ct": -4.0, "nn_excess": 17.9}, []),
        ({"auth_pct": 8.0, "ct": None, "nn_excess": 17.9}, []),
        ({"auth_pct": 100.0, "ct": 40.0, "nn_excess": -2.0}, []),  # noise
        ({"fid": 3.0}, []),
    ],
)
def test_alarms(memorisation: ModuleType, values: dict[str, float | None], expected: list[str]) -> None:
    found = memorisation.alarms(values, FLOOR)
    assert len(found) == len(expected)
    assert all(text.startswith("memorised: ") and text.endswith(end) for text, end in zip(found, expected, strict=True))


def test_alarms_are_relative_to_the_floor(memorisation: ModuleType) -> None:
    values = {"exact_copies": 0.3, "auth_pct": 20.0, "ct": -9.0, "nn_excess": 17.0}
    assert len(memorisation.alarms(values, FLOOR)) == 2
    assert memorisation.alarms(values, {"exact_copies": 0.3, "auth_pct": 35.0, "ct": 0.0, "nn_excess": 3.0}) == []
    assert memorisation.alarms(values, {"exact_copies": 0.295, "auth_pct": 60.0, "ct": -5.0, "nn_excess": 3.0}) == []
    assert memorisation.alarms(values, {"exact_copies": 0.3, "auth_pct": 60.0, "ct": 0.0, "nn_excess": 12.0}) == []
    assert memorisation.alarms(values, {}) == ["memorised: 30 % exact copies"]  # no unseen images to compare with


def real(m: int = 900, t: int = 700, d: int = 8) -> tuple[Seen, Seen]:
    return Seen(normal(m, d, 0).astype(np.float32), images=images(m, 0)), Seen(normal(t, d, 1).astype(np.float32), images=images(t, 1))


def test_hook_of_copies_and_of_new_images(memorisation: ModuleType) -> None:
    train, test = real()
    new = Seen(normal(500, 8, 2).astype(np.float32), images=images(500, 2))
    floors = by_name(memorisation.compute(evidence(new, test, train)))
    assert list(floors) == NAMES
    copies = by_name(memorisation.compute(evidence(train.some(np.arange(500)), test, train)))
    assert (floors["exact_copies"].value, copies["exact_copies"].value) == (0, 1)
    assert copies["auth_pct"].value == 0
    assert floors["auth_pct"].value == pytest.approx(59, abs=6)
    assert copies["ct"].value < -25
    assert abs(floors["ct"].value) < 4
    assert copies["nn_excess"].value > 8
    assert copies["nn_ratio"].value < 0.2 < 0.9 < floors["nn_ratio"].value < 1.1
    assert copies["fid_gap"].value > abs(floors["fid_gap"].value)
    assert [m.better for m in floors.values()] == ["lower"] + 5 * ["neither"]
    assert {m.split for m in floors.values()} == {"train"}
    assert (floors["ct"].n_real, floors["nn_ratio"].n_real, floors["fid_gap"].n_real) == (900, 700, 700)
    assert [m.pixels_only for m in floors.values()] == [True] + 5 * [False]
    named = [{name: m.value for name, m in found.items()} for found in (copies, floors)]
    assert memorisation.alarms(*named)[0] == "memorised: 100 % exact copies"
    assert len(memorisation.alarms(*named)) == 2
    assert memorisation.alarms(named[1], named[1]) == []


def test_hook_compares_with_equally_many_and_cells_grow_in_number(memorisation: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = real(900, 300)
    fake = Seen(normal(400, 8, 2).astype(np.float32))
    few = train.features[np.sort(np.random.default_rng(1).permutation(900)[:300])]
    to_few, to_test = memorisation.nearest(fake.features, few), memorisation.nearest(fake.features, test.features)
    found = by_name(memorisation.compute(evidence(fake, test, train)))
    assert found["nn_ratio"].value == memorisation.nn_ratio(to_few.distance, to_test.distance)
    assert found["nn_excess"].value == memorisation.nn_excess(to_few, to_test)
    assert found["ct"].note == "cells: 1"
    monkeypatch.setattr(memorisation, "CELL", 100)
    more = by_name(memorisation.compute(evidence(fake, test, train)))
    assert more["ct"].note == "cells: 3"
    to_train, to_its_train = memorisation.nearest(fake.features, train.features), memorisation.nearest(test.features, train.features)
    centres = memorisation.cell_centres(train.features, 3, seed=0)
    cells = [memorisation.nearest(x.features, centres).which for x in (fake, test)]
    assert more["ct"].value == memorisation.ct(to_train.distance, to_its_train.distance, *cells)


def test_one_collapsed_point_near_a_training_image_is_no_proof(memorisation: ModuleType) -> None:
    train, test = real()
    new = Seen(normal(500, 8, 2).astype(np.float32), images=images(500, 2))
    floors = {m.name: m.value for m in memorisation.compute(evidence(new, test, train))}
    one = Seen(np.repeat(train.features[:1] + np.float32(1e-3), 500, axis=0), images=np.zeros((500, 3, 4, 4), np.uint8))
    values = {m.name: m.value for m in memorisation.compute(evidence(one, test, train))}
    assert (values["auth_pct"], values["nn_excess"]) == (0, 1)
    assert values["ct"] < -25
    assert memorisation.alarms(values, floors) == []


def test_fid_gap_is_against_as_many_of_both(memorisation: ModuleType) -> None:
    """Equally many train and test images: every one of them; positive where the images are like train's."""
    train, test = real(700, 700)
    train.features[:] = train.features + 1
    fake = Seen(normal(400, 8, 2).astype(np.float32) + 1)
    found = by_name(memorisation.compute(evidence(fake, test, train)))["fid_gap"].value
    expected = fid.frechet(*fake.moments[:2], *test.moments[:2]) - fid.frechet(*fake.moments[:2], *train.moments[:2])
    assert found == pytest.approx(expected, rel=1e-5)
    assert found > 5
    fewer = train.some(np.arange(300))
    smaller = by_name(memorisation.compute(evidence(fake, test, fewer)))["fid_gap"]
    assert smaller.n_real == 300
    head = test.some(np.arange(300))
    expected = fid.frechet(*fake.moments[:2], *head.moments[:2]) - fid.frechet(*fake.moments[:2], *fewer.moments[:2])
    assert smaller.value == pytest.approx(expected, rel=1e-5)


def test_what_follows_from_real_images_is_computed_once(memorisation: ModuleType) -> None:
    train, test = real(300, 200)
    kept: dict[str, dict[str, np.ndarray]] = {}

    def remember(key: str, compute: object) -> dict[str, np.ndarray]:
        if key not in kept:
            kept[key] = compute()
        return kept[key]

    new = Seen(normal(100, 8, 2).astype(np.float32), images=images(100, 2))
    first = [m.value for m in memorisation.compute(evidence(new, test, train, remember=remember))]
    keys = set(kept)
    assert first == [m.value for m in memorisation.compute(evidence(new, test, train, remember=remember))]
    assert set(kept) == keys
    assert first == [m.value for m in memorisation.compute(evidence(new, test, train))]


def test_of_many_training_images_a_random_part_is_searched(memorisation: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact copies are looked for among all of them, neighbours among a seeded random part, alike in both splits."""
    train, test = real(900, 700)
    monkeypatch.setattr(memorisation, "MOST", 300)
    some = memorisation.draw(900, 300)
    rest = np.setdiff1d(np.arange(900), some)
    left_out = by_name(memorisation.compute(evidence(train.some(rest), test, train)))
    assert left_out["exact_copies"].value == 1
    assert left_out["auth_pct"].value > 30
    assert (left_out["auth_pct"].n_real, left_out["nn_ratio"].n_real) == (300, 300)
    searched = by_name(memorisation.compute(evidence(train.some(some), test, train)))
    assert searched["auth_pct"].value == 0


def test_too_little_to_compare(memorisation: ModuleType) -> None:
    train, test = real(300, 200)
    alone = by_name(memorisation.compute(evidence(train.some(np.arange(50)), test, train, test=None)))
    assert list(alone) == NAMES
    assert (alone["exact_copies"].value, alone["ct"].value, alone["fid_gap"].value) == (1, None, None)
    few = by_name(memorisation.compute(evidence(train.some(np.arange(10)), test, train)))
    assert (few["ct"].value, few["ct"].note) == (None, "no cell holds 20 test and 20 generated images")
    assert few["auth_pct"].value == 0


def test_it_needs_training_images_and_a_floor_that_no_model_saw() -> None:
    (spec,) = [spec for spec in builtin_metrics() if spec.name == "memorisation"]
    assert set(spec.needs) == {"real", "train", "holdout"}
    assert spec.floor == "holdout"
