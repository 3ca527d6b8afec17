"""Folders outside the project: where data is looked for and what may be cached."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def data_root() -> Path:
    """``GENBENCH_DATA``, else the user's data folder."""
    return Path(os.environ.get("GENBENCH_DATA") or platformdirs.user_data_dir("genbench")).expanduser().resolve()


def cache_folder() -> Path:
    """``GENBENCH_CACHE``, else the user's cache folder. It may not be writable: callers go on without."""
    return Path(os.environ.get("GENBENCH_CACHE") or platformdirs.user_cache_dir("genbench")).expanduser().resolve()
