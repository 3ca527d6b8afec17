"""Against scipy, published tables, hand-computed cases, and simulations of what intervals and groups promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from genbench.leaderboard import statistics as stats
from genbench.leaderboard.friedman import average_ranks, friedman, performance_profile, performance_ratios, within
from genbench.leaderboard.studentized import studentized_range_quantile, studentized_range_sf

LEFT = [1.2, 1.9, 1.4, 2.2, 1.0]
RIGHT = [2.9, 3.4, 2.1]
THIRD = [2.0, 2.4, 9.0, 4.0]


# --- Tukey's distribution
@pytest.mark.parametrize(
    ("q", "count", "df"),
    [(3.0, 2, 1.0), (30.0, 2, 1.0), (4.0, 3, 4.2), (5.9, 20, 8.0), (11.0, 20, 7.1), (7.0, 500, 8.0), (3.9, 5, 1000.0), (60.0, 10, 1.3)],
)
def test_the_studentized_range_is_scipys(q, count, df):
    ours = studentized_range_sf(np.array([q]), count, np.array([df]))[0]
    assert ours == pytest.approx(scipy.stats.studentized_range.sf(q, count, df), abs=2e-6)


def test_the_range_over_known_sd_is_the_table_of_demsar():
    table = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    ours = [studentized_range_quantile(0.95, count, math.inf) / math.sqrt(2) for count in range(2, 11)]
    assert ours == pytest.approx(table, abs=0.0015)


def test_quantile_and_tail_are_inverse():
    q = studentized_range_quantile(0.9, 4, 6.5)
    assert studentized_range_sf(np.array([q]), 4, np.array([6.5]))[0] == pytest.approx(0.1, abs=1e-6)


def test_an_infinite_distance_has_no_tail_and_none_has_all_of_it():
    assert studentized_range_sf(np.array([np.inf, 0.0]), 5, np.array([4.0, 4.0])) == pytest.approx([0.0, 1.0], abs=1e-9)


# --- pairs
def test_games_howell_is_scipys_and_symmetric():
    p = stats.games_howell([LEFT, RIGHT, THIRD])
    assert p == pytest.approx(scipy.stats.tukey_hsd(LEFT, RIGHT, THIRD, equal_var=False).pvalue, abs=2e-6)
    assert np.array_equal(p, p.T)


def test_of_two_samples_it_is_welchs_test():
    found = stats.difference(LEFT, RIGHT)
    oracle = scipy.stats.ttest_ind(LEFT, RIGHT, equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert (found.p, found.df) == pytest.approx((oracle.pvalue, oracle.df), abs=2e-6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=5e-5)
    assert found.value == pytest.approx(np.mean(LEFT) - np.mean(RIGHT))
    assert found.value < 0 < stats.difference(RIGHT, LEFT).value


def test_among_three_the_interval_is_scipys_simultaneous_one():
    found = stats.difference(LEFT, THIRD, among=3)
    oracle = scipy.stats.tukey_hsd(LEFT, RIGHT, THIRD, equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low[0, 2], interval.high[0, 2], oracle.pvalue[0, 2]), rel=2e-5)


def test_samples_without_spread_are_equal_or_apart():
    assert stats.games_howell([[2.0, 2.0], [2.0, 2.0], [3.0, 3.0, 3.0]]).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert stats.difference([0.1] * 3, [0.1] * 3).p == 1.0
    same = stats.difference([3.0, 3.0], [2.0, 2.0])
    assert (same.low, same.high, same.p, same.g) == (1.0, 1.0, 0.0, None)


def test_hedges_g_by_hand():
    # means 2 and 5, pooled variance (2 + 2) / 4 = 1, exact correction for 4 degrees of freedom gamma(2) / (sqrt(2) gamma(1.5))
    assert stats.hedges_g([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]) == pytest.approx(-3 / (math.sqrt(2) * math.gamma(1.5)))
    assert stats.hedges_g([1.0], [2.0, 3.0]) is None


def test_permutation_is_scipys_and_its_least_is_known():
    oracle = scipy.stats.permutation_test(
        (LEFT, RIGHT), lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis), vectorized=True, n_resamples=np.inf
    )
    found = stats.permutation(LEFT, RIGHT)
    # scipy doubles the smaller tail; ours counts differences as large in either direction
    values = np.array([*LEFT, *RIGHT])
    gaps = [abs(values[list(c)].mean() - np.delete(values, c).mean()) for c in itertools.combinations(range(8), 5)]
    assert found.p == pytest.approx(np.mean(np.array(gaps) >= gaps[0] - 1e-12))
    assert abs(found.p - oracle.pvalue) < 0.05
    assert found.smallest == pytest.approx(1 / 56)
    apart = stats.permutation([1.0, 2.0, 3.0, 4.0, 5.0], [11.0, 12.0, 13.0, 14.0, 15.0])
    assert apart.p == apart.smallest == pytest.approx(2 / 252)  # the .0079 of five against five
    assert stats.permutation([1.0] * 12, [2.0] * 12) is None
    assert stats.permutation([], [1.0]) is None


def test_scale_is_logarithmic_only_above_zero():
    assert stats.scale_of([[1.0], [2.0, 0.5]]) == "log"
    assert stats.scale_of([[1.0], [0.0]]) == stats.scale_of([[0.002, -0.001]]) == "raw"
    assert stats.on_scale([[1.0, math.e]], "log") == [[0.0, 1.0]]
    assert stats.on_scale([[-1.0]], "raw") == [[-1.0]]


# --- letters
def shares(numbers, i, j):
    return bool(set(numbers[i]) & set(numbers[j]))


def test_letters_by_hand():
    p = np.ones((4, 4))
    for i, j in [(0, 2), (0, 3), (1, 3)]:  # neighbours alike, others not
        p[i, j] = p[j, i] = 0.01
    assert stats.letters(stats.letter_groups(p)) == ["a", "ab", "bc", "c"]
    assert stats.letters(stats.letter_groups(np.zeros((3, 3)))) == ["a", "b", "c"]
    assert stats.letters(stats.letter_groups(np.ones((3, 3)))) == ["a", "a", "a"]


def test_letters_where_a_noisy_row_stands_between_rows_that_are_apart():
    p = np.ones((3, 3))
    p[0, 2] = p[2, 0] = 0.01
    assert stats.letters(stats.letter_groups(p)) == ["a", "ab", "b"]
    p = np.ones((3, 3))
    p[0, 1] = p[1, 0] = 0.01  # the last is too noisy to be told from either
    assert stats.letters(stats.letter_groups(p)) == ["a", "b", "ab"]


@pytest.mark.parametrize("seed", range(30))
def test_rows_share_a_letter_if_and_only_if_they_are_not_significantly_apart(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 16))
    p = np.triu(rng.random((count, count)) < rng.uniform(0.1, 0.9), 1) * 1.0
    p += p.T
    numbers = stats.letter_groups(p)
    assert all(shares(numbers, i, j) == (p[i, j] > 0) for i, j in itertools.combinations(range(count), 2))
    assert all(numbers)
    cliques = [{row for row in range(count) if number in numbers[row]} for number in range(1 + max(map(max, numbers)))]
    assert not [1 for a, b in itertools.permutations(cliques, 2) if a <= b]  # none that another makes superfluous


def test_many_letters_stay_readable():
    assert stats.letters([[0, 1, 2, 3, 7], [25], []]) == ["a–dh", "z", ""]
    assert stats.letters([[0, 26, 27], [701, 702]]) == ["a aa ab", "zz aaa"]


# --- ranks
def test_rank_intervals_of_rows_far_apart_are_single_ranks():
    rows = [[5.0, 5.1, 5.2], [1.0, 1.1, 0.9], [9.0, 9.1]]
    assert stats.rank_intervals(rows, [0, 0, 0]) == [(2, 2), (1, 1), (3, 3)]


def test_rank_intervals_of_equal_rows_are_wide_and_repeatable():
    rng = np.random.default_rng(0)
    rows = [rng.normal(0, 1, 5).tolist() for _ in range(10)]
    found = stats.rank_intervals(rows, [0] * 10)
    assert min(high - low for low, high in found) >= 4
    assert found == stats.rank_intervals(rows, [0] * 10)


def test_a_single_seed_has_no_interval_but_others_reckon_with_its_spread():
    rows = [[1.0, 1.4, 0.6, 1.2], [1.1], [30.0, 30.5]]
    found = stats.rank_intervals(rows, [0, 0, 0])
    assert found[1] is None
    assert found[0] == (1, 2)
    assert stats.rank_intervals([[1.0], [2.0]], [0, 0]) == [None, None]


def test_failed_seeds_widen_a_rank_towards_the_end():
    steady = [[1.0, 1.01, 0.99, 1.0, 1.02]] + [[2.0 + k, 2.01 + k, 1.99 + k] for k in range(4)]
    assert stats.rank_intervals(steady, [0] * 5)[0] == (1, 1)
    low, high = stats.rank_intervals([steady[0][:3], *steady[1:]], [2, 0, 0, 0, 0])[0]
    assert (low, high) == (1, 5)  # 3/5: more than half might fail


# --- over tracks
def test_friedman_is_scipys_with_ties_and_failures():
    rng = np.random.default_rng(4)
    scores = np.round(rng.random((7, 5)) * 3)
    scores[2, 1] = math.inf
    ranks = average_ranks(scores)
    assert np.array_equal(ranks, np.array([scipy.stats.rankdata(line) for line in scores]))
    oracle = scipy.stats.friedmanchisquare(*scores.T)
    found = friedman(ranks)
    assert (found.chi2, found.p) == pytest.approx((oracle.statistic, oracle.pvalue))


def test_demsars_example_of_critical_difference():
    # four algorithms over 14 data sets: 2.569 sqrt(4 * 5 / (6 * 14)) = 1.25 (JMLR 7, page 14)
    assert friedman(np.tile([1.0, 2.0, 3.0, 4.0], (14, 1))).critical_difference == pytest.approx(1.25, abs=0.005)


def test_models_that_never_differ_have_p_one():
    assert (friedman(np.full((6, 3), 2.0)).chi2, friedman(np.full((6, 3), 2.0)).p) == (0.0, 1.0)


def test_bars_are_the_largest_runs_within_the_critical_difference():
    assert within([1.0, 1.5, 2.5, 4.0], 1.2) == [(0, 1), (1, 2)]
    assert within([1.0, 1.5, 2.0], 5.0) == [(0, 2)]
    assert within([1.0, 3.0], 1.0) == []


def test_performance_profile_by_hand():
    times = np.array([[10.0, 20.0], [30.0, math.inf], [math.inf, 5.0], [math.inf, math.inf]])
    ratios = performance_ratios(times)
    assert ratios.tolist() == [[1, 2], [1, math.inf], [math.inf, 1], [math.inf, math.inf]]
    assert performance_profile(ratios, np.array([1.0, 2.0])).tolist() == [[0.5, 0.5], [0.25, 0.5]]


# --- what is promised, simulated
def simulated_tables(repeats, rows=20, seeds=5, gap=5.0, seed=1):
    """Log scores of tables whose first two rows are truly equal, the third `gap` seed-deviations worse, the rest spread over a decade."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([[0.0, 0.0, gap], np.linspace(-10, 25, rows - 3)])
    return truth, truth[:, None] + rng.standard_normal((repeats, rows, seeds))


