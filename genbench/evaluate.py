"""Scores of images that somebody already has: against a dataset, against other images, or against published statistics."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from genbench.catalogue import Catalogue, load_catalogue
from genbench.datasets import DatasetSpec, Split
from genbench.datasets.encoded import Encoded
from genbench.datasets.prepare import prepare, resize_images, resolve
from genbench.errors import GenbenchError, unknown
from genbench.extractors import ExtractorSpec
from genbench.images import Opened, open_images, read_statistics
from genbench.metrics import MetricSpec
from genbench.places import cache_folder, data_root
from genbench.records import RunRecord, Score, SplitName, Store, read_record
from genbench.reference import Reference, Statistics, set_of, set_spec, split_of, statistics_of
from genbench.score import LOSSY, QUANTISATION, Scorer, Show, unseen
from genbench.seeds import stream
from genbench.track import shipped_tracks

SPLITS: tuple[SplitName, ...] = ("test", "train", "holdout")
FALLBACK = "inception-v3-compat"
_FEWEST = 4
"""Images of a set to compare with: each of its halves then has a covariance."""
_CHUNK = 1000
_RUN = re.compile(r"\d+-[0-9a-f]{8}")
"""The name of a run's folder."""

Choose = Callable[[DatasetSpec], ExtractorSpec]
OpenSamples = Callable[[int | None], Opened]
"""Opens the samples with so many channels, or with those they have."""


class Evaluation(NamedTuple):
    """Scores, and what was compared with what."""

    scores: dict[str, list[Score]]
    """By metric."""
    metrics: dict[str, MetricSpec]
    reference: Reference
    extractor: ExtractorSpec
    images: tuple[int, ...]
    """(N, C, H, W) of the generated images."""
    flags: list[str]
    left_out: dict[str, list[str]]
    """Metrics that could not be computed, each with what it needs and was not there."""


@dataclass(frozen=True)
class _Pair:
    """Generated images and what they are compared with, at one resolution."""

    images: NDArray[np.uint8]
    reference: Reference
    extractor: ExtractorSpec


def evaluate(
    samples: Path,
    reference: str = "",
    *,
    extractor: str = "",
    metrics: list[str] | None = None,
    allow_lossy: bool = False,
    resize: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    weights: Path | None = None,
    show: Show = unseen,
) -> Evaluation:
    """Images in a folder, zip, npz or npy, or those of a run, against `reference` -> scores. Raises GenbenchError before any compute.

    `reference` is ``DATASET[:SPLIT]`` (test by default); ``folder:PATH``, ``zip:PATH`` or a path for all images there; or an npz of
    ``mu`` and ``sigma``. A run, named by its folder or ``record.json``, needs none: it is scored as in its track, with the same seed,
    hence to the same numbers. Else the extractor is by default the in-domain classifier that names the reference's classes, or
    Inception: it is named in every score. `resize` reduces all images to resize×resize; else their sizes must agree, but for a
    dataset's zero padding, which is done to the samples too.
    """
    catalogue = load_catalogue(kinds=("dataset", "extractor", "metric"))
    samples, run = _run(samples)
    name: str
    split: SplitName
    if run is not None and not reference:
        track = run.spec.track
        name, split = track.dataset, track.reference
        extractor, metrics = extractor or track.extractor, metrics or list(track.metrics)
        seed = stream(run.spec.seed, "metrics") if seed is None else seed
    elif reference:
        name, split = _parse(reference, catalogue)
    else:
        raise GenbenchError("--reference is missing: a dataset (mnist, cifar10:train), images (PATH), or an npz of mu and sigma")
    where = _device(device)
    wanted = [catalogue.metric(metric).spec for metric in (metrics or list(catalogue.metrics))]
    choose = partial(_extractor, extractor, catalogue, weights)
    opened = partial(_open_samples, samples, run, allow_lossy, resize)
    if split != "all":
        spec = resolve(name, {entry: found.spec for entry, found in catalogue.datasets.items()})
        pair = _with_dataset(spec, split, choose, opened, show, pad=run is None or bool(reference))
    elif (moments := read_statistics(_path(name))) is not None:
        pair = _with_statistics(name, Statistics(*moments), choose, extractor, catalogue, opened, show)
    else:
        pair = _with_set(name, resize, choose, opened, show)
    scorer = Scorer(
        _told(pair.reference, resize), pair.extractor, wanted, device=where, weights=weights, cache=cache_folder(),
        quantisation=LOSSY if allow_lossy else QUANTISATION, show=show,
    )  # fmt: skip
    _try(scorer, pair.images)
    asked = None if run is None or reference else _asked(samples)  # classes of another reference may be other things
    return Evaluation(
        scorer.by_metric(pair.images, seed or 0, asked=asked), {metric.name: metric for metric in wanted}, scorer.reference,
        pair.extractor, pair.images.shape, scorer.flags(pair.images), scorer.left_out(asked),
    )  # fmt: skip


