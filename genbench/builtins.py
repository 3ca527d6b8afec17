"""What ships with genbench itself, registered through the same hooks as everyone else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from genbench.datasets import DatasetSpec
    from genbench.extractors import ExtractorSpec
    from genbench.metrics import MetricSpec
    from genbench.track import Track

# Imports stand inside the hooks: a listing of tracks must not pay for the libraries of metrics.


@hookimpl
def genbench_datasets() -> list[DatasetSpec]:
    """Bundled digits and torchvision's sets."""
    from genbench.datasets.builtin import builtin_datasets

    return builtin_datasets()


@hookimpl
def genbench_extractors() -> list[ExtractorSpec]:
    """The in-domain CNNs and torch-fidelity's networks."""
    from genbench.extractors.builtin import builtin_extractors

    return builtin_extractors()


@hookimpl
def genbench_metrics() -> list[MetricSpec]:
    """FID and its kin, statistical fidelity."""
    from genbench.metrics.builtin import builtin_metrics

    return builtin_metrics()


@hookimpl
def genbench_tracks() -> list[Track]:
    """The tracks in ``genbench/tracks``."""
    from genbench.track import shipped_tracks

    return shipped_tracks()
