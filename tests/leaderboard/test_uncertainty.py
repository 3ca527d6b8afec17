from __future__ import annotations

import pytest

from genbench.leaderboard import words
from genbench.leaderboard.aggregate import read


def table_of(tmp_path, make, values, **changes):
    """Name -> values by seed (None: failed) -> their table."""
    records = []
    for name, some in values.items():
        for seed, value in enumerate(some):
            failed = {"status": "diverged", "reason": "nan"} if value is None else {}
            records.append(make.record(name, seed, value, **failed, **changes))
    (table,) = read(make.write(tmp_path, *records)).tables
    return table


def test_rows_get_letters_and_intervals_of_their_rank(tmp_path, make):
    values = {"a": [10.0, 10.5, 9.6], "b": [10.2, 10.9, 9.9], "c": [80.0, 82.0, 85.0]}
    table = table_of(tmp_path, make, values)
    assert [(row.label, row.rank, row.rank_interval, row.group) for row in table.rows] == [
        ("a", 1, (1, 2), "a"),
        ("b", 2, (1, 2), "a"),
        ("c", 3, (3, 3), "b"),
    ]
    assert [words.standing(row) for row in table.rows] == ["(1) [1–2]", "(2) [1–2]", "(3) [3]"]
    assert any("t distribution of the logarithm of the score" in note and "Games–Howell" in note for note in table.notes)


def test_one_seed_gets_neither_and_a_table_of_single_seeds_says_nothing_of_them(tmp_path, make):
    table = table_of(tmp_path / "some", make, {"a": [10.0, 10.5, 9.6], "b": [10.2], "c": [80.0, 82.0, 85.0]})
    found = {row.label: (row.rank_interval, row.group) for row in table.rows}
    assert found["b"] == (None, "")
    assert found["a"] == ((1, 2), "a")  # where b lies is not known: the spread of the others says how far
    table = table_of(tmp_path / "none", make, {"a": [1.0], "b": [2.0]})
    assert not any("interval" in note for note in table.notes)


def test_a_row_that_mostly_failed_is_in_no_group(tmp_path, make):
    table = table_of(tmp_path, make, {"a": [10.0, 10.5, 9.6], "b": [10.2, 10.1, None, None, None], "c": [80.0, 82.0, 85.0]})
    assert {row.label: (row.rank, row.group) for row in table.rows} == {"a": (1, "a"), "c": (2, "b"), "b": (None, "")}


def test_scores_at_or_below_zero_are_compared_as_they_are(tmp_path, make):
    track = make.track(rank_by="kid")
    values = {"a": [-0.001, 0.002, 0.001], "b": [0.9, 1.1, 1.0]}
    records = [
        make.record(name, seed, 5.0, the_track=track, scores=[make.score("kid", value)])
        for name, some in values.items()
        for seed, value in enumerate(some)
    ]
    (table,) = read(make.write(tmp_path, *records)).tables
    assert [(row.rank_interval, row.group) for row in table.rows] == [((1, 1), "a"), ((2, 2), "b")]
    assert any("of the score itself, which is not above 0 everywhere" in note for note in table.notes)


def test_higher_is_better_turns_ranks_round(tmp_path, make):
    track = make.track(rank_by="precision")
    values = {"low": [0.2, 0.21, 0.19], "high": [0.8, 0.82, 0.81]}
    records = [
        make.record(name, seed, 5.0, the_track=track, scores=[make.score("precision", value, "higher")])
        for name, some in values.items()
        for seed, value in enumerate(some)
    ]
    (table,) = read(make.write(tmp_path, *records)).tables
    assert [(row.label, row.rank_interval, row.group) for row in table.rows] == [("high", (1, 1), "a"), ("low", (2, 2), "b")]


def test_an_interval_holds_its_rank_even_where_median_and_mean_disagree(tmp_path, make):
    # by the median a leads; its mean is far behind
    table = table_of(tmp_path, make, {"a": [9.0, 9.1, 400.0, 9.05, 420.0], "b": [9.2, 9.25, 9.22, 9.21, 9.24]})
    assert [(row.label, row.rank) for row in table.rows] == [("a", 1), ("b", 2)]
    for row in table.rows:
        low, high = row.rank_interval
        assert low <= row.rank <= high


@pytest.mark.parametrize("count", [40])
def test_letters_of_a_long_table_agree_with_its_groups(tmp_path, make, count):
    values = {f"m{k:02}": [10 * 1.04**k * (1 + 0.02 * s * (-1) ** k) for s in range(3)] for k in range(count)}
    table = table_of(tmp_path, make, values)
    assert all(row.group and row.groups for row in table.rows)
    assert not set(table.rows[0].groups) & set(table.rows[-1].groups)
    assert set(table.rows[0].groups) & set(table.rows[1].groups)
