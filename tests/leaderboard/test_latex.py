"""LaTeX is read here as TeX would read it: there is no TeX in the tests."""

from __future__ import annotations

import re

import pytest

from genbench.leaderboard.aggregate import read
from genbench.leaderboard.latex import escape, number, to_latex

OURS = {
    "begin", "end", "centering", "footnotesize", "caption", "label", "toprule", "midrule", "bottomrule", "emph", "textbf", "pm", "relax",
    "downarrow", "uparrow", "times", "infty", "ldots", "textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater",
    "textbar", "textasciigrave", "beta",
}  # fmt: skip


def tokens(text):
    """Control words, control symbols and characters of LaTeX without its comments."""
    text = re.sub(r"(?m)(?<!\\)%.*$", "", text)
    return re.findall(r"\\[A-Za-z]+|\\.|.", text, re.DOTALL)


def check(text):
    """Raise where TeX would: unknown commands, unbalanced braces, stray specials, rows of different lengths."""
    depth, math, environments, cells, counts = 0, False, [], 1, []
    assert text.isascii()
    for token in tokens(text):
        if re.fullmatch(r"\\[A-Za-z]+", token):
            assert token[1:] in OURS, token
        depth += (token == "{") - (token == "}")
        assert depth >= 0
        math ^= token == "$"
        assert math or token not in ("^", "_"), token
        assert token not in ("#", "~"), token
        cells += token == "&"
        if token == r"\\":
            counts.append(cells)
            cells = 1
    assert depth == 0
    assert not math
    assert len(set(counts)) == 1, counts
    for kind, name in re.findall(r"\\(begin|end)\{([^}]*)\}", text):
        if kind == "begin":
            environments.append(name)
        else:
            assert environments.pop() == name
    assert not environments
    (alignment,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert len(alignment) == counts[0]


def latex_of(tmp_path, make, *records):
    return to_latex(next(iter(read(make.write(tmp_path, *records)).by_track.values())))


def test_a_full_table_is_well_formed_and_says_what_it_must(tmp_path, make):
    text = latex_of(tmp_path, make, *make.full())
    check(text)
    assert r"\label{tab:genbench-mnist-3m}" in text
    (best,) = [line for line in text.splitlines() if "dcgan" in line]
    assert r"(1) [1] & dcgan & 3/5 & a & 96.18 & \textbf{96} $\pm$ 11 &" in best
    assert r"\emph{noise}" in text
    assert "real data" in text
    assert r"FID $\downarrow$" in text
    assert "sn-gan (1 done, 1 diverged, 1 oom)" in text
    caption = re.search(r"\\caption\{(.*)\}\n", text)[1]
    assert "features of mnist-cnn" in caption
    assert r"95 \% t interval" in caption
    assert "Games--Howell" in caption


HOSTILE = [
    r"\input{/etc/passwd}", "$x$", "a & b", "100 % off", "a_b^c", "~root", "\u202eevil", "two\nlines", "{", "}}", "#1", "[x]", "*",
    "日本語", "β-vae", "naïve é", "a--b", "<script>", "|", '"quoted"', "`tick`", r"\\", r"\end{tabular}",
]  # fmt: skip


def test_hostile_names_are_typeset_as_they_are(tmp_path, make):
    track = make.track(description=r"50 % of \today {", dataset="x_y")
    records = [make.record(name, seed, 5.0 + n, the_track=track) for n, name in enumerate(HOSTILE) for seed in range(2)]
    text = latex_of(tmp_path, make, *records, make.record("[ctrl]", 0, 9.0, family="control", the_track=track))
    check(text)
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert not re.search(r"\\input|\\today", text)


@pytest.mark.parametrize(
    ("plain", "written"),
    [
        ("a_b & 5 %", r"a\_b \& 5 \%"),
        ("β-VAE", r"$\beta$-VAE"),
        ("é Å ñ", r"\'{e} \r{A} \~{n}"),
        ("a--b", "a-{}-b"),
        ("mean ± 1 – x", r"mean $\pm$ 1 -- x"),
        ("日", "[U+65E5]"),
        ("x\u202ey\nz", "xy z"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
    ],
)
def test_text_is_escaped(plain, written):
    assert escape(plain) == written


@pytest.mark.parametrize(
    ("plain", "written"),
    [
        ("-0.21", "$-$0.21"),
        ("-2.10e-04", r"$-2.10 \times 10^{-4}$"),
        ("12\u202f345", r"12\,345"),
        ("–", "--"),
        ("1.23\u202fM", r"1.23\,M"),
        ("7.2\u202fk", r"7.2\,k"),
        ("(1) [1–3]", "(1) [1--3]"),
    ],
)
def test_numbers_are_written_as_tex_wants_them(plain, written):
    assert number(plain) == written


def test_several_tables_have_labels_of_their_own(tmp_path, make):
    text = latex_of(tmp_path, make, make.record("a", 0, 1.0), make.record("b", 0, 2.0, the_track=make.track(budget="5m")))
    assert re.findall(r"\\label\{(.*?)\}", text) == ["tab:genbench-mnist-3m-1", "tab:genbench-mnist-3m-2"]
