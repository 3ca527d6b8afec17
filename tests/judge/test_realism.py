"""Error rates, d′ and their intervals, against closed forms and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from genbench.judge import planning, realism
from genbench.judge.planning import Supposed
from genbench.judge.realism import Answers


def sums(fakes, fooled, reals, doubted):
    return np.array([fakes, fooled, reals, doubted], float)


def answers(person, image, fake, wrong):
    return Answers(np.array(person), np.array(image), np.array(fake, bool), np.array(wrong, bool))


def crossed(people=12, images=40, seed=0, reals=True):
    """People x images, every person all of them, mistakes by person and image."""
    rng = np.random.default_rng(seed)
    person, image = (part.reshape(-1) for part in np.meshgrid(np.arange(people), np.arange(images), indexing="ij"))
    fake = (image % 2 == 0) if reals else np.ones(len(image), bool)
    chance = 1 / (1 + np.exp(-(rng.normal(0, 1, people)[person] + rng.normal(0, 1, images)[image] - 0.8)))
    return Answers(person, image, fake, rng.random(len(person)) < chance)


def test_errors_of_fakes_and_of_reals_are_told_apart():
    counts = sums(40, 10, 50, 5)
    assert realism.fakes_error(counts) == 0.25
    assert realism.reals_error(counts) == 0.1
    assert realism.hype(counts) == pytest.approx(0.175)  # equal weight, whatever the numbers shown
    assert realism.hype(sums(40, 20, 10, 5)) == 0.5


def test_d_prime_by_its_log_linear_definition():
    found = realism.d_prime(sums(40, 10, 50, 5))
    assert found == pytest.approx(stats.norm.ppf(30.5 / 41) - stats.norm.ppf(5.5 / 51), abs=1e-12)
    assert found == pytest.approx(1.8929, abs=1e-3)
    assert realism.d_prime(sums(40, 0, 40, 0)) == pytest.approx(2 * stats.norm.ppf(40.5 / 41))  # finite where nobody errs
    assert realism.d_prime(sums(40, 20, 40, 20)) == pytest.approx(0)
    assert realism.d_prime(sums(40, 30, 40, 20)) < 0  # fakes look more real than real images
    assert realism.d_prime(sums(40, 36, 40, 4)) == pytest.approx(0, abs=1e-12)  # a liking for "real" is no ability


@pytest.mark.parametrize(("k", "n"), [(0, 30), (1, 30), (12, 40), (40, 40)])
def test_exact_intervals_are_scipys(k, n):
    theirs = stats.binomtest(k, n).proportion_ci(0.95, "exact")
    assert realism.clopper_pearson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-10)


def test_the_variance_is_that_of_two_way_clusters():
    given = crossed(reals=False)
    p, n = given.wrong.mean(), len(given.wrong)
    rest = given.wrong - p

    def clustered(by):
        groups = np.bincount(by, rest)
        return (groups**2).sum() / n**2 * len(groups) / (len(groups) - 1)

    expected = clustered(given.person) + clustered(given.image) - clustered(np.arange(n))
    assert expected > 3 * p * (1 - p) / n  # clusters matter here
    assert realism.variance(given, realism.fakes_error, bootstraps=20_000) == pytest.approx(expected, rel=0.06)


def test_answers_without_clusters_have_the_binomial_variance():
    rng = np.random.default_rng(1)
    person, image = np.repeat(np.arange(200), 5), np.arange(1000)
    given = Answers(person, image, np.ones(1000, bool), rng.random(1000) < 0.3)
    p = given.wrong.mean()
    assert realism.variance(given, realism.fakes_error, bootstraps=5000) == pytest.approx(p * (1 - p) / 1000, rel=0.25)


def test_people_who_differ_widen_the_interval_more_than_many_votes_narrow_it():
    person = np.repeat(np.arange(10), 100)
    image = np.arange(1000)
    divided = Answers(person, image, np.ones(1000, bool), person < 3)  # three people are always fooled, seven never
    alike = Answers(person, image, np.ones(1000, bool), image % 10 < 3)  # everybody three times of ten
    wide, narrow = (realism.rate(one, realism.fakes_error) for one in (divided, alike))
    assert wide.value == narrow.value == pytest.approx(0.3)
    assert wide.high - wide.low > 0.55
    assert narrow.high - narrow.low < 0.09


def test_nobody_fooled_is_no_certainty():
    given = answers(np.repeat(np.arange(4), 10), np.arange(40), np.ones(40), np.zeros(40))
    found = realism.rate(given, realism.fakes_error)
    assert (found.value, found.low) == (0, 0)
    assert stats.binomtest(0, 40).proportion_ci(0.95, "exact").high < found.high < 0.3


def test_one_person_alone_gives_an_interval_too():
    given = answers(np.zeros(40, int), np.arange(40), np.arange(40) % 2, np.arange(40) % 5 == 0)
    for found in (realism.rate(given, realism.hype), realism.real_number(given, realism.d_prime)):
        assert math.isfinite(found.low)
        assert found.low < found.value < found.high
    alone = realism.rate(answers(np.zeros(100, int), np.arange(100), np.ones(100), np.arange(100) < 30), realism.fakes_error)
    two = realism.rate(answers(np.arange(200) % 2, np.arange(200), np.ones(200), np.arange(200) < 60), realism.fakes_error)
    assert alone.high - alone.low > two.high - two.low > 0.5  # what one or two people say of others


def test_few_fakes_beside_many_real_images_are_few():
    person = np.tile(np.arange(10), 52)
    fake = np.arange(520) < 20
    given = answers(person, np.arange(520), fake, ~fake & (np.arange(520) % 20 == 0))  # no fake is taken for real
    hype, fakes = realism.rate(given, realism.hype), realism.rate(realism.of_model(given, fake), realism.fakes_error)
    assert (fakes.value, fakes.low) == (0, 0)
    assert hype.high > 0.5 * fakes.high  # the reals alone say nothing of how often fakes deceive


def test_swapping_real_and_fake_swaps_their_errors_and_leaves_hype_and_d_prime():
    given = crossed()
    other = Answers(given.person, given.image, ~given.fake, given.wrong)
    assert realism.fakes_error(given.sums()) == realism.reals_error(other.sums()) != realism.fakes_error(other.sums())
    assert realism.hype(given.sums()) == pytest.approx(realism.hype(other.sums()))
    assert realism.d_prime(given.sums()) == pytest.approx(realism.d_prime(other.sums()))


def test_simulated_people_err_as_often_as_supposed():
    rng = np.random.default_rng(0)
    given = planning.simulated_answers(Supposed("real-or-fake", 2, error=0.2, pool=5000), 600, 100, rng)
    assert given.wrong[given.fake].mean() == pytest.approx(0.2, abs=0.012)
    assert given.wrong[~given.fake].mean() == pytest.approx(0.2, abs=0.012)
    assert given.fake.mean() == pytest.approx(1 / 3)  # half of a half for each of two models


def test_more_people_narrow_what_is_planned_and_longer_sessions_hardly_do():
    supposed = Supposed("real-or-fake", 2)
    few, people, trials = (planning.expect(supposed, *size, studies=12) for size in ((6, 60), (24, 60), (6, 240)))
    assert people.half_width < 0.6 * few.half_width
    assert people.half_width < 0.6 * trials.half_width  # 24 people's 60 trials, rather than 6 people's 240
    assert 0.75 <= few.coverage <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("people", "error"), [(10, 0.3), (10, 0.05), (30, 0.45)])
def test_intervals_hold_the_truth_in_nineteen_of_twenty_studies(people, error):
    found = planning.expect(Supposed("real-or-fake", 3, error=error), people, 100, studies=600)
    assert 0.93 <= found.coverage <= 0.99
