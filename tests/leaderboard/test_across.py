from __future__ import annotations

import itertools
import json
import random
import xml.etree.ElementTree as ET

import pytest
import scipy.stats

from genbench.leaderboard import build
from genbench.leaderboard.across import _largest_block
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.diagrams import draw_critical_difference, draw_profile
from genbench.leaderboard.drawing import THEMES
from genbench.records import CurvePoint

DATASETS = ("mnist", "cifar10", "celeba", "svhn", "stl10", "fashion", "kmnist")
LADDER = {"best": 10.0, "second": 12.0, "third": 15.0, "last": 40.0}


def tracks(make, count, **changes):
    return [make.track(name=f"t{n}", dataset=DATASETS[n], **changes) for n in range(count)]


def ladder(make, chosen, scores=LADDER, **changes):
    return [make.record(name, 0, fid, the_track=track, **changes) for track in chosen for name, fid in scores.items()]


def across_of(tmp_path, make, records):
    return read(make.write(tmp_path, *records)).across


def points(*pairs):
    return [CurvePoint(progress=seconds / 180, seconds=seconds, steps=1, images=1, fid=fid) for seconds, fid in pairs]


def test_six_tracks_are_tested_and_five_are_not(tmp_path, make):
    (found,) = across_of(tmp_path / "six", make, ladder(make, tracks(make, 6)))
    assert [(entrant.label, entrant.mean_rank) for entrant in found.entrants] == [("best", 1), ("second", 2), ("third", 3), ("last", 4)]
    oracle = scipy.stats.friedmanchisquare(*[[fid] * 6 for fid in LADDER.values()])
    assert (found.friedman.chi2, found.friedman.p) == pytest.approx((oracle.statistic, oracle.pvalue))
    assert found.refused == ""
    assert found.alike == [(0, 1), (1, 2), (2, 3)]  # CD = 2.569 sqrt(20 / 36) = 1.91
    assert found.friedman.critical_difference == pytest.approx(1.915, abs=0.001)
    (fewer,) = across_of(tmp_path / "five", make, ladder(make, tracks(make, 5)))
    assert fewer.friedman is None
    assert "at least 6" in fewer.refused
    assert "there are 5" in fewer.refused
    assert draw_critical_difference(fewer, THEMES[0]) is None


def test_a_single_track_says_nothing_over_tracks(tmp_path, make):
    assert across_of(tmp_path, make, ladder(make, tracks(make, 1))) == ()


def test_failures_are_last_and_equal_medians_share_a_rank(tmp_path, make):
    chosen = tracks(make, 2)
    records = ladder(make, chosen, {"a": 5.0, "b": 5.0, "c": 9.0})
    records += [make.record("d", 0, the_track=track, status="diverged", reason="nan") for track in chosen]
    (found,) = across_of(tmp_path, make, records)
    assert {entrant.label: entrant.ranks for entrant in found.entrants} == {
        "a": (1.5, 1.5), "b": (1.5, 1.5), "c": (3, 3), "d": (4, 4),
    }  # fmt: skip


def test_higher_is_better_where_the_track_says_so(tmp_path, make):
    chosen = [make.track(name="t0", rank_by="precision"), make.track(name="t1", dataset="cifar10")]
    records = [
        make.record(name, 0, fid, the_track=track, scores=[make.score("precision", precision, "higher")])
        for track in chosen
        for name, fid, precision in (("sharp", 50.0, 0.9), ("close", 10.0, 0.3))
    ]
    (found,) = across_of(tmp_path, make, records)
    ranks = {entrant.label: dict(zip(found.tracks, entrant.ranks, strict=True)) for entrant in found.entrants}
    assert ranks == {"sharp": {"t0": 1, "t1": 2}, "close": {"t0": 2, "t1": 1}}