def _with_dataset(spec: DatasetSpec, split: SplitName, choose: Choose, opened: OpenSamples, show: Show, *, pad: bool) -> _Pair:
    """Samples against a split of a dataset, which is brought to their size by its own rule; or they, by padding, to its track's."""
    chosen = choose(spec)
    found = opened(spec.channels)
    size = _square(found, "samples")
    tracks = [track.size for track in shipped_tracks() if track.dataset == spec.name and chosen.labels_of == spec.name]
    padded = tracks[0] if pad and tracks and spec.resize == "pad" and size == spec.native_size else size
    data = prepare(spec, padded, data_root())
    images = _read(found.images, "samples", show)
    if padded == size:
        return _Pair(images, split_of(data, split), chosen)
    reference = split_of(data, split)
    words = f"{reference.resize}, samples too"
    return _Pair(resize_images(images, padded, "pad"), replace(reference, resize=words), chosen)


def _with_set(name: str, resize: int | None, choose: Choose, opened: OpenSamples, show: Show) -> _Pair:
    """Samples against all images of another set."""
    real = open_images(_path(name), resize=resize)
    chosen = choose(set_spec(name, real.images.shape, real.class_names))
    found = opened(real.images.shape[1])
    sizes = [_square(real, "the reference's images"), _square(found, "samples")]
    if sizes[0] != sizes[1]:
        raise GenbenchError(f"samples are {sizes[1]}x{sizes[1]}, {name} is {sizes[0]}x{sizes[0]}; --resize SIZE reduces both to one size")
    if len(real.images) < _FEWEST:
        raise GenbenchError(f"{name} holds {len(real.images)} images; a reference needs at least {_FEWEST}")
    images = _read(found.images, "samples", show)
    return _Pair(images, set_of(name, Split(_read(real.images, "the reference", show), real.labels), real.class_names), chosen)


def _with_statistics(
    name: str, statistics: Statistics, choose: Choose, extractor: str, catalogue: Catalogue, opened: OpenSamples, show: Show
) -> _Pair:
    """Samples against published moments, of features that the user must name."""
    d = len(statistics.mean)
    if not extractor:
        fitting = ", ".join(entry for entry, found in catalogue.extractors.items() if found.spec.dim == d) or "none that is installed"
        raise GenbenchError(f"{name} holds statistics but not the network they are of; name it with -x. Of {d} dimensions: {fitting}")
    reference = statistics_of(name, statistics)
    chosen = choose(reference.spec)
    if chosen.fit is not None:
        raise GenbenchError(f"{name} holds statistics; extractor {chosen.name} is made from real images, which are not there")
    return _Pair(_read(opened(None).images, "samples", show), reference, chosen)


def _parse(reference: str, catalogue: Catalogue) -> tuple[str, SplitName]:
    """``mnist:train`` -> (``mnist``, ``train``); images without a split are ``all``. A colon that is part of a path stays."""
    head, colon, tail = reference.rpartition(":")
    images = head.startswith(("folder:", "zip:"))
    if colon and head and (split := next((name for name in SPLITS if name == tail), None)):
        kind = "folder" if Path(head).is_dir() else "zip"
        return head if images or head in catalogue.datasets or not Path(head).exists() else f"{kind}:{head}", split
    if reference in catalogue.datasets:
        return reference, "test"
    if head in ("folder", "zip") or _path(reference).exists() or "/" in tail or tail.endswith((".zip", ".npz", ".npy")):
        return reference, "all"
    if colon and (images or head in catalogue.datasets):
        raise GenbenchError(str(unknown("split", tail, SPLITS)).replace("installed:", "splits:"))
    return reference, "test"


def _path(name: str) -> Path:
    kind, _, where = name.partition(":")
    path = Path(where if kind in ("folder", "zip") and where else name).expanduser()
    path = path.parent if path.name == "record.json" else path
    return path / "samples.npz" if (path / "record.json").is_file() else path


