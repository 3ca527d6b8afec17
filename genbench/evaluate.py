"""Scores of images that somebody already has, against a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from genbench.catalogue import Catalogue, load_catalogue
from genbench.datasets.prepare import prepare, resolve
from genbench.errors import GenbenchError, unknown
from genbench.images import read_images
from genbench.places import cache_folder, data_root
from genbench.records import Score, SplitName
from genbench.reference import split_of
from genbench.score import Scorer

SPLITS: tuple[SplitName, ...] = ("test", "train", "holdout")
FALLBACK = "inception-v3-compat"


def evaluate(
    samples: Path,
    reference: str,
    *,
    extractor: str = "",
    metrics: list[str] | None = None,
    allow_lossy: bool = False,
    seed: int = 0,
    device: str = "auto",
    weights: Path | None = None,
) -> list[Score]:
    """Images in a folder, zip, npz or npy against ``DATASET[:SPLIT]`` -> scores. Raises GenbenchError before any compute.

    The extractor is the dataset's own in-domain classifier where there is one, else Inception: it is named in every score.
    """
    catalogue = load_catalogue(kinds=("dataset", "extractor", "metric"))
    name, split = _split(reference)
    wanted = [catalogue.metric(metric).spec for metric in (metrics or list(catalogue.metrics))]
    spec = resolve(name, {entry: found.spec for entry, found in catalogue.datasets.items()})
    chosen = catalogue.extractor(extractor or _own_extractor(name, catalogue)).spec
    chosen.require(weights)
    images, _ = read_images(samples, channels=spec.channels, allow_lossy=allow_lossy)
    if images.shape[1] != spec.channels:
        raise GenbenchError(f"{samples} has {images.shape[1]} channels, {name} has {spec.channels}")
    if images.shape[2] != images.shape[3]:
        raise GenbenchError(f"{samples} has images of {images.shape[2]}x{images.shape[3]}; they must be square")
    data = prepare(spec, images.shape[2], data_root())
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    scorer = Scorer(split_of(data, split), chosen, wanted, device=where, weights=weights, cache=cache_folder())
    return scorer.score(np.ascontiguousarray(images), seed)


def _split(reference: str) -> tuple[str, SplitName]:
    """``mnist:test`` -> (``mnist``, ``test``); a colon that is part of a path stays. The split is ``test`` where none is named."""
    head, colon, tail = reference.rpartition(":")
    if colon and head and (found := next((name for name in SPLITS if name == tail), None)):
        return head, found
    if colon and "/" not in tail and head not in ("folder", "zip"):
        raise GenbenchError(str(unknown("split", tail, SPLITS)).replace("installed:", "splits:"))
    return reference, "test"


def _own_extractor(dataset: str, catalogue: Catalogue) -> str:
    return next((name for name, entry in catalogue.extractors.items() if entry.spec.labels_of == dataset), FALLBACK)