def test_devices_are_never_mixed_and_reproductions_and_tuning_left_out(tmp_path, make):
    chosen = tracks(make, 2)
    records = ladder(make, chosen) + ladder(make, chosen, device="H100", env=make.environment(device="H100"))
    records += ladder(make, [make.track(name="reproduce-x"), make.track(name="tuning", reference="holdout")])
    found = across_of(tmp_path, make, records)
    assert [(across.device_class, sorted(across.tracks)) for across in found] == [("H100", ["t0", "t1"]), ("cpu-2", ["t0", "t1"])]


def test_the_largest_block_of_models_and_tracks_is_compared(tmp_path, make):
    chosen = tracks(make, 4)
    records = ladder(make, chosen[:3]) + ladder(make, chosen[3:], {"best": 1.0, "second": 2.0})
    records += [make.record("stranger", 0, 3.0, the_track=chosen[0])]
    (found,) = across_of(tmp_path, make, records)
    assert sorted(found.tracks) == ["t0", "t1", "t2"]  # 4 models x 3 tracks beat 2 x 4
    assert len(found.entrants) == 4
    assert any("t3" in note for note in found.notes)
    assert any("stranger" in note for note in found.notes)


def test_a_block_may_leave_out_the_table_with_most_models(tmp_path, make):
    chosen = tracks(make, 3)
    records = ladder(make, chosen[:2], {"a": 1.0, "b": 2.0}) + ladder(make, chosen[2:], {"x": 1.0, "y": 2.0, "z": 3.0})
    (found,) = across_of(tmp_path, make, records)
    assert sorted(found.tracks) == ["t0", "t1"]
    assert [entrant.label for entrant in found.entrants] == ["a", "b"]
    assert any("t2" in note for note in found.notes)


def sets(*names):
    return [frozenset((name, "package") for name in some) for some in names]


def by_trying(entrants):
    """Size and number of tables of the largest block, by every choice of tables."""
    choices = (some for n in range(2, len(entrants) + 1) for some in itertools.combinations(entrants, n))
    return max(((len(some) * len(common), len(some)) for some in choices if len(common := frozenset.intersection(*some)) > 1), default=None)


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_block_is_found_whatever_the_tables_hold(seed):
    chance = random.Random(seed)
    entrants = sets(*("".join(c for c in "abcdefg" if chance.random() < 0.6) for _ in range(7)))
    tables, common = _largest_block(entrants)
    assert (len(tables) * len(common), len(tables)) == by_trying(entrants)
    assert all(common <= entrants[at] for at in tables)


def test_of_equal_blocks_that_of_more_tables_then_the_first_is_taken():
    assert _largest_block(sets("abc", "abcd", "ab"))[0] == [0, 1, 2]  # 3 x 2 as much as 2 x 3
    assert _largest_block(sets("ab", "xy", "ab", "xy"))[0] == [0, 2]
    assert _largest_block(sets("ab", "ac", "bc")) is None
    assert _largest_block([]) is None


def test_of_very_many_tables_those_that_share_least_are_not_searched():
    many = sets(*["abcdef"] * 30, *["xy"] * 3, "abz", *(f"{n:02}" for n in range(40, 90)))
    tables, common = _largest_block(many)
    assert tables == [*range(30)]  # all 30, though only 15 were searched
    assert {name for name, _ in common} == set("abcdef")
    spread = [frozenset((f"m{(n * k) % 61}", "package") for k in range(1, 40)) for n in range(1, 60)]
    tables, common = _largest_block(spread)
    assert min(len(tables), len(common)) > 1
    assert all(common <= spread[at] for at in tables)


def test_entrants_whose_names_look_the_same_are_told_apart(tmp_path, make):
    chosen = tracks(make, 2, target=20.0)
    names = ["dcgan", "dcgan\u200b", "x" * 60 + "a", "x" * 60 + "b"]
    curve = points((10, 90), (20, 20))
    records = [make.record(name, 0, 5.0 + n, the_track=track, curve=curve) for track in chosen for n, name in enumerate(names)]
    (found,) = across_of(tmp_path, make, records)
    assert len({entrant.label for entrant in found.entrants}) == 4
    assert found.ratios == [[1, 1]] * 4
    assert ET.fromstring(draw_profile(found, THEMES[0])).tag.endswith("svg")


