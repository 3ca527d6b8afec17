"""The plugin contract: every hook, in the order of a run.

Implement with ``@genbench.hookimpl`` and register the module in the entry-point group ``genbench``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from genbench.datasets import DatasetSpec
    from genbench.extractors import ExtractorSpec
    from genbench.metrics import MetricSpec
    from genbench.model import ModelSpec
    from genbench.track import Track

hookspec = pluggy.HookspecMarker("genbench")
hookimpl = pluggy.HookimplMarker("genbench")


@hookspec
def genbench_datasets() -> list[DatasetSpec]:  # type: ignore[empty-body]
    """Datasets that tracks may name.

    :return: one `genbench.DatasetSpec` for each.
    """


@hookspec
def genbench_models() -> list[ModelSpec]:  # type: ignore[empty-body]
    """Models to be trained and ranked.

    :return: one `genbench.ModelSpec` for each.
    """


@hookspec
def genbench_extractors() -> list[ExtractorSpec]:  # type: ignore[empty-body]
    """Networks that turn images into features (and logits) for FID and its kin.

    :return: one `genbench.ExtractorSpec` for each.
    """


@hookspec
def genbench_metrics() -> list[MetricSpec]:  # type: ignore[empty-body]
    """Scores of generated against real images.

    :return: one `genbench.MetricSpec` for each.
    """


@hookspec
def genbench_tracks() -> list[Track]:  # type: ignore[empty-body]
    """Tracks: everything that makes scores comparable, under one name.

    :return: one `genbench.Track` for each.
    """
