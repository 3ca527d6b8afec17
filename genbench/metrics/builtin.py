"""The metrics that come with the package. Listing them imports neither numpy nor scipy: a module is loaded when it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module

from genbench.metrics import Evidence, Measurement, MetricSpec


def builtin_metrics() -> list[MetricSpec]:
    """The measures of quality, and the panels: conditional, likelihood, memorisation."""
    return [
        MetricSpec(
            "fid", _of("fid"), "arXiv:1706.08500", "Fréchet distance of features, at N images and at infinitely many", needs=()
        ),
        MetricSpec("kid", _of("kid"), "arXiv:1801.01401", "kernel distance of features, unbiased", version="2"),
        MetricSpec("is", _of("inception_score"), "arXiv:1606.03498", "Inception Score of the extractor's classifier", needs=()),
        MetricSpec(
            "prdc",
            _of("prdc"),
            "arXiv:1904.06991, arXiv:2002.09797",
            "precision, recall, density and coverage of features",
            version="2",
        ),
        MetricSpec(
            "statistical_fidelity",
            _of("fidelity"),
            "",
            "pixel statistics against real images and noise, and one score of them",
            version="2",
        ),
        MetricSpec(
            "conditional",
            _of("conditional"),
            "arXiv:1802.05637, arXiv:1905.10887",
            "label agreement and FID within classes, of images asked for",
            needs=("real", "labels", "asked"),
            floor="holdout",
        ),
        MetricSpec(
            "likelihood",
            _of("likelihood"),
            "arXiv:1509.00519, doi:10.1109/TIP.2003.819861",
            "bounds of log p of held-out images, their reconstructions and active latents, as the model reports them",
            needs=("model",),
        ),
        MetricSpec(
            "memorisation",
            _of("memorisation"),
            "arXiv:2004.05675, arXiv:2102.08921",
            "copies of training images, and images too near them",
            needs=("real", "train", "holdout"),
            floor="holdout",
        ),
    ]


def _of(module: str) -> Callable[[Evidence], Iterable[Measurement]]:
    """``compute`` of ``genbench.metrics.<module>``."""

    def compute(evidence: Evidence) -> Iterable[Measurement]:
        found: Iterable[Measurement] = import_module(f"genbench.metrics.{module}").compute(evidence)
        return found

    return compute
