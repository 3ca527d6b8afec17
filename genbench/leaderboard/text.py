"""Other people's words made harmless: names and reasons come from plugins and end up in Markdown, CSV, shells and file names."""

from __future__ import annotations

import functools
import re
import shlex
from typing import Any

from genbench.devices import apart
from genbench.harmless import clean
from genbench.records import ModelRef, safe_name
from genbench.track import Track, shipped_tracks, short_hash

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#!&~$^])")
_RESERVED = {
    "readme", "across", "across.schema", "records.schema", "tables.schema", "records", "site",
    "index", "protocol", "assets", "img", "models", "con", "nul", "aux", "prn",
}  # fmt: skip
"""Names of a build's own files and folders, without their endings, and those that some file systems keep for themselves."""


def markdown(text: str, limit: int = 200) -> str:
    """Any text -> Markdown that shows it literally inside a table cell."""
    escaped = _MARKDOWN.sub(r"\\\1", clean(text, limit))
    return escaped.replace("://", ":\\//").replace("www.", "www\\.").replace("@", "&#64;")


def code_block(text: str) -> str:
    """Lines of text -> a Markdown code block whose fence the text can't close."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"


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


def track_file(track: Track) -> str:
    """A track that is not shipped -> the name of its TOML file: by its hash, since tracks of one name may fix different things."""
    return f"{stem(track.name)}-{track.hash}.toml"


def track_toml(track: Track) -> str:
    """A track -> the TOML file that ``--track FILE.toml`` takes; it holds the name, which that of the file is not."""
    values = track.model_dump(mode="json", exclude_defaults=True)
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: Any) -> str:
    """A value of JSON other than null -> TOML on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(inner)}' for key, inner in value.items())}}}"
    return f'"{"".join(map(_toml_character, value))}"' if isinstance(value, str) else repr(value)


def _toml_character(c: str) -> str:
    if c in '"\\':
        return f"\\{c}"
    if c.isprintable():
        return c
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"


def command(model: ModelRef, track: Track, seeds: int, device: str) -> str:
    """A row on a device class (``cpu-N`` or an accelerator's name, ``2x`` before it for two) -> the shell command that runs it again."""
    asked = model.source if ".py:" in model.source else model.name
    devices, one = apart(device)
    cpu = re.fullmatch(r"cpu(?:-(\d+))?", one)
    words = ["genbench", "run", clean(asked, 500), "--track", track.name if is_shipped(track) else track_file(track)]
    words += ["--seeds", str(seeds), "--device", "cpu" if cpu else "cuda"]
    words += ["--devices", str(devices)] if devices > 1 else []
    words += ["--threads", str(devices * int(cpu[1]))] if cpu and cpu[1] else []  # those of all devices together
    for key, value in sorted(model.changed.items()):
        words += ["--hp", clean(f"{model.name}.{key}={value}", 500)]
    return " ".join(map(shlex.quote, words))
