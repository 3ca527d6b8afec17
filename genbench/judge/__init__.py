"""Human judgement: a local page where people judge samples of recorded runs, and what follows from their votes. Imports no torch."""

from __future__ import annotations

import importlib.util

from genbench.errors import GenbenchError


def require(*modules: str) -> None:
    """Refuse, before any work, where what the extra ``judge`` brings is not installed. Raises GenbenchError."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise GenbenchError(f"genbench judge needs {', '.join(missing)}, not installed here: pip install 'genbench[judge]'")