def together_and_apart(repeats):
    _, tables = simulated_tables(repeats)
    together = apart = 0
    for table in tables:
        numbers = stats.letter_groups(stats.games_howell(table))
        together += shares(numbers, 0, 1)
        apart += not shares(numbers, 0, 2)
    return together / repeats, apart / repeats


def rank_coverage(repeats, spread):
    """Share of true ranks that lie in their intervals, over tables of 20 rows whose truths lie `spread` seed-deviations apart in all."""
    rng = np.random.default_rng(2)
    held = []
    for _ in range(repeats):
        truth = np.sort(rng.uniform(0, spread, 20))
        rows = truth[:, None] + rng.standard_normal((20, 5))
        found = stats.rank_intervals(rows, [0] * 20, draws=1000)
        held += [low <= rank <= high for rank, (low, high) in enumerate(found, 1)]
    return float(np.mean(held))


def t_coverage(repeats, sigma):
    """Share of 95 % intervals of five log-normal scores that hold the true mean."""
    rng = np.random.default_rng(3)
    values = np.exp(sigma * rng.standard_normal((repeats, 5)))
    truth = math.exp(sigma**2 / 2)
    return float(np.mean([abs(np.mean(some) - truth) <= stats.t_interval(some.tolist()) for some in values]))


def test_equal_rows_stay_together_and_distant_ones_separate():
    together, apart = together_and_apart(100)
    assert together >= 0.94
    assert apart >= 0.8


def test_intervals_cover_what_they_should():
    assert 0.91 <= t_coverage(1000, 0.2) <= 0.98
    assert rank_coverage(25, 10.0) >= 0.93


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_promises_at_full_size():
    together, apart = together_and_apart(2000)
    t_cover = {sigma: t_coverage(20_000, sigma) for sigma in (0.05, 0.2, 0.5)}
    ranks = {spread: rank_coverage(300, spread) for spread in (3.0, 10.0, 40.0)}
    print(f"together {together:.4f}, apart {apart:.4f}, t {t_cover}, ranks {ranks}")
    assert together >= 0.99  # one of 190 pairs: the family's 5 % leave it alone
    assert apart >= 0.9
    assert all(0.94 <= t_cover[sigma] <= 0.96 for sigma in (0.05, 0.2))
    assert all(share >= 0.95 for share in ranks.values())
