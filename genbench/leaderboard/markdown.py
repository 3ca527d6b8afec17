"""Tables as Markdown, for people who read on a forge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genbench.harmless import clean
from genbench.leaderboard import words
from genbench.leaderboard.across import Across
from genbench.leaderboard.columns import ARROWS, Column, write
from genbench.leaderboard.table import Results, Row, Table
from genbench.leaderboard.text import code_block, is_shipped, markdown, stem, track_file


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Header and rows of escaped text -> a Markdown table; the first `left` columns align left, the others right."""
    rule = [":---" if position < left else "---:" for position in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def ranking(
    table: Table, columns: Sequence[Column], *, rows: Sequence[Row] | None = None, floor: str = "train, equal N", notes: bool = True
) -> str:
    """A table's rows (some, or all) over `columns` -> Markdown; controls and real data below the models, in italics."""
    footnotes: list[str] = []
    ranked = table.rank_column
    median = ranked if notes and words.shows_median(table) else None
    groups = notes and words.shows_groups(table)
    head = ["#", "model", "family", "seeds", *(["tier"] if notes else []), *(["group"] if groups else [])]
    head += [f"median {markdown(median.title)} {ARROWS[median.better]}"] if median else []
    head += [markdown(col.heading) for col in columns]
    lines = []
    for row in table.all_rows if rows is None else rows:
        name = f"*{markdown(row.label)}*" if row.control else markdown(row.label)
        line = [words.standing(row) if notes else words.rank(row), name, markdown(row.kind), row.seeds, *([row.tier] if notes else [])]
        if row.done < len(row.runs):
            line[1] += f" ({row.status})"
        line += [clean(row.group, 40)] if groups else []
        if median:
            cell = row.cells.get(median.key)
            line.append("–" if cell is None or cell.median is None else write(cell.median, median.form)[0])
        lines.append(line + [_cell(table, row, col, footnotes) for col in columns])
    if any(col.key in table.floor for col in columns):
        values = [write(table.floor[col.key], col.form)[0] if col.key in table.floor else "" for col in columns]
        lines.append(["", f"*real data ({floor})*", "floor", *[""] * (1 + notes + groups + (median is not None)), *values])
    told = [grid(head, lines, left=3)]
    if notes:
        told += [f"<sup>{words.sign(position)}</sup> {markdown(text, 400)}" for position, text in enumerate(footnotes)]
        told += [markdown(note, 600) for note in table.notes]
    return "\n\n".join(told)


def _cell(table: Table, row: Row, col: Column, footnotes: list[str]) -> str:
    mean, half = words.number(row.cells.get(col.key), col)
    cell = row.cells.get(col.key)
    text = f"**{mean}**" if cell and cell.best else mean
    mark = words.marks(table, row, col, footnotes)
    return text + (f" ± {half}" if half else "") + (f"<sup>{mark}</sup>" if mark else "")


def track_page(tables: Sequence[Table], figures: Mapping[str, str], grids: Mapping[str, str]) -> str:
    """The tables of a track -> its page. `figures` maps ``<table>-curves`` and ``<table>-pareto``, `grids` a table's row to image paths."""
    track = tables[0].track
    parts = [f"# {markdown(track.name)}", markdown(track.description, 400)]
    parts.append(grid(["", ""], [[word, markdown(value, 300)] for word, value in words.facts(tables)], left=2))
    for position, table in enumerate(tables):
        if len(tables) > 1:
            parts.append(f"## {markdown(words.which(table))}")
        parts.append(markdown(words.headline(table), 400))
        parts.append(ranking(table, table.main_columns))
        for section, columns, rows in table.sections():
            parts += [f"<details><summary>{section.title}</summary>", markdown(section.caption, 300)]
            parts += [ranking(table, columns, rows=rows, floor=section.floor, notes=False), "</details>"]
        for kind, alt in _PLOTS:
            if path := figures.get(f"{position}-{kind}"):
                parts.append(f"![{alt}]({path})")
        shown = [(row, path) for row in table.all_rows if (path := grids.get(f"{position}-{row.id}"))]
        if shown:
            parts.append("### Samples")
            parts.append("Drawn after training by the run with the median score; not selected.")
            for start in range(0, len(shown), 4):
                some = shown[start : start + 4]
                images = [f'<img src="{path}" width="220" alt="samples of {_alt(row.label)}">' for row, path in some]
                parts.append(grid([markdown(row.label) for row, _ in some], [images], left=4))
        failed = words.failures(table.all_rows)
        if failed:
            parts.append("### Failed runs")
            lines = [[markdown(f["label"]), str(f["seed"]), f["status"], markdown(f["reason"], 300)] for f in failed]
            parts.append(grid(["model", "seed", "status", "reason"], lines, left=4))
        flagged = [f"- {markdown(row.label)}: {markdown('; '.join(row.flags), 400)}" for row in table.all_rows if row.flags]
        if flagged:
            parts += ["### Remarks", "\n".join(flagged)]
        parts.append("### Reproduce")
        parts.append(code_block("\n".join(words.recipe(row, table.track) for row in table.all_rows)))
        if not is_shipped(table.track):
            file = track_file(table.track)
            parts.append(f"The track is not one that ships with genbench: its file is [{file}]({file}).")
    legend = [("tier", "how far the row was verified: " + "; ".join(f"{name} {text}" for name, text in words.TIERS)), *words.legend(tables)]
    parts += ["### Legend", "\n".join(f"- **{markdown(name)}**: {markdown(text, 500)}" for name, text in legend)]
    parts.append(f"Mean ± half-width of the 95 % t interval; best in bold. [CSV]({stem(track.name)}.csv) · [JSON]({stem(track.name)}.json)")
    return "\n\n".join(part for part in parts if part) + "\n"


def index(results: Results, figures: Mapping[str, str] | None = None) -> str:
    """All tables -> README.md: a short table for each track, then what they say together. `figures`: paths by those inside the site."""
    parts = [
        "# Leaderboards",
        "Every model trains under one fixed budget and is scored in one way. Generated from the records by `genbench leaderboard build`.",
    ]
    parts.append("[The same as web pages, with samples and curves](site/index.html)")
    for name, tables in results.by_track.items():
        parts += [f"## [{markdown(name)}]({stem(name)}.md)", markdown(tables[0].track.description, 400)]
        for table in tables:
            if len(tables) > 1:
                parts.append(f"{markdown(words.which(table))}:")
            parts.append(ranking(table, table.vital_columns))
    for position, across in enumerate(results.across):
        parts += [f"## Over tracks, on {markdown(across.device_class)}", over_tracks(across)]
        parts += [f"![{alt}]({path})" for kind, alt in _ACROSS if (path := (figures or {}).get(f"img/across-{position}-{kind}-light.svg"))]
    if results.damaged:
        parts += [
            "## Records that could not be read",
            "\n".join(f"- {markdown(d.path)}: {markdown(d.reason, 300)}" for d in results.damaged),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def over_tracks(across: Across) -> str:
    """Mean ranks, ranks and times to target by track, and what the tests say, as Markdown."""
    targets = [f" (s to {target:g})" if target else "" for target in across.targets]
    head = ["model", "mean rank", *(f"{markdown(name)}{target}" for name, target in zip(across.tracks, targets, strict=True))]
    lines = []
    for entrant in across.entrants:
        places = [words.rank_and_time(across, entrant, at) for at in range(len(across.tracks))]
        lines.append([markdown(entrant.label), f"{entrant.mean_rank:.2f}", *places])
    return "\n\n".join([grid(head, lines), *(markdown(text, 600) for text in words.over_tracks(across))])


_PLOTS = (
    ("curves", "score of every model against the training budget"),
    ("pareto", "FID against training throughput, with the front"),
    ("pareto-sampling", "FID against sampling throughput, with the front"),
    ("pareto-memory", "FID against peak memory of training, with the front"),
)
_ACROSS = (
    ("critical-difference", "mean ranks over tracks, with bars over models that are not distinguishable"),
    ("profile", "share of tracks whose target a model reaches within a multiple of the fastest's time"),
)


def _alt(text: str) -> str:
    return "".join(c if c.isalnum() or c in " -_.=" else " " for c in text)
