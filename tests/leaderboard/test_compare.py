from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
import scipy.stats
from rich.console import Console

from genbench.errors import GenbenchError
from genbench.leaderboard import console
from genbench.leaderboard.compare import check_figure, compare, find_row, to_json, write_figure

A = [10.0, 11.0, 9.5, 10.4, 10.1]
B = [14.0, 12.5, 15.0, 13.1]


@pytest.fixture
def results(tmp_path, make):
    records = [make.record("a", seed, fid, curve=make.falling(fid)) for seed, fid in enumerate(A)]
    records += [make.record("b", seed, fid, curve=make.falling(fid), family="vae") for seed, fid in enumerate(B)]
    records += [make.record("b", 4, status="diverged", reason="nan", family="vae")]
    records += [make.record("c", seed, 30.0 + seed, changed={"width": 8}) for seed in range(3)]
    records += [make.record("c", 0, 40.0), make.record("noise", 0, 6000.0, family="control")]
    return make.write(tmp_path / "results", *records)


def printed(renderable):
    shown = Console(width=100, file=io.StringIO(), color_system=None)
    shown.print(renderable)
    return shown.file.getvalue()


def test_two_rows_are_welchs_test_on_logarithms(results):
    found = compare(results, ["a", "b"])
    (pair,) = found.pairs
    oracle = scipy.stats.ttest_ind([math.log(x) for x in A], [math.log(x) for x in B], equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert pair.seeds == (5, 4)
    assert pair.difference.p == pytest.approx(oracle.pvalue, abs=2e-6)
    assert pair.estimate == pytest.approx(
        (math.exp(math.fsum(map(math.log, A)) / 5 - math.fsum(map(math.log, B)) / 4), math.exp(interval.low), math.exp(interval.high)),
        rel=1e-5,
    )
    assert pair.permutation.p == pair.permutation.smallest == pytest.approx(1 / 126)
    told = " ".join(printed(console.compared(found)).split())
    value, low, high = (f"{number:.3g}" for number in pair.estimate)
    assert f"FID of a is {value} times that of b (95 % interval {low} to {high}), p {'<' if oracle.pvalue < 0.001 else '='} 0.0" in told
    assert "distinguishable at 5 %." in told
    assert "Failed seeds are left out of differences, though they count in ranks: b 4/5." in told
    assert "10.00, 11.00, 9.500, 10.40, 10.10" in told
    assert "the least that 5 against 4 seeds can give is 0.0079" in told


def test_swapped_names_turn_the_ratio_over(results):
    (one,), (other,) = (compare(results, names).pairs for names in (["a", "b"], ["b", "a"]))
    assert one.estimate[0] * other.estimate[0] == pytest.approx(1)
    assert one.estimate[1] * other.estimate[2] == pytest.approx(1)
    assert one.difference.g == pytest.approx(-other.difference.g)


def test_three_rows_are_compared_together(results):
    found = compare(results, ["a", "b", "c width=8"])
    samples = [[math.log(x) for x in some] for some in (A, B, [30.0, 31.0, 32.0])]
    oracle = scipy.stats.tukey_hsd(*samples, equal_var=False).pvalue
    assert [pair.difference.p for pair in found.pairs] == pytest.approx([oracle[0, 1], oracle[0, 2], oracle[1, 2]], abs=3e-6)
    assert all(pair.permutation is None for pair in found.pairs)
    assert any("Games–Howell" in note for note in found.notes)


def test_one_seed_says_nothing_and_says_so(results, tmp_path):
    found = compare(results, ["a", "noise"])
    (pair,) = found.pairs
    assert (pair.difference, pair.estimate, pair.permutation) == (None, None, None)
    told = printed(console.compared(found))
    assert "nothing can be said" in told
    assert "Fewer than two finished seeds with a score: noise." in told
    content = to_json(found)
    assert content["pairs"][0]["p"] is None
    assert content["pairs"][0]["distinguishable"] is None
    write_figure(found, tmp_path / "x.svg")  # there is a curve to draw


def test_other_scores_and_their_scale(tmp_path, make):
    kids = {"a": [-0.001, 0.001, 0.002], "b": [0.5, 0.6, 0.55]}
    records = [
        make.record(name, seed, 5.0, scores=[make.score("kid", value)]) for name, some in kids.items() for seed, value in enumerate(some)
    ]
    results = make.write(tmp_path, *records)
    found = compare(results, ["a", "b"], score="kid")
    assert found.scale == "raw"
    assert found.pairs[0].estimate[0] == pytest.approx(0.002 / 3 - 0.55)
    assert any("not above 0" in note for note in found.notes)
    assert "less that of b is" in " ".join(printed(console.compared(found)).split())
    with pytest.raises(GenbenchError, match="unknown score 'kit'; did you mean 'kid'"):
        compare(results, ["a", "b"], score="kit")


def test_rows_are_found_by_label_name_and_id(results):
    table = compare(results, ["a", "b"]).table
    assert find_row(table, "c width=8").model.changed == {"width": 8}
    assert find_row(table, find_row(table, "b").id).label == "b"
    with pytest.raises(GenbenchError, match=r"2 rows are called 'c'.*'c width=8'"):
        find_row(table, "c")
    with pytest.raises(GenbenchError, match=r"unknown row 'nois'; did you mean 'noise'.*labels: a, b"):
        find_row(table, "nois")


def test_rows_whose_names_look_the_same_are_compared_all_the_same(tmp_path, make):
    scores = {"dcgan": A, "dcgan\u200b": B}
    records = [make.record(name, seed, fid) for name, some in scores.items() for seed, fid in enumerate(some)]
    found = compare(make.write(tmp_path, *records), list(scores))
    (pair,) = found.pairs
    assert pair.seeds == (5, 4)
    assert pair.a != pair.b
    assert pair.difference is not None
    assert [find_row(found.table, label).model.name for label in (pair.a, pair.b)] == list(scores)


def test_a_hash_that_nobody_checked_does_nothing_to_a_terminal(tmp_path, make):
    records = []
    for track_hash in ("x", "y\x1b[2J"):
        one = make.record("a", 0, 1.0)
        records.append(one.model_copy(update={"spec": one.spec.model_copy(update={"track_hash": track_hash})}))
    with pytest.raises(GenbenchError) as refused:
        compare(make.write(tmp_path, *records), ["a", "a"], track="mnist-3m")
    assert "--track y [2J" in str(refused.value)


def test_what_is_not_comparable_is_refused(results, tmp_path, make):
    with pytest.raises(GenbenchError, match="two rows or more"):
        compare(results, ["a"])
    with pytest.raises(GenbenchError, match="same row more than once"):
        compare(results, ["a", "a"])
    records = [make.record("a", s, 1.0 + s) for s in range(2)] + [make.record("b", s, 2.0 + s, protocol="bbbb2222") for s in range(2)]
    with pytest.raises(GenbenchError, match=r"several protocols .aaaa1111, bbbb2222."):
        compare(make.write(tmp_path / "mixed", *records), ["a", "b"])


def test_the_track_is_asked_for_where_several_hold_the_names(tmp_path, make):
    other = make.track(name="mnist-60s", budget="60s")
    records = [make.record(name, 0, 1.0, the_track=track) for name in "ab" for track in (make.track(), other)]
    records += [make.record("only", 0, 1.0, the_track=other)]
    results = make.write(tmp_path, *records)
    with pytest.raises(GenbenchError, match="choose one: --track mnist-60s --device 'cpu-2'; --track mnist-3m"):
        compare(results, ["a", "b"])
    assert compare(results, ["a", "b"], track="mnist-3m").table.track.name == "mnist-3m"
    assert compare(results, ["a", "b"], track=other.hash).table.track.name == "mnist-60s"
    assert compare(results, ["a", "only"]).table.track.name == "mnist-60s"  # only one track has both
    with pytest.raises(GenbenchError, match="unknown track 'mnist-4m'"):
        compare(results, ["a", "b"], track="mnist-4m")
    with pytest.raises(GenbenchError, match="no record on device 'H100'; there are: cpu-2"):
        compare(results, ["a", "b"], device="H100")


@pytest.mark.parametrize(("form", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_figures_are_of_the_form_asked_for_and_repeatable(results, tmp_path, form, start):
    found = compare(results, ["a", "b", "c width=8"])
    one, two = tmp_path / f"one.{form}", tmp_path / f"two.{form}"
    write_figure(found, one)
    write_figure(found, two)
    assert one.read_bytes().startswith(start)
    assert one.read_bytes() == two.read_bytes()
    if form == "svg":
        assert ET.fromstring(one.read_bytes()).tag.endswith("svg")


def test_a_figure_that_cannot_be_is_refused_before_any_work(results, tmp_path, make):
    with pytest.raises(GenbenchError, match=r"written as .svg, .png or .pdf"):
        check_figure(tmp_path / "x.gif")
    with pytest.raises(GenbenchError, match="does not exist"):
        check_figure(tmp_path / "absent" / "x.svg")
    bare = make.write(tmp_path / "bare", make.record("a", 0, 1.0), make.record("b", 0, 2.0))
    with pytest.raises(GenbenchError, match="nothing to draw"):
        write_figure(compare(bare, ["a", "b"]), tmp_path / "x.svg")


def test_the_command(results, tmp_path):
    def genbench(*arguments):
        command = [sys.executable, "-m", "genbench", "compare", *arguments, "--results", str(results)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ), timeout=120)

    done = genbench("a", "b", "--json", "--figure", "x.pdf")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["pairs"][0]["distinguishable"] is True
    assert content["rows"][1]["by_seed"]["4"] is None
    assert content["rows"][0]["curve"][-1]["share"] == 1.0
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")
    plain = genbench("a", "b", "--track", "mnist-3m")
    assert "distinguishable" in plain.stdout
    wrong = genbench("a", "nobody")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "unknown row 'nobody'; labels: a, b, c" in wrong.stderr
