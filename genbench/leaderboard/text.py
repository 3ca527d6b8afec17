"""Other people's words made harmless: names and reasons come from plugins and end up in Markdown, CSV, shells and file names."""

from __future__ import annotations

import functools
import re
import shlex
import unicodedata
from typing import Any

from genbench.records import ModelRef, safe_name
from genbench.track import Track, shipped_tracks, short_hash

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#!&~$^])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_RESERVED = {"readme", "index", "site", "across", "records.schema", "con", "nul", "aux", "prn"}


def clean(text: str, limit: int = 200) -> str:
    """Any text -> one line without control or text-direction characters, cut to `limit` characters."""
    shown = " ".join((text if text.isprintable() else "".join(map(_harmless, text))).split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _harmless(character: str) -> str:
    category = unicodedata.category(character)
    return " " if category in ("Cc", "Zl", "Zp") else "" if category in ("Cf", "Cs", "Co") else character


def markdown(text: str, limit: int = 200) -> str:
    """Any text -> Markdown that shows it literally inside a table cell."""
    escaped = _MARKDOWN.sub(r"\\\1", clean(text, limit))
    return escaped.replace("://", ":\\//").replace("www.", "www\\.").replace("@", "&#64;")


def code_block(text: str) -> str:
    """Lines of text -> a Markdown code block whose fence the text can't close."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"


def csv_cell(value: Any) -> Any:
    """A value -> what goes into a CSV cell; text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def stem(track: str) -> str:
    """A track's name -> the name of its files without extension."""
    if len(track) <= 60 and track not in _RESERVED and not track.startswith("track-") and safe_name(track) == track:
        return track
    return f"track-{safe_name(track)[:40]}-{short_hash(track)}"


def is_shipped(track: Track) -> bool:
    """Whether the package ships this very track, so that its name is enough to run it."""
    return (track.name, track.hash) in _shipped()


@functools.cache
def _shipped() -> frozenset[tuple[str, str]]:
    return frozenset((track.name, track.hash) for track in shipped_tracks())


def track_toml(track: Track) -> str:
    """A track -> the TOML file that ``--track FILE.toml`` takes."""
    lines = []
    for key, value in track.model_dump(mode="json", exclude_defaults=True, exclude={"name"}).items():
        lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else "\\" + c if c in '"\\' else c for c in value)
        return f'"{escaped}"'
    return repr(value)


def command(model: ModelRef, track: Track, seeds: int, device: str) -> str:
    """A row on a device class (``cpu-N`` or an accelerator's name) -> the shell command that runs it again."""
    asked = model.source if ".py:" in model.source else model.name
    cpu = re.fullmatch(r"cpu(?:-(\d+))?", device)
    words = ["genbench", "run", clean(asked, 500), "--track", track.name if is_shipped(track) else f"{stem(track.name)}.toml"]
    words += ["--seeds", str(seeds), "--device", "cpu" if cpu else "cuda", *(["--threads", cpu[1]] if cpu and cpu[1] else [])]
    for key, value in sorted(model.changed.items()):
        words += ["--hp", clean(f"{model.name}.{key}={value}", 500)]
    return " ".join(map(shlex.quote, words))
