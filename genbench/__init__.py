"""genbench: GANs and VAEs trained under one fixed budget, scored in one way, ranked in tables anyone can verify.

Importing it costs nothing: the public names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genbench.datasets import DatasetSpec as DatasetSpec
    from genbench.datasets import Split as Split
    from genbench.errors import GenbenchError as GenbenchError
    from genbench.extractors import ExtractorSpec as ExtractorSpec
    from genbench.hookspecs import hookimpl as hookimpl
    from genbench.metrics import MetricSpec as MetricSpec
    from genbench.model import Batch as Batch
    from genbench.model import Batches as Batches
    from genbench.model import ImageSpec as ImageSpec
    from genbench.model import Model as Model
    from genbench.model import ModelSpec as ModelSpec
    from genbench.model import Optimizers as Optimizers
    from genbench.model import full_precision as full_precision
    from genbench.records import load as load
    from genbench.track import Track as Track

__version__ = "0.1.0"

_PUBLIC = {
    "Batch": "model", "Batches": "model", "DatasetSpec": "datasets", "ExtractorSpec": "extractors", "GenbenchError": "errors",
    "ImageSpec": "model", "MetricSpec": "metrics", "Model": "model", "ModelSpec": "model", "Optimizers": "model",
    "Split": "datasets", "Track": "track", "full_precision": "model", "hookimpl": "hookspecs", "load": "records",
}  # fmt: skip

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'genbench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"genbench.{_PUBLIC[name]}"), name)
