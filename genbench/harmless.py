"""Other people's words made harmless, as one line of text and as a cell of a CSV file: names and reasons come from plugins."""

from __future__ import annotations

import unicodedata
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def clean(text: str, limit: int = 200) -> str:
    """Any text -> one line without control or text-direction characters, cut to `limit` characters."""
    shown = " ".join((text if text.isprintable() else "".join(map(_visible, text))).split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    return " " if category in ("Cc", "Zl", "Zp") else "" if category in ("Cf", "Cs", "Co") else character


def csv_cell(value: Any, limit: int = 200) -> Any:
    """A value -> what goes into a CSV cell: text as `clean` leaves it, quoted with an apostrophe where a spreadsheet would run it."""
    if not isinstance(value, str):
        return value
    text = clean(value, limit)
    return f"'{text}" if text.startswith(_FORMULA) else text
