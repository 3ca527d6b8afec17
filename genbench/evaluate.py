"""Scores of images that somebody already has, against a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from genbench.catalogue import Catalogue, load_catalogue
from genbench.datasets import ImageData
from genbench.datasets.prepare import prepare, resolve
from genbench.errors import GenbenchError, unknown
from genbench.images import read_images
from genbench.places import cache_folder, data_root
from genbench.records import Score
from genbench.score import Scorer

SPLITS = ("test", "train", "holdout")
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
    against = data if split != "holdout" else _holdout_as_test(data)
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    scorer = Scorer(
        against, chosen, wanted, reference="train" if split == "train" else "test", device=where, weights=weights, cache=cache_folder()
    )
    scores = scorer.score(np.ascontiguousarray(images), seed)
    if split != "holdout":
        return scores
    return [score.model_copy(update={"split": "holdout"}) if score.split == "test" else score for score in scores]


def _split(reference: str) -> tuple[str, str]:
    """``mnist:test`` -> (``mnist``, ``test``); a colon that is part of a path stays. The split is ``test`` where none is named."""
    head, colon, tail = reference.rpartition(":")
    if colon and tail in SPLITS and head:
        return head, tail
    if colon and "/" not in tail and head not in ("folder", "zip"):
        raise GenbenchError(str(unknown("split", tail, SPLITS)).replace("installed:", "splits:"))
    return reference, "test"


def _own_extractor(dataset: str, catalogue: Catalogue) -> str:
    return next((name for name, entry in catalogue.extractors.items() if entry.spec.labels_of == dataset), FALLBACK)


def _holdout_as_test(data: ImageData) -> ImageData:
    """The same data with holdout in test's place: the digest says so, so that no cache or protocol mixes them."""
    return ImageData(data.name, data.spec, data.size, data.train, data.holdout, data.holdout, f"{data.digest}:holdout", data.resize)
