"""The figures of a site: drawn once on light paper and coloured again for dark pages, since drawing is what a build's time goes into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields

from genbench.leaderboard import diagrams, figures
from genbench.leaderboard.across import Across
from genbench.leaderboard.figures import THEMES, Theme
from genbench.leaderboard.table import Table
from genbench.leaderboard.text import stem

_COLOUR = re.compile(rb"#[0-9a-f]{6}\b")


def of_track(tables: Sequence[Table]) -> dict[str, bytes]:
    """The tables of a track -> path inside the site -> SVG, as ``img/<track>-<table>-<kind>-<theme>.svg``."""
    drawn: dict[str, bytes] = {}
    for position, table in enumerate(tables):
        for kind, draw in figures.DRAWN.items():
            drawn |= in_both_themes(f"img/{stem(table.track.name)}-{position}-{kind}", draw(table, THEMES[0]))
    return drawn


def over_tracks(found: Sequence[Across]) -> dict[str, bytes]:
    """What tracks say together -> path inside the site -> SVG, as ``img/across-<position>-<kind>-<theme>.svg``."""
    drawn: dict[str, bytes] = {}
    for position, across in enumerate(found):
        for kind, draw in diagrams.ACROSS.items():
            drawn |= in_both_themes(f"img/across-{position}-{kind}", draw(across, THEMES[0]))
    return drawn


def in_both_themes(path: str, light: bytes | None) -> dict[str, bytes]:
    """A figure drawn in the light theme, under a path without its ending -> it and its dark twin; nothing where nothing was drawn."""
    if light is None:
        return {}
    return {f"{path}-{THEMES[0].name}.svg": light, f"{path}-{THEMES[1].name}.svg": recolour(light, *THEMES)}


def recolour(drawn: bytes, old: Theme, new: Theme) -> bytes:
    """An SVG in one theme's colours -> the same in another's."""
    swap = dict(zip(_colours(old), _colours(new), strict=True))
    return _COLOUR.sub(lambda found: swap.get(found[0], found[0]), drawn)


def _colours(theme: Theme) -> list[bytes]:
    """All colours of a theme, in an order that is the same for every theme."""
    found: list[str] = []
    for field in fields(theme):
        value = getattr(theme, field.name)
        found += [colour for colour in (value if isinstance(value, tuple) else [value]) if colour.startswith("#")]
    return [colour.encode() for colour in found]
