"""Bradley–Terry strengths against two independent fits, and their intervals."""

from __future__ import annotations

import choix
import numpy as np
import pytest
from scipy import optimize

from genbench.judge import planning, preferences


def votes_of(seed=0, models=4, count=400, ties=0.25):
    """(person, left, right, answer) of ten people on models of unequal strength, some of whom meet seldom."""
    rng = np.random.default_rng(seed)
    truth = np.linspace(-0.9, 0.9, models)
    votes = []
    for at in range(count):
        left, right = rng.choice(models, 2, replace=False, p=np.arange(models, 0, -1) / (models * (models + 1) / 2))
        won = rng.random() < 1 / (1 + np.exp(truth[right] - truth[left]))
        answer = "tie" if rng.random() < ties else "left" if won else "right"
        votes.append((at % 10, int(left), int(right), answer))
    return votes


def by_scipy(points):
    """Maximum of the likelihood of wins and half wins, by Newton steps on the log strengths."""
    models = len(points)

    def loss(free):
        theta = np.append(free, 0.0)
        return float((points * np.logaddexp(0, theta[None] - theta[:, None])).sum())

    def slope(free):
        theta = np.append(free, 0.0)
        lost = points / (1 + np.exp(theta[:, None] - theta[None]))
        return (lost.sum(0) - lost.sum(1))[:-1]

    def bend(free):
        theta = np.append(free, 0.0)
        share = 1 / (1 + np.exp(theta[:, None] - theta[None]))
        both = (points + points.T) * share * (1 - share)
        return (np.diag(both.sum(1)) - both)[:-1, :-1]

    found = optimize.minimize(loss, np.zeros(models - 1), jac=slope, hess=bend, method="trust-exact", options={"gtol": 1e-10})
    theta = np.append(found.x, 0.0)
    return theta - theta.mean()


@pytest.mark.parametrize("seed", range(3))
def test_strengths_equal_an_independent_fit_of_the_same_votes(seed):
    votes = votes_of(seed)
    points = preferences.ballots(votes, 10, 4).points.sum(0)
    ours = preferences.bradley_terry(points)
    won = []
    for _, left, right, answer in votes:  # a tie is half a win each way: every win twice, a tie once either way
        pairs = {"left": [(left, right)] * 2, "right": [(right, left)] * 2, "tie": [(left, right), (right, left)]}
        won += pairs[answer]
    theirs = choix.ilsr_pairwise(4, won, alpha=0.0, max_iter=1000, tol=1e-12)
    assert ours == pytest.approx(theirs - theirs.mean(), abs=1e-6)
    assert ours == pytest.approx(by_scipy(points), abs=1e-6)


def test_with_the_half_win_too_and_where_a_model_never_won():
    votes = [(0, 0, 1, "left")] * 9 + [(1, 1, 2, "left")] * 7 + [(1, 1, 2, "tie")]
    points = preferences.ballots(votes, 2, 3).points.sum(0)
    ours = preferences.bradley_terry(points, preferences.PRIOR)
    assert ours == pytest.approx(by_scipy(points + preferences.PRIOR * (1 - np.eye(3))), abs=1e-6)
    assert ours[0] > ours[1] > ours[2]


def test_two_models_have_the_log_odds_of_their_points():
    cast = preferences.ballots([(0, 0, 1, "left")] * 6 + [(0, 1, 0, "left")] * 2 + [(0, 1, 0, "tie")] * 4, 1, 2)
    assert preferences.bradley_terry(cast.points.sum(0)) == pytest.approx([np.log(2) / 2, -np.log(2) / 2])  # 8 points to 4
    assert preferences.expected(preferences.bradley_terry(cast.points.sum(0))) == pytest.approx([2 / 3, 1 / 3])


def test_sides_are_not_mixed_up():
    cast = preferences.ballots([(0, 1, 0, "left"), (0, 1, 0, "left"), (1, 0, 1, "right"), (1, 0, 1, "tie")], 2, 2)
    assert cast.won.tolist() == [[[0, 0], [2, 0]], [[0, 0], [1, 0]]]
    assert cast.tied.tolist() == [[[0, 0], [0, 0]], [[0, 1], [1, 0]]]


def test_expected_shares_are_average_over_all_models():
    shares = preferences.expected(np.array([1.2, 0.1, -0.3, -1.0]))
    assert shares.mean() == pytest.approx(0.5)
    assert list(shares) == sorted(shares, reverse=True)


def test_people_of_one_mind_give_narrower_intervals_than_people_divided():
    votes = [(p, 0, 1, "left") for p in range(8) for _ in range(6)] + [(p, 1, 0, "left") for p in range(8) for _ in range(4)]
    same = preferences.ballots(votes, 8, 2)
    divided = preferences.ballots([(p, 0, 1, "left" if p < 5 else "right") for p in range(8) for _ in range(10)], 8, 2)
    narrow, wide = (preferences.strengths(cast)[0].preferred for cast in (same, divided))
    assert narrow.high - narrow.low < 0.02  # each of eight people said 6 to 4
    assert wide.high - wide.low > 0.5
    assert 0 < wide.low < wide.value < wide.high < 1


def test_one_person_alone_is_no_certainty():
    votes = [(0, 0, 1, "left")] * 12 + [(0, 0, 1, "right")] * 5 + [(0, 1, 0, "tie")] * 3
    one = preferences.ballots(votes, 1, 2)
    assert preferences.single_votes(one).sum(0).tolist() == one.points[0].tolist() == [[0, 13.5], [6.5, 0]]
    assert len(preferences.single_votes(one)) == 20
    found = preferences.strengths(one)[0]
    assert found.preferred.low < 0.2
    assert found.preferred.high > 0.9
    assert found.strength.low < 0 < found.strength.high


@pytest.mark.slow
def test_intervals_of_shares_hold_the_truth():
    found = planning.expect(planning.Supposed("which-is-better", 4), 15, 60, studies=200)
    assert 0.9 <= found.coverage <= 0.99
