"""What pages are made of: small charts, figures in two themes, grids, the newest results."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from genbench.leaderboard import build
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.figures import THEMES, draw_curves, draw_pareto
from genbench.leaderboard.site.drawings import Line, chart, ticks
from genbench.leaderboard.site.frame import model_file
from genbench.leaderboard.site.plots import recolour
from genbench.leaderboard.site.start import newest
from genbench.leaderboard.site.track import marks
from genbench.leaderboard.table import identity
from genbench.records import HOLDOUT_NLL


def test_ticks_are_round_and_inside():
    assert ticks(0.0, 180.0, False) == [0.0, 50.0, 100.0, 150.0]
    assert ticks(-0.3, 0.9, False) == [0.0, 0.5]
    assert ticks(5.0, 3000.0, True) == [10.0, 100.0, 1000.0]
    assert ticks(2.5, 40.0, True) == [3.0, 10.0, 30.0]
    assert ticks(1.1, 1.9, True) == pytest.approx([1.2, 1.4, 1.6, 1.8])  # less than a step of whole numbers: as on a linear axis


def test_a_chart_places_points_by_value_and_draws_the_median_seed_last():
    drawn = chart(
        [
            Line(((0.0, 10.0), (100.0, 1000.0)), bold=True),
            Line(((0.0, 100.0), (50.0, 100.0)), failed=True),
            Line(((1.0, 1.0),)),
        ],
        description="<FID> & co", x_title="seconds", log=True,
    )  # fmt: skip
    root = ET.fromstring(drawn)
    assert root.attrib["aria-label"] == "<FID> & co"
    lines = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert [line.attrib["class"] for line in lines] == ["line failed", "line bold"]  # a single point is no line
    (x0, y0), (x1, y1) = ([float(n) for n in pair.split(",")] for pair in lines[1].attrib["points"].split())
    (_, middle), (half, _) = ([float(n) for n in pair.split(",")] for pair in lines[0].attrib["points"].split())
    assert x0 < half < x1
    assert half == pytest.approx((x0 + x1) / 2, abs=0.1)
    assert y0 > middle > y1  # larger is higher up, and 100 is half-way from 10 to 1000
    assert middle == pytest.approx((y0 + y1) / 2, abs=0.1)


def test_a_chart_survives_flat_negative_and_missing_lines():
    assert chart([], description="", x_title="x") == ""
    assert chart([Line(((0.0, 1.0),))], description="", x_title="x") == ""
    for values in ((0.0, 0.0), (-3.0, -3.0), (1e-9, 1e9), (-1.0, 5.0)):
        for log in (False, True):
            drawn = chart([Line(tuple(enumerate(values)))], description="d", x_title="x", log=log)
            assert "nan" not in ET.tostring(ET.fromstring(drawn)).decode()


def test_long_lines_are_thinned_and_keep_their_end():
    drawn = chart([Line(tuple((float(x), 0.5) for x in range(100_000)))], description="d", x_title="x")
    points = re.search(r'points="([^"]*)"', drawn)[1].split()
    assert len(points) <= 402
    assert points[-1].startswith("328.0,")


def test_the_dark_figure_is_the_light_one_in_other_colours(tmp_path, make):
    (table,) = read(make.write(tmp_path, *make.full())).tables
    light, dark = THEMES
    for draw in (draw_curves, draw_pareto):
        both = (recolour(draw(table, light), light, dark), draw(table, dark))
        swapped, drawn = (re.sub(rb"\b[mpc][0-9a-f]{10}\b", b"id", text) for text in both)
        assert swapped == drawn
        assert swapped != draw(table, light)


def test_a_model_keeps_its_address_whatever_it_scores_and_wherever(tmp_path, make):
    one, two = make.record("a|b", 0, 5.0), make.record("a|b", 1, 50.0, the_track=make.track(name="other", budget="9m"))
    rows = [read(make.write(tmp_path / name, record)).tables[0].rows[0] for name, record in (("x", one), ("y", two))]
    assert model_file(rows[0]) == model_file(rows[1]) == f"models/a_b-{identity(one.spec.model)}.html"


def test_a_model_of_several_tracks_has_one_page_with_all_of_them(tmp_path, make):
    other = make.track(name="mnist-60s", budget="60s")
    records = [make.record("a", 0, 5.0), make.record("a", 0, 7.0, the_track=other), make.record("a", 0, 9.0, changed={"width": 8})]
    build(make.write(tmp_path / "results", *records), tmp_path / "out")
    pages = {path.name: path.read_text() for path in (tmp_path / "out" / "site" / "models").iterdir()}
    assert len(pages) == 2
    (both,) = [text for text in pages.values() if text.count("<h2 id=\"p") == 2]
    assert "width=8" in both  # its namesake is linked
    assert set(re.findall(r'href="\.\./(models/[^"]+)"', both)) == {f"models/{name}" for name, text in pages.items() if text != both}


def test_the_failures_of_a_model_are_its_own_though_another_looks_the_same(tmp_path, make):
    names = {"dcgan": "nan at step 7", "dcgan\u200b": "no memory"}
    results = make.write(tmp_path / "results", *(make.record(name, 0, status="error", reason=why) for name, why in names.items()))
    build(results, tmp_path / "out")
    pages = [path.read_text() for path in (tmp_path / "out" / "site" / "models").iterdir()]
    assert sorted(tuple(why in text for why in names.values()) for text in pages) == [(False, True), (True, False)]
    assert all("Other rows of this name" in text for text in pages)


def test_every_run_is_sorted_by_its_numbers_not_by_how_they_are_written(tmp_path, make):
    failed = make.record("b", 0, status="error", reason="x").model_copy(update={"spent": None})
    build(make.write(tmp_path / "results", make.record("a", 0, 1234.5, speed=12_345.6), failed), tmp_path / "out")
    page = (tmp_path / "out" / "site" / "mnist-3m.html").read_text()
    lines = page[page.index("<summary>Every run</summary>") :].partition("</table>")[0].split("<tr>")[2:]
    numbers = [re.findall(r'<td data-sort="([^"]*)">([^<]*)</td>', line) for line in lines]
    assert numbers == [
        [("1234.5", "1\u202f234"), ("4321", "4\u202f321"), ("180.2", "180.2 s"), ("12345.6", "12\u202f346")],
        [("", "–")] * 4,
    ]


def test_newest_results_come_first_and_only_models(tmp_path, make):
    records = [
        make.record("old", 0, 1.0, started="2025-01-01T10:00:00+00:00"),
        make.record("new", 0, 2.0, started="2025-03-01T10:00:00+00:00"),
        make.record("late-seed", 0, 3.0, started="2025-01-01T10:00:00+00:00"),
        make.record("late-seed", 1, 3.0, started="2025-02-01T10:00:00+00:00"),
        make.record("noise", 0, 9.0, family="control", started="2025-04-01T10:00:00+00:00"),
    ]
    told = newest(read(make.write(tmp_path, *records)))
    assert [(row["day"], row["label"]) for row in told] == [("2025-03-01", "new"), ("2025-02-01", "late-seed"), ("2025-01-01", "old")]


def test_rows_are_marked_by_what_a_reader_would_filter_for(tmp_path, make):
    records = [
        *(make.record("whole", seed, 5.0 + seed / 10) for seed in range(5)),
        make.record("broken", 0, 6.0, flags=["conditional", "memorised: 3 % exact copies"], pretrained="ImageNet"),
        make.record("broken", 1, status="oom", reason="x"),
    ]
    rows = {row.label: marks(row) for row in read(make.write(tmp_path, *records)).tables[0].rows}
    assert rows == {"whole": [], "broken": ["preliminary", "failed", "conditional", "pretrained", "memorised"]}


def test_a_rank_says_how_many_seeds_make_it_final(tmp_path, make):
    build(make.write(tmp_path / "results", make.record("a", 0, 5.0, the_track=make.track(name="mine", seeds=3))), tmp_path / "out")
    assert 'title="Preliminary: fewer than 3 seeds"' in (tmp_path / "out" / "site" / "mine.html").read_text()


@pytest.mark.parametrize(("rank_by", "curve_samples", "told"), [("fid", 1000, True), ("fid", 10_000, False), ("iwae_nats", 1000, False)])
def test_that_the_curves_score_is_of_fewer_images_is_said_where_it_is(tmp_path, make, rank_by, curve_samples, told):
    track = make.track(rank_by=rank_by, curve_samples=curve_samples)
    points = [point.model_copy(update={"losses": {HOLDOUT_NLL: 90.0 + point.seconds}}) for point in make.falling(5.0)]
    if rank_by != "fid":
        points = [point.model_copy(update={"fid": None}) for point in points]
    bound = make.score("iwae_nats", -90.0, "higher", extractor=None)
    build(make.write(tmp_path / "results", make.record("a", 0, 5.0, the_track=track, curve=points, scores=[bound])), tmp_path / "out")
    site = tmp_path / "out" / "site"
    (page,) = (site / "models").iterdir()
    assert "Along the budget" in page.read_text()
    assert ("FID along the way is scored on fewer images" in page.read_text()) is told
    assert ("Scored on fewer images than in the table" in (site / "mnist-3m.html").read_text()) is told


@pytest.mark.parametrize(("trials", "says"), [(1, "1 configuration tried"), (14, "preset mnist-3m, 14 configurations tried")])
def test_a_models_page_says_how_many_configurations_were_tried(tmp_path, make, trials, says):
    preset = {"preset": "mnist-3m"} if trials > 1 else {}
    build(make.write(tmp_path / "results", make.record("a", 0, 5.0, trials=trials, **preset)), tmp_path / "out")
    (page,) = (tmp_path / "out" / "site" / "models").iterdir()
    assert f"<dd>{says}</dd>" in page.read_text()
