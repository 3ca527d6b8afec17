"""What tracks say together, as the start page shows it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from genbench.harmless import clean
from genbench.leaderboard import words
from genbench.leaderboard.across import Across
from genbench.leaderboard.text import stem

FIGURES = (
    (
        "critical-difference",
        "Mean ranks",
        "Diagram: mean rank of each model over the tracks, with bars over models that are not distinguishable",
        "Models under one bar are not distinguishable (Nemenyi, 5 %); the length above the axis is what mean ranks must differ by.",
    ),
    (
        "profile",
        "Time to target",
        "Step chart: share of tracks whose target a model reaches, against multiples of the fastest model's time",
        "Left end: how often a model is the fastest to the target. Right end: how often it gets there at all.",
    ),
)
"""Figures over tracks: name of the file, title, alternative text, caption."""


def over_tracks(found: Sequence[Across], figures: Collection[str]) -> list[dict[str, Any]]:
    """Results over tracks and the paths of the figures drawn -> what the template wants."""
    return [_part(position, across, figures) for position, across in enumerate(found)]


def _part(position: int, across: Across, figures: Collection[str]) -> dict[str, Any]:
    plots = []
    for kind, title, alt, caption in FIGURES:
        light, dark = (f"img/across-{position}-{kind}-{theme}.svg" for theme in ("light", "dark"))
        if light in figures:
            plots.append({"title": title, "light": light, "dark": dark, "alt": alt, "caption": caption})
    text, *notes = words.over_tracks(across) or [""]
    return {
        "title": f"Over tracks, on {clean(across.device_class, 60)}",
        "text": text,
        "entrants": [
            {
                "label": entrant.label,
                "mean_rank": f"{entrant.mean_rank:.2f}",
                "ranks": [words.rank_and_time(across, entrant, at) for at in range(len(across.tracks))],
            }
            for entrant in across.entrants
        ],
        "tracks": [(clean(name, 60), stem(name)) for name in across.tracks],
        "plots": plots,
        "notes": notes,
    }
