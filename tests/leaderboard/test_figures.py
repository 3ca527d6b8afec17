from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from genbench.leaderboard.aggregate import read
from genbench.leaderboard.curves import curve
from genbench.leaderboard.drawing import THEMES, short
from genbench.leaderboard.figures import draw_curves, draw_pareto, levels
from genbench.leaderboard.fronts import front, fronts, quality_and_cost
from genbench.leaderboard.statistics import pareto_front
from genbench.records import CurvePoint


def table_of(tmp_path, make, *records):
    (table,) = read(make.write(tmp_path, *records)).tables
    return table


def point(share, fid):
    return CurvePoint(progress=share, seconds=180 * share, steps=int(1000 * share), images=int(64_000 * share), fid=fid)


def test_curve_is_the_median_over_seeds_with_its_range(tmp_path, make):
    curves = (
        [point(0.05, 900.0), point(0.51, 40.0)],
        [point(0.052, 700.0), point(0.5, 60.0)],
        [point(0.05, 1000.0), point(0.5, None), point(1.0, 0.0)],
    )
    table = table_of(tmp_path, make, *(make.record("a", s, 1.0, curve=c) for s, c in enumerate(curves)))
    line = curve(table.rows[0], table)
    assert line.median == (900.0, 50.0)  # no value, and none above 0, are no points
    assert (line.low, line.high) == ((700.0, 40.0), (1000.0, 60.0))
    assert line.x == pytest.approx((9.0, 90.9))


def test_curve_runs_over_what_the_budget_counts(tmp_path, make):
    track = make.track(budget="200kimg")
    table = table_of(tmp_path, make, make.record("a", 0, 1.0, the_track=track, curve=[point(0.5, 40.0)]))
    assert curve(table.rows[0], table).x == (32_000.0,)


def test_front_keeps_what_nothing_beats_in_both():
    points = {"slow": (10.0, 5.0), "fast": (100.0, 50.0), "beaten": (50.0, 60.0), "same": (10.0, 6.0), "middle": (50.0, 20.0)}
    assert pareto_front(points) == ["slow", "middle", "fast"]
    assert pareto_front({"a": (1.0, 1.0), "b": (1.0, 1.0)}) == ["a", "b"]


def test_speed_is_better_high_and_memory_low(tmp_path, make):
    table = table_of(tmp_path, make, make.record("slow", 0, 5.0, speed=100.0), make.record("fast", 0, 9.0, speed=900.0))
    assert [row.label for row in front(table)] == ["slow", "fast"]
    beaten = table_of(tmp_path / "b", make, make.record("slow", 0, 9.0, speed=100.0), make.record("fast", 0, 5.0, speed=900.0))
    assert [row.label for row in front(beaten)] == ["fast"]


def test_pareto_takes_models_with_both_values(tmp_path, make):
    failed = [make.record("lost", 0, 5.0), make.record("lost", 1, status="oom", reason="x")]
    records = [
        make.record("a", 0, 10.0, speed=500.0),
        make.record("still", 0, 3.0, speed=None),
        make.record("noise", 0, 9.0, family="control"),
        *failed,
    ]
    assert [(row.label, x, y) for row, x, y in quality_and_cost(table_of(tmp_path, make, *records))] == [("a", 500.0, 10.0)]


def test_models_whose_names_look_the_same_are_all_shown_and_told_apart(tmp_path, make):
    names = ["dcgan", "dcgan\u200b", "x" * 59 + "ab", "x" * 59 + "cd"]
    records = [
        make.record(name, 0, 10.0 + n, speed=100.0 * (n + 1), curve=make.falling(10.0 + n), digest=f"{n}" * 64)
        for n, name in enumerate(names)
    ]
    table = table_of(tmp_path, make, *records)
    assert sorted(row.model.name for row, _, _ in quality_and_cost(table)) == sorted(names)
    assert len({short(row.label) for row in table.rows}) == len({row.label for row in table.rows}) == len(names)
    assert [len(labels) for labels in fronts(table).values()] == [4, 1, 1]


def test_levels_prefer_the_controls_own_curve(tmp_path, make):
    records = [
        make.record("a", 0, 10.0),
        make.record("noise", 0, 6000.0, family="control", curve=[point(1.0, 6100.0)]),
        make.record("pca", 0, 600.0, family="control"),
    ]
    assert levels(table_of(tmp_path / "few", make, *records)) == [("noise", 6100.0), ("pca", 600.0)]
    equal = make.track(curve_samples=10_000)
    assert levels(table_of(tmp_path / "equal", make, make.record("a", 0, 10.0, the_track=equal))) == [("real data", 2.9)]


def test_figures_are_well_formed_deterministic_and_differ_by_theme(tmp_path, make):
    table = table_of(tmp_path, make, *make.full())
    light, dark = THEMES
    for draw in (draw_curves, draw_pareto):
        drawn = draw(table, light)
        assert ET.fromstring(drawn).tag.endswith("svg")
        assert draw(table, light) == drawn
        assert draw(table, dark) != drawn
        assert b"<dc:date>" not in drawn
        assert b"http" not in drawn.replace(b"http://www.w3.org", b"").replace(b"http://purl.org", b"").replace(
            b"http://creativecommons.org", b""
        ).replace(b"https://matplotlib.org/", b"")


def test_hostile_names_are_drawn_as_they_are(tmp_path, make):
    records = [
        make.record(name, 0, 10.0 + n, curve=make.falling(10.0 + n), speed=100.0 * (n + 1))
        for n, name in enumerate([*make.hostile, "日本語"])
    ]
    table = table_of(tmp_path, make, *records)
    for draw in (draw_curves, draw_pareto):
        root = ET.fromstring(draw(table, THEMES[0]))
        assert not [element for element in root.iter() if element.tag.endswith("script")]


def test_nothing_to_draw(tmp_path, make):
    table = table_of(tmp_path, make, make.record("a", 0, 10.0))
    assert draw_curves(table, THEMES[0]) is None
    assert draw_pareto(table, THEMES[0]) is None


def test_of_very_many_models_the_front_and_the_best_are_named(tmp_path, make):
    records = [
        make.record(f"m{k:03}", 0, 10.0 + k, speed=2000.0 if k == 99 else 500.0 - k, curve=make.falling(10.0 + k)) for k in range(100)
    ]
    table = table_of(tmp_path, make, *records)
    for draw in (draw_curves, draw_pareto):
        few = draw(table_of(tmp_path / draw.__name__, make, *records[:10]), THEMES[0])
        many = draw(table, THEMES[0])
        assert ET.fromstring(many).tag.endswith("svg")
        assert len(many) < 6 * len(few)
    (best, *_) = table.rows
    assert best.label == "m000"
    assert [row.label for row in front(table)] == ["m000", "m099"]