def _extractor(name: str, catalogue: Catalogue, weights: Path | None, spec: DatasetSpec) -> ExtractorSpec:
    """The extractor asked for, or the one whose logits name the dataset's classes, or Inception; with its weights at hand."""
    if name:
        chosen = catalogue.extractor(name).spec
        chosen.require(weights)
        return chosen
    own = next((entry.spec for entry in catalogue.extractors.values() if entry.spec.names_labels_of(spec)), None)
    chosen = own or catalogue.extractor(FALLBACK).spec
    try:
        chosen.require(weights)
    except GenbenchError as error:
        raise GenbenchError(f"{error}; or name another extractor with -x: genbench list extractors") from None
    return chosen


def _open_samples(samples: Path, run: RunRecord | None, allow_lossy: bool, resize: int | None, channels: int | None) -> Opened:
    if run is None:
        return open_images(samples, channels=channels, allow_lossy=allow_lossy, resize=resize)
    stored = samples / "samples.npz"
    if not stored.is_file():
        raise GenbenchError(f"{samples} holds a record ({run.status}) but no samples.npz")
    found = open_images(stored, channels=channels, resize=resize)
    try:
        with np.load(stored, allow_pickle=False) as arrays:
            digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in arrays.files)).hexdigest()
    except Exception as error:  # damage in a zip can raise almost anything
        raise GenbenchError(f"{stored} is damaged: {' '.join(str(error).split())}") from None
    if digest != run.digests.get("samples", digest):
        raise GenbenchError(f"{stored} is not what was drawn: its pixels have another digest than the record says")
    return found


def _asked(run_folder: Path) -> Split | None:
    """The images that a conditional model made on request, with the labels asked for, where a run folder has them."""
    with np.load(run_folder / "samples.npz", allow_pickle=False) as arrays:
        return Split(arrays["asked"], arrays["asked_labels"]) if "asked" in arrays.files else None


def _run(samples: Path) -> tuple[Path, RunRecord | None]:
    """A run's folder, or its ``record.json`` -> the folder and the record; images -> their path and None.

    Raises GenbenchError for a folder of runs: the pictures in it are sheets of samples, not samples.
    """
    folder = samples.parent if samples.name == "record.json" else samples
    if folder != samples or (folder / "record.json").is_file():
        return folder, read_record(folder / "record.json")
    run = next((path.parent for path in Store(samples).paths() if _RUN.fullmatch(path.parent.name)), None)
    if run is not None:
        raise GenbenchError(f"{samples} holds runs; name the folder of one, like {run}")
    return samples, None


def _device(name: str) -> torch.device:
    try:
        found = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise GenbenchError(f"unknown device {name!r}; auto, cpu, cuda or cuda:N")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise GenbenchError(f"device {name!r} is not here; --device cpu works everywhere")
    return found


def _square(found: Opened, what: str) -> int:
    """The size of square images. Raises GenbenchError where they are not square."""
    height, width = found.images.shape[2:]
    if height != width:
        raise GenbenchError(f"{what} are {height}x{width}, not square; --resize SIZE reduces their centre squares")
    return int(height)


def _read(images: NDArray[np.uint8] | Encoded, what: str, show: Show) -> NDArray[np.uint8]:
    """Pixels in memory; those still in their files are decoded now."""
    if isinstance(images, np.ndarray):
        return np.ascontiguousarray(images)
    out = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _CHUNK):
        part = images[start : start + _CHUNK]
        out[start : start + len(part)] = part
        show(f"reading {what}", start + len(part), len(images))
    return out


def _told(reference: Reference, resize: int | None) -> Reference:
    """The reference with what was done to the samples in its words, hence in every protocol hash."""
    if resize is None:
        return reference
    words = f"samples area-reduced to {resize}" if reference.of != "all" or reference.statistics else f"all area-reduced to {resize}"
    return replace(reference, resize="; ".join(filter(None, (reference.resize, words))))


def _try(scorer: Scorer, images: NDArray[np.uint8]) -> None:
    """One image through the extractor, which knows best what it can see. Raises GenbenchError before the reference goes through it."""
    try:
        with torch.inference_mode():
            features, _ = scorer.extractor(torch.from_numpy(images[:1]).to(scorer.device))
    except GenbenchError as error:
        raise GenbenchError(f"{error}; choose another with -x, or another size with --resize") from None
    statistics = scorer.reference.statistics
    if statistics is not None and features.shape[1] != len(statistics.mean):
        dimensions = f"{len(statistics.mean)} dimensions; extractor {scorer.spec.name} has {features.shape[1]}"
        raise GenbenchError(f"{scorer.reference.name} holds statistics in {dimensions}")