def test_of_several_rows_of_a_model_that_with_most_seeds_stands_for_it_not_the_best(tmp_path, make):
    chosen = tracks(make, 2)
    records = ladder(make, chosen, {"m": 50.0, "n": 30.0}) + [make.record("m", 1, 50.0, the_track=track) for track in chosen]
    records += [make.record("m", 0, 1.0, the_track=track, changed={"width": 9}) for track in chosen]
    (found,) = across_of(tmp_path, make, records)
    assert [entrant.label for entrant in found.entrants] == ["n", "m"]
    assert any("most seeds" in note for note in found.notes)


def test_tracks_of_one_dataset_are_said_not_to_be_independent(tmp_path, make):
    (found,) = across_of(tmp_path, make, ladder(make, [make.track(name="t0"), make.track(name="t1", budget="5m")]))
    assert any("2 of the 2 tracks share a dataset" in note for note in found.notes)


def test_time_to_target_is_the_first_point_at_or_below_it_median_over_seeds(tmp_path, make):
    chosen = tracks(make, 2, target=20.0)
    early, late, never = points((10, 90), (20, 20), (30, 25)), points((10, 90), (40, 19)), points((10, 90), (180, 21))
    records = []
    for track in chosen:
        records += [make.record("a", seed, 5.0, the_track=track, curve=curve) for seed, curve in enumerate((early, late, never))]
        records += [make.record("b", seed, 6.0, the_track=track, curve=curve) for seed, curve in enumerate((late, never, never))]
        records += [make.record("c", 0, 7.0, the_track=track, curve=points((80, 3)))]
        records += [make.record("c", 1, the_track=track, curve=early, status="oom", reason="x")]
    (found,) = across_of(tmp_path, make, records)
    assert {entrant.label: entrant.times for entrant in found.entrants} == {"a": (40, 40), "b": (None, None), "c": (None, None)}
    ratios = {entrant.label: own for entrant, own in zip(found.entrants, found.ratios, strict=True)}
    assert ratios == {"a": [1, 1], "b": [float("inf")] * 2, "c": [float("inf")] * 2}
    assert ET.fromstring(draw_profile(found, THEMES[0])).tag.endswith("svg")


def test_a_target_declared_after_the_records_counts_for_them(tmp_path, make):
    from genbench.track import shipped_tracks

    shipped = next(track for track in shipped_tracks() if track.name == "mnist-3m")
    old = shipped.model_copy(update={"target": None})
    (table,) = read(make.write(tmp_path, make.record("a", 0, 5.0, the_track=old))).tables
    assert table.track.target == shipped.target == 15


def test_published_over_tracks(tmp_path, make):
    chosen = tracks(make, 6, target=20.0)
    records = [
        make.record(name, 0, fid, the_track=track, curve=points((10, 90), (at, 15)))
        for track in chosen
        for name, fid, at in (("a|b", 5.0, 60), ("$x_1$", 6.0, 30), ("<i>", 7.0, 90))
    ]
    build(make.write(tmp_path / "results", *records), tmp_path / "out")
    content = json.loads((tmp_path / "out" / "across.json").read_text())
    (across,) = content["across"]
    assert [entrant["label"] for entrant in across["entrants"]] == ["a|b", "$x_1$", "<i>"]
    assert across["entrants"][0]["seconds_to_target"] == [60.0] * 6
    assert across["friedman"]["p"] < 0.05
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "| a\\|b | 1.00 | 1 (60 s) |" in readme
    assert "Friedman's test, 3 models over 6 tracks" in readme
    for kind in ("critical-difference", "profile"):
        assert f"site/img/across-0-{kind}-light.svg" in readme
        for theme in ("light", "dark"):
            drawn = ET.fromstring((tmp_path / "out" / "site" / "img" / f"across-0-{kind}-{theme}.svg").read_bytes())
            assert drawn.tag.endswith("svg")
    start = (tmp_path / "out" / "site" / "index.html").read_text()
    assert "img/across-0-critical-difference-dark.svg" in start
    assert "<i>" not in start
