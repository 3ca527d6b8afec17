from __future__ import annotations

import io

import pytest
from rich.console import Console

from genbench.errors import GenbenchError
from genbench.leaderboard import terminal


def printed(renderable, width=100):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def test_the_table_fits_a_terminal_and_says_what_matters(tmp_path, make):
    text = printed(terminal(make.write(tmp_path, *make.full())))
    assert max(map(len, text.splitlines())) <= 100
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "(1) 1 dcgan gan 3/5 a 96 ± 11 0.794 0.564 0.741 1 649" in lines
    assert "– sn-gan gan 1/5 120.0 – – – 820" in lines
    position = {name: next(i for i, line in enumerate(lines) if name in line) for name in ("dcgan", "sn-gan", "real-holdout", "real data")}
    assert position["dcgan"] < position["sn-gan"] < position["real-holdout"] < position["real data"]


def test_a_failed_row_says_why_in_place_of_its_score(tmp_path, make):
    text = printed(terminal(make.write(tmp_path, make.record("a", 0, status="diverged", reason="nan"), make.record("b", 0, 5.0))))
    assert "1 diverged" in text


def test_names_are_no_markup(tmp_path, make):
    assert "[red]x[/]" in printed(terminal(make.write(tmp_path, make.record("[red]x[/]", 0, 5.0))))


def test_one_track_of_several(tmp_path, make):
    results = make.write(tmp_path, make.record("a", 0, 5.0), make.record("b", 0, 5.0, the_track=make.track(name="mnist-60s", budget="60s")))
    assert "mnist-60s" not in printed(terminal(results, "mnist-3m"))
    with pytest.raises(GenbenchError, match="there are: mnist-60s, mnist-3m"):
        terminal(results, "cifar")
