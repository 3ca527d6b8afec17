"""Tolerances by what a score is made of, and the one-sided test of a retrained model against scipy and against its level."""

import math

import numpy as np
import pytest
from scipy import stats

from genbench.agreement import LEVEL, WIDEST, counted, of_another_draw, of_same_pixels, retrained, tolerance
from genbench.records import Score


def score(name="fid", value=10.0, extractor="cnn", n_fake=1000, **changes):
    return Score(name=name, value=value, better="lower", extractor=extractor, n_fake=n_fake, protocol="p", **changes)


@pytest.mark.parametrize(
    ("one", "allowed"),
    [
        (score("fid", 0.5), 1e-2),
        (score("fid", 200.0), 0.2),
        (score("kid", 2.0), 2e-3),
        (score("precision", 0.5), 2e-3),  # two images of 1 000
        (score("precision", 0.5, n_fake=10_000), 1e-3),
        (score("w1", 0.5, extractor=None), 5e-7),
        (score("made_up_by_a_plugin", 3.0), 3e-3),
        (score("active_units", 8.0, extractor=None, n_fake=0), 0.5),
    ],
)
def test_tolerances_follow_what_a_score_is_made_of(one, allowed):
    assert tolerance(one) == pytest.approx(allowed)
    for sign in (-1, 1):
        assert of_same_pixels(one, one.model_copy(update={"value": one.value + sign * 0.99 * allowed})).ok
        assert not of_same_pixels(one, one.model_copy(update={"value": one.value + sign * 1.01 * allowed})).ok


def test_floor_interval_and_protocol_count_too():
    one = score(value=10.0, floor=1.0, interval=(9.0, 11.0))
    assert of_same_pixels(one, one) == (True, pytest.approx(0.01), "")
    for change in ({"floor": 1.1}, {"floor": None}, {"interval": (8.0, 11.0)}, {"interval": (9.0, 12.0)}, {"interval": None}):
        assert of_same_pixels(one, one.model_copy(update=change)).ok is False
    assert of_same_pixels(one, one.model_copy(update={"protocol": "q"})).ok is False
    assert of_same_pixels(one.model_copy(update={"better": "higher"}), one).ok is False
    assert of_same_pixels(one, one.model_copy(update={"interval": (9.05, 11.0)})).ok  # ends of a resampled interval: ten times as far
    assert of_same_pixels(score(value=None), score(value=None)).ok
    assert of_same_pixels(score(value=None), one).ok is False


def test_the_tolerance_is_that_of_what_was_found():
    """A record of two images would excuse any share of images."""
    found = score("precision", 0.5)
    assert of_same_pixels(score("precision", 0.9, n_fake=2), found) == (False, pytest.approx(2e-3), "")


def test_another_draw_is_judged_by_the_interval_that_was_found():
    found = score(value=10.0, interval=(9.0, 11.0))
    allowed = float(math.sqrt(2) * stats.t.ppf(0.9995, 11) / stats.t.ppf(0.975, 11))  # of 12 groups

    def verdict(**changes):
        return of_another_draw(found.model_copy(update=changes), found)

    assert verdict(value=10 + 0.999 * allowed).ok is True
    assert verdict(value=10 - 1.001 * allowed).ok is False
    assert verdict(value=1.0, interval=(-1e6, 1e6)) == (False, pytest.approx(allowed, rel=1e-4), "")  # as wide as its author likes
    assert verdict(interval=None) == (False, None, "only one of the two has an interval")
    assert of_another_draw(found, score()) == (False, None, "only one of the two has an interval")
    assert verdict(protocol="q").ok is False
    assert verdict(better="higher").ok is False
    assert verdict(value=None).ok is False
    assert of_another_draw(score(value=1.0), score(value=2.0)).ok is None  # nothing to judge by
    assert of_another_draw(score(value=None), score()).ok is None


def test_a_single_retraining_against_other_seeds_is_a_prediction_interval():
    others, again = [10.0, 11.0, 11.5, 9.5], [10.5]
    test = retrained(8.0, others, again, "lower")
    logs = np.log(others)
    statistic = (np.log(10.5) - np.log(8.0)) / (logs.std(ddof=1) * math.sqrt(2))
    assert test.p == pytest.approx(stats.t.sf(statistic, 3))
    assert test.allowed == pytest.approx(math.exp(stats.t.ppf(1 - LEVEL, 3) * logs.std(ddof=1) * math.sqrt(2)))
    assert (test.ok, test.log, test.degrees) == (True, True, 3)
    assert retrained(10.5 / (1.01 * test.allowed), others, again, "lower").ok is False
    assert retrained(10.5 / (0.99 * test.allowed), others, again, "lower").ok is True


def test_a_row_made_to_scatter_excuses_nothing():
    """Whoever submits a value far too good submits the row's other seeds as well."""
    wild, again = [1.0, 100.0, 1e4, 1e6], [10.0, 10.5, 9.5]
    assert retrained(1.0, wild, again, "lower") == retrained(1.0, [], again, "lower")
    assert retrained(1.0, wild, again, "lower").ok is False
    assert retrained(1.0, wild, again[:1], "lower").ok is None
    widest = [math.exp(step * WIDEST) for step in (-1.0, 0.0, 1.0)]  # their deviation is WIDEST itself
    assert counted(1.0, [0.999 * value**0.999 for value in widest])
    assert not counted(1.0, [value**1.001 for value in widest])
    assert not counted(0.0, [1.0, 1.01])  # no logarithm says what is wide
    assert not counted(1.0, [1.0])


def test_retrainings_alone_are_enough_from_two_on_and_a_worse_record_is_never_a_fault():
    assert retrained(5.0, [], [10.0], "lower").ok is None
    assert retrained(5.0, [6.0], [], "lower").ok is None
    assert retrained(1.0, [], [10.0, 10.1, 10.2], "lower").ok is False
    assert retrained(100.0, [], [10.0, 10.1, 10.2], "lower").ok is True
    assert retrained(1.0, [], [2.0, 2.1, 1.9], "higher").ok is True
    below = retrained(-1.0, [-5.0, -5.1], [-2.0, -2.1, -1.9], "higher")  # no logarithms, and no other seeds
    assert below == (False, pytest.approx(stats.t.ppf(0.99, 2) * 0.1 * math.sqrt(4 / 3)),
                     pytest.approx(stats.t.sf(1.0 / 0.1 / math.sqrt(4 / 3), 2)), False, 2)  # fmt: skip


def test_scores_where_more_is_better_turn_the_side():
    assert retrained(0.99, [0.50, 0.51, 0.49], [0.5], "higher").ok is False
    assert retrained(0.99, [0.50, 0.51, 0.49], [0.5], "lower").ok is True


def test_honest_runs_fail_as_often_as_the_level_says_and_forged_ones_nearly_always():
    rng = np.random.default_rng(3)
    draws = np.exp(rng.normal(2.0, 0.05, (4000, 6)))
    alarms = np.mean([retrained(row[0], row[1:5], row[5:], "lower").ok is False for row in draws])
    assert abs(alarms - LEVEL) < 4 * math.sqrt(LEVEL * (1 - LEVEL) / 4000)
    wide = np.exp(rng.normal(2.0, 0.5, (4000, 8)))  # three trainings, and other seeds that hardly ever count
    alone = np.mean([retrained(row[0], row[1:5], row[5:], "lower").ok is False for row in wide])
    assert abs(alone - LEVEL) < 4 * math.sqrt(LEVEL * (1 - LEVEL) / 4000)
    forged = np.mean([retrained(row[0] / 3, row[1:5], row[5:], "lower").ok is False for row in draws[:500]])
    assert forged > 0.85
