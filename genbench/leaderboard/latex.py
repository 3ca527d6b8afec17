"""Tables as LaTeX with booktabs, for papers: plain ASCII that compiles in any engine and encoding, whatever models are called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from genbench.harmless import clean
from genbench.leaderboard import uncertainty, words
from genbench.leaderboard.columns import Better, Column, group_thousands, write
from genbench.leaderboard.table import Row, Table, full_seeds
from genbench.leaderboard.text import stem

_GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi", "pi", "rho", "sigma",
    "tau", "upsilon", "phi", "chi", "psi", "omega",
)  # fmt: skip
_WRITTEN = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': "''", "`": r"\textasciigrave{}", "∞": r"$\infty$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "²": "$^2$", "≤": r"$\le$",
    "≥": r"$\ge$", "→": r"$\rightarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "—": "---", "…": r"\ldots{}", "−": "$-$",
    "“": "``", "”": "''", "‘": "`", "’": "'", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}",
    "Ł": r"\L{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ı": r"\i{}",
    **{letter: f"$\\{name}$" for letter, name in zip("αβγδεζηθικλμνξπρστυφχψω", _GREEK, strict=True)},
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".", "\u0308": '"', "\u030a": "r",
    "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
_ARROWS: dict[Better, str] = {"lower": r" $\downarrow$", "higher": r" $\uparrow$", "neither": ""}


def to_latex(tables: Sequence[Table]) -> str:
    """The tables of a track -> a file to \\input: a floating table for each, with caption and label."""
    file = stem(tables[0].track.name)
    parts = [
        "% Made by genbench from the records of runs. Needs \\usepackage{booktabs}. A table* spans both columns where there are two;\n"
        "% replace it by table where that is not wanted."
    ]
    for position, table in enumerate(tables):
        parts.append(_table(table, f"tab:genbench-{file}" + (f"-{position + 1}" if len(tables) > 1 else "")))
    return "\n\n".join(parts) + "\n"


def escape(text: str, limit: int = 200) -> str:
    """Any text -> LaTeX that typesets it literally; a character without a name in plain LaTeX becomes ``[U+65E5]``."""
    # what TeX would join to a dash or a quotation mark is kept apart
    apart = re.sub(r"-(?=-)|,(?=,)|'(?=')", "\\g<0>\0", clean(text, limit))
    return "".join("{}" if c == "\0" else _character(c) for c in apart)


def _character(c: str) -> str:
    if c in _WRITTEN:
        return _WRITTEN[c]
    if c.isascii():
        return c
    parts = unicodedata.normalize("NFD", c)
    if len(parts) == 2 and parts[1] in _ACCENTS and parts[0].isascii():
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"[U+{ord(c):04X}]"


def number(text: str) -> str:
    """A number as the tables write it -> LaTeX: minus signs, powers of ten, thin spaces."""
    match = re.fullmatch(r"(-?[\d.]+)e([+-]\d+)", text)
    if match:
        return f"${match[1]} \\times 10^{{{int(match[2])}}}$"
    shown = text.replace("\u202f", r"\,").replace("–", "--")
    return f"$-${shown[1:]}" if re.match(r"-\d", shown) else shown


def _table(table: Table, label: str) -> str:
    columns, groups = table.vital_columns, words.shows_groups(table)
    median = table.rank_column if words.shows_median(table) else None
    head = [r"\#", "model", "seeds", *(["group"] if groups else [])]
    head += [f"median {escape(median.title)}{_ARROWS[median.better]}"] if median else []
    head += [f"{escape(col.title, 60)}{_ARROWS[col.better]}" for col in columns]
    lines = [_row(row, columns, median, groups) for row in table.rows]
    apart = [_row(row, columns, median, groups) for row in table.controls]
    if any(col.key in table.floor for col in columns):
        values = [number(write(table.floor[col.key], col.form)[0]) if col.key in table.floor else "" for col in columns]
        apart.append(["", r"\emph{real data}", *[""] * (1 + groups + (median is not None)), *values])
    body = [*map(_line, lines), *([r"\midrule", *map(_line, apart)] if apart else [])]
    alignment = f"rll{'l' if groups else ''}{'r' * (len(columns) + (median is not None))}"
    return "\n".join([
        r"\begin{table*}", r"\centering", r"\footnotesize", rf"\caption{{{_caption(table)}}}", rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", _line(head), r"\midrule",
        *body, r"\bottomrule", r"\end{tabular}", r"\end{table*}",
    ])  # fmt: skip


def _line(cells: Sequence[str]) -> str:
    # \relax: a line that starts with [ or * would be taken for an argument of the \\ before it
    start = r"\relax " if cells[0].startswith(("[", "*")) else ""
    return start + " & ".join(cells) + r" \\"


def _row(row: Row, columns: Sequence[Column], median: Column | None, groups: bool) -> list[str]:
    name = escape(row.label)
    name = rf"\emph{{{name}}}" if row.control else name
    if row.done < len(row.runs):
        name += f" ({escape(row.status)})"
    cells = [number(words.standing(row)), name, row.seeds, *([escape(row.group, 40)] if groups else [])]
    if median:
        cell = row.cells.get(median.key)
        cells.append("--" if cell is None or cell.median is None else number(write(cell.median, median.form)[0]))
    return cells + [_cell(row, col) for col in columns]


def _cell(row: Row, col: Column) -> str:
    cell = row.cells.get(col.key)
    mean, half = (number(text) for text in words.number(cell, col))
    shown = rf"\textbf{{{mean}}}" if cell and cell.best else mean
    return f"{shown} $\\pm$ {half}" if half else shown


def _caption(table: Table) -> str:
    track, preliminary = table.track, any(row.preliminary for row in table.rows)
    split = words.REFERENCES[track.reference]
    told = [
        f"{track.name}{f' ({track.description})' if track.description else ''}: {track.budget} of training on {table.device_class}, "
        f"{group_thousands(track.num_samples)} samples against {split}, features of {track.extractor}, "
        f"track hash {words.track_hash(table)}.",
        "Mean ± half-width of the 95 % t interval over finished seeds; best in bold; ranked by the median, a failed seed as worst.",
        uncertainty.explanation(table.rows, table.rank_column),
        words.verified(table.rows),
        f"Ranks in parentheses are preliminary: fewer than {full_seeds(track.seeds)} seeds." if preliminary else "",
    ]
    return escape(" ".join(filter(None, told)), 2000)
