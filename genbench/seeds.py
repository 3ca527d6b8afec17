"""Random streams: one seed of a run, separate streams for init, data, training, sampling and metrics, derived by name."""

from __future__ import annotations

import hashlib


def stream(seed: int, name: str) -> int:
    """(seed, stream's name) -> 63-bit seed; streams of different names are independent."""
    return int.from_bytes(hashlib.sha256(f"genbench/{seed}/{name}".encode()).digest()[:8], "little") >> 1
