"""Metric modules as fixtures: a test that names them takes the real ones here and altered ones in test_sabotage.py."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest

MODULES = {
    "fid": "genbench.metrics.fid",
    "kid": "genbench.metrics.kid",
    "prdc": "genbench.metrics.prdc",
    "pairs": "genbench.metrics.pairs",
    "inception_score": "genbench.metrics.inception_score",
    "statistics": "genbench.metrics.statistics",
    "fidelity": "genbench.metrics.fidelity",
    "memorisation": "genbench.metrics.memorisation",
    "likelihood": "genbench.metrics.likelihood",
    "conditional": "genbench.metrics.conditional",
    "sample": "genbench.sample",
}
"""Fixture -> module."""


def _fixture(name: str) -> object:
    @pytest.fixture(name=name)
    def module() -> ModuleType:
        return import_module(MODULES[name])

    return module


for _name in MODULES:
    globals()[f"_{_name}"] = _fixture(_name)
