"""Tolerances by what a score is made of, and the one-sided test of a retrained model against scipy and against its level."""

import math

import numpy as np
import pytest
from scipy import stats

from genbench.agreement import LEVEL, of_another_draw, of_same_pixels, retrained, tolerance
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
    assert of_same_pixels(one, one.model_copy(update={"interval": (9.05, 11.0)})).ok  # ends of a resampled interval: ten times as far
    assert of_same_pixels(score(value=None), score(value=None)).ok
    assert of_same_pixels(score(value=None), one).ok is False


def test_another_draw_is_judged_by_the_recorded_interval_alone():
    one = score(value=10.0, interval=(9.0, 11.0))
    allowed = math.sqrt(2) * stats.norm.ppf(0.9995) / stats.norm.ppf(0.975)
    assert of_another_draw(one, one.model_copy(update={"value": 10 + 0.999 * allowed, "interval": None})).ok
    assert not of_another_draw(one, one.model_copy(update={"value": 10 + 1.001 * allowed})).ok
    assert of_another_draw(score(), one).ok is None


def test_a_single_retraining_against_other_seeds_is_a_prediction_interval():
    others, again = [10.0, 11.0, 12.5, 9.5], [10.5]
    test = retrained(8.0, others, again, "lower")
    logs = np.log(others)
    statistic = (np.log(10.5) - np.log(8.0)) / (logs.std(ddof=1) * math.sqrt(2))
    assert test.p == pytest.approx(stats.t.sf(statistic, 3))
    assert test.allowed == pytest.approx(math.exp(stats.t.ppf(1 - LEVEL, 3) * logs.std(ddof=1) * math.sqrt(2)))
    assert (test.ok, test.log, test.degrees) == (True, True, 3)
    assert retrained(10.5 / (1.01 * test.allowed), others, again, "lower").ok is False
    assert retrained(10.5 / (0.99 * test.allowed), others, again, "lower").ok is True


def test_retrainings_alone_are_enough_from_two_on_and_a_worse_record_is_never_a_fault():
    assert retrained(5.0, [], [10.0], "lower").ok is None
    assert retrained(5.0, [6.0], [], "lower").ok is None
    assert retrained(1.0, [], [10.0, 10.1, 10.2], "lower").ok is False
    assert retrained(100.0, [], [10.0, 10.1, 10.2], "lower").ok is True
    assert retrained(-1.0, [-2.0, -2.1, -1.9], [-2.05], "higher") == retrained(1.0, [2.0, 2.1, 1.9], [2.05], "higher")._replace(
        ok=False, allowed=pytest.approx(stats.t.ppf(0.99, 2) * 0.1 * math.sqrt(2)),
        p=pytest.approx(stats.t.sf(1.05 / 0.1 / math.sqrt(2), 2)),
        log=False,
    )  # fmt: skip


def test_scores_where_more_is_better_turn_the_side():
    assert retrained(0.99, [0.50, 0.51, 0.49], [0.5], "higher").ok is False
    assert retrained(0.99, [0.50, 0.51, 0.49], [0.5], "lower").ok is True


def test_honest_runs_fail_as_often_as_the_level_says_and_forged_ones_nearly_always():
    rng = np.random.default_rng(3)
    draws = np.exp(rng.normal(2.0, 0.1, (4000, 6)))
    alarms = np.mean([retrained(row[0], row[1:5], row[5:], "lower").ok is False for row in draws])
    assert abs(alarms - LEVEL) < 4 * math.sqrt(LEVEL * (1 - LEVEL) / 4000)
    forged = np.mean([retrained(row[0] / 3, row[1:5], row[5:], "lower").ok is False for row in draws[:500]])
    assert forged > 0.85
