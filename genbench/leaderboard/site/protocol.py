"""The page on the protocol: what is fixed, what is scored, what every column, badge and sign means."""

from __future__ import annotations

from genbench.harmless import clean
from genbench.leaderboard import words
from genbench.leaderboard.columns import SECTIONS, Column
from genbench.leaderboard.site.frame import render
from genbench.leaderboard.table import FULL_SEEDS, Results, Table
from genbench.leaderboard.text import stem
from genbench.track import PROTOCOL

_TITLES: dict[str, str] = {
    "quality": "Seen by a network", "speed": "Speed and size", **{section.group: section.title for section in SECTIONS},
}  # fmt: skip


def protocol_page(results: Results, built: str) -> bytes:
    """All tables and a word on the build -> an HTML page."""
    columns: dict[str, dict[str, Column]] = {}
    for table in results.tables:
        for col in table.columns:
            columns.setdefault(col.group, {}).setdefault(col.key.partition("@")[0], col)
    order = list(_TITLES)
    groups = sorted(columns, key=lambda group: order.index(group) if group in order else len(order))
    return render(
        "protocol.html.j2",
        title="What the numbers mean · genbench",
        description="What is fixed, what is scored and what every column of the leaderboards means",
        protocol=PROTOCOL,
        full=FULL_SEEDS,
        tiers=words.TIERS,
        measures=[
            {
                "title": _TITLES.get(group) or clean(group, 40).capitalize(),
                "columns": [(col.title, _plain(col)) for col in columns[group].values()],
            }
            for group in groups
        ],
        tracks=[_track(tables[0]) for tables in results.by_track.values()],
        built=built,
    )


def _plain(col: Column) -> str:
    """What a column means, without the sizes of one track."""
    way = {"lower": "Lower is better.", "higher": "Higher is better.", "neither": ""}[col.better]
    return f"{col.explanation} {way}".strip()


def _track(table: Table) -> dict[str, str]:
    track = table.track
    return {
        "name": track.name,
        "file": stem(track.name),
        "dataset": f"{clean(track.dataset, 60)}, {track.size} × {track.size}",
        "budget": track.budget,
        "samples": f"{track.num_samples:,}".replace(",", "\u202f"),
        "extractor": clean(track.extractor, 40),
        "reference": track.reference,
        "hash": words.track_hash(table),
    }

