"""The one exception users meet, and the words it is put in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GenbenchError(Exception):
    """A message for the user: printed as one line without a traceback, exit code 2."""


class ChangedError(GenbenchError):
    """A plugin's source is no longer the one that a run is recorded with: no failure of the run's, and it goes on with neither."""


def unknown(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> GenbenchError:
    """The error for a name that is not in a list: says what was asked, the nearest match and what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    there = f" installed: {', '.join(names)}" if names else f" no {kind} is installed"
    joint = "" if guess else ";"
    return GenbenchError(f"unknown {kind} {name!r}{guess}{joint}{there}{f' ({hint})' if hint else ''}")
