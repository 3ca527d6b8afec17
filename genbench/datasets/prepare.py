"""From a dataset's own files to the three splits of a track at its size: splits, resize, digest, and the caches in front of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.datasets import DatasetSpec, ImageData, Split
from genbench.datasets.binary import SEED, binarised
from genbench.errors import GenbenchError, unknown
from genbench.places import cache_folder, data_root

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HOLDOUT_SEED = 2014
"""Of the permutation that carves holdout from train: fixed, since every score depends on it."""

_VERSION = 1
"""Of the preparation itself: part of the disk cache's key."""
_CHUNK = 4096
_MOST_KEPT = 3
_DAY = 86_400.0
_log = logging.getLogger(__name__)
_kept: dict[tuple[str, int, Path], ImageData] = {}


def prepare(
    dataset: DatasetSpec | str, size: int, root: Path | None = None, specs: Iterable[DatasetSpec] | Mapping[str, DatasetSpec] | None = None
) -> ImageData:
    """A dataset (its spec, or its name as a track writes it) at `size` pixels: train, holdout, test and their digest.

    `specs` are the datasets a name may mean, the built-in ones by default. The last few results are kept in the process, and
    those whose images had to be decoded one by one also on disk, as memory maps. Raises GenbenchError.
    """
    spec = resolve(dataset, specs) if isinstance(dataset, str) else dataset
    root = data_root() if root is None else root
    how = _resizing(spec, size)
    key = (spec.name, size, root)
    kept = _kept.pop(key, None)
    if kept is not None and kept.spec == spec:
        _kept[key] = kept
        return kept
    data = _prepared(spec, size, root, how)
    while len(_kept) >= _MOST_KEPT:
        del _kept[next(iter(_kept))]
    _kept[key] = data
    return data


def resolve(name: str, specs: Iterable[DatasetSpec] | Mapping[str, DatasetSpec] | None = None) -> DatasetSpec:
    """``mnist``, ``folder:PATH`` or ``zip:PATH`` -> its spec. Raises GenbenchError naming the nearest match."""
    if name.startswith(("folder:", "zip:")):
        from genbench.datasets.folder import folder_spec

        return folder_spec(name)
    if specs is None:
        from genbench.datasets.builtin import builtin_datasets

        specs = builtin_datasets()
    known = dict(specs) if isinstance(specs, Mapping) else {spec.name: spec for spec in specs}
    if name not in known:
        raise unknown("dataset", name, known, hint="or folder:PATH, zip:PATH")
    return known[name]


def carve(train: Split, count: int, seed: int = HOLDOUT_SEED) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of what stays in train and of `count` images held out, by a seeded permutation; both ascending."""
    import numpy as np

    # RandomState's stream is frozen by numpy's policy; Generator's is not
    order = np.random.RandomState(seed).permutation(len(train)).astype(np.int64)
    return np.sort(order[count:]), np.sort(order[:count])


def digest(splits: Iterable[Split]) -> str:
    """SHA-256 over shapes, pixels and labels."""
    import numpy as np

    sha = hashlib.sha256()
    for split in splits:
        sha.update(f"{split.images.shape} {'labels' if split.labels is not None else ''};".encode())
        for start in range(0, len(split), _CHUNK):
            sha.update(np.ascontiguousarray(split.images[start : start + _CHUNK]).data)
        if split.labels is not None:
            sha.update(np.ascontiguousarray(split.labels, dtype="<i8").data)
    return sha.hexdigest()


def resize_images(images: NDArray[np.uint8], size: int, rule: str) -> NDArray[np.uint8]:
    """(N, C, H, W) uint8 -> (N, C, size, size) by zero padding (``pad``) or area reduction of the centre square (``area``).

    Area reduction gives each pixel the mean over the area it covers, rounded half up, and exactly: Pillow's box filter rounds between
    its two passes and comes out a quarter of a level too bright.
    """
    import numpy as np

    height, width = images.shape[2:]
    if rule == "pad" and (height, width) != (size, size):
        top, left = (size - height) // 2, (size - width) // 2
        return np.pad(images, ((0, 0), (0, 0), (top, size - height - top), (left, size - width - left)))
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, :, top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(square)
    # in units of 1/size of a pixel all overlaps are whole numbers, so the sums are exact in float32 up to 255 · side² < 2²⁴
    edges = np.arange(size)[:, None] * side
    starts = np.arange(side)[None] * size
    overlap = np.clip(np.minimum(edges + side, starts + size) - np.maximum(edges, starts), 0, None)
    weights = overlap.astype(np.float32 if 255 * side * side < 2**24 else np.float64)
    out = np.empty((*images.shape[:2], size, size), np.uint8)
    for start in range(0, len(images), 64):
        sums = (weights @ square[start : start + 64].astype(weights.dtype) @ weights.T).astype(np.int64)
        out[start : start + 64] = (2 * sums + side * side) // (2 * side * side)
    return out


def _resizing(spec: DatasetSpec, size: int) -> str:
    """What is done to reach `size`, in words. Raises GenbenchError where the dataset's rule cannot."""
    native = spec.native_size
    if size == native:
        return ""
    if spec.resize == "pad" and native < size <= native + native // 4:
        return f"zero-padded {native} → {size}"
    if spec.resize == "area" and 1 <= size < native:
        return f"area-reduced {native} → {size}"
    works = {
        "pad": f"{native}, or {native + 1} to {native + native // 4} by zero padding",
        "area": f"{native}, or anything smaller by area reduction",
    }.get(spec.resize, f"{native} only")
    raise GenbenchError(f"dataset {spec.name!r} cannot be had at {size}x{size}; its sizes: {works}")


def _prepared(spec: DatasetSpec, size: int, root: Path, how: str) -> ImageData:
    source = spec.load(root)
    train, test = source["train"], source["test"]
    _check(spec, train, test)
    stay, held = carve(train, spec.holdout)
    parts = {"train": (train, stay), "holdout": (train, held), "test": (test, None)}
    if spec.dynamic:
        return _dynamic(spec, size, how, parts)
    fingerprints = [getattr(split.images, "fingerprint", "") for split in (train, test)]
    if all(fingerprints):
        identity = [_VERSION, spec.name, size, spec.resize, spec.holdout, HOLDOUT_SEED, fingerprints]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        splits, sha = _through_cache(cache_folder() / "datasets" / key, parts, size, spec)
    else:
        splits = {name: Split(_array(split, rows, size, spec.resize), _labels(split, rows)) for name, (split, rows) in parts.items()}
        sha = digest(splits.values())
    return ImageData(spec.name, spec, size, splits["train"], splits["holdout"], splits["test"], sha, how)


def _dynamic(spec: DatasetSpec, size: int, how: str, parts: Mapping[str, tuple[Split, NDArray[np.int64] | None]]) -> ImageData:
    grey = {name: Split(_array(split, rows, size, spec.resize), _labels(split, rows)) for name, (split, rows) in parts.items()}
    splits = {name: Split(binarised(split.images, SEED + order), split.labels) for order, (name, split) in enumerate(grey.items())}
    sha = digest([*splits.values(), grey["train"]])
    return ImageData(spec.name, spec, size, splits["train"], splits["holdout"], splits["test"], sha, how, grey["train"])


def _check(spec: DatasetSpec, train: Split, test: Split) -> None:
    for name, split in (("train", train), ("test", test)):
        shape = tuple(split.images.shape)
        if len(shape) != 4 or shape[1] != spec.channels or min(shape[2:]) != spec.native_size:
            side = spec.native_size
            raise GenbenchError(f"dataset {spec.name!r}: {name} is {shape}, not (N, {spec.channels}, {side}, {side})")
        if split.labels is not None and len(split.labels) != shape[0]:
            raise GenbenchError(f"dataset {spec.name!r}: {name} has {shape[0]} images but {len(split.labels)} labels")
    if len(train) <= spec.holdout or not len(test):
        raise GenbenchError(f"dataset {spec.name!r}: {len(train)} train and {len(test)} test images are too few to hold out {spec.holdout}")


def _chunks(split: Split, rows: NDArray[np.int64] | None, size: int, rule: str) -> Iterator[NDArray[np.uint8]]:
    import numpy as np

    wanted = np.arange(len(split)) if rows is None else rows
    for start in range(0, len(wanted), _CHUNK):
        yield resize_images(np.asarray(split.images[wanted[start : start + _CHUNK]]), size, rule)


def _array(split: Split, rows: NDArray[np.int64] | None, size: int, rule: str) -> NDArray[np.uint8]:
    import numpy as np

    out = np.empty((len(split) if rows is None else len(rows), split.images.shape[1], size, size), np.uint8)
    _fill(out, split, rows, size, rule)
    return out


def _fill(out: NDArray[np.uint8], split: Split, rows: NDArray[np.int64] | None, size: int, rule: str) -> None:
    start = 0
    for chunk in _chunks(split, rows, size, rule):
        out[start : start + len(chunk)] = chunk
        start += len(chunk)


def _labels(split: Split, rows: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    return split.labels if split.labels is None or rows is None else split.labels[rows]


def _through_cache(
    folder: Path, parts: Mapping[str, tuple[Split, NDArray[np.int64] | None]], size: int, spec: DatasetSpec
) -> tuple[dict[str, Split], str]:
    """The splits as memory maps, read from `folder` or written there first; in memory where it cannot be written."""
    labels = {name: _labels(split, rows) for name, (split, rows) in parts.items()}
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError):
        return _from_cache(folder, labels)
    _log.info("decoding %s once; kept in %s", spec.name, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_old_parts(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    except OSError as error:
        _log.warning("%s cannot be cached (%s): it is decoded anew in every process", spec.name, error)
        splits = {name: Split(_array(split, rows, size, spec.resize), labels[name]) for name, (split, rows) in parts.items()}
        return splits, digest(splits.values())
    try:
        _write_cache(temporary, parts, labels, size, spec.resize)
        shutil.rmtree(folder, ignore_errors=True)
        # another process may have been faster: its folder is as good
        with contextlib.suppress(OSError):
            temporary.rename(folder)
        return _from_cache(folder, labels)
    except (OSError, ValueError) as error:
        raise GenbenchError(f"dataset {spec.name!r}: the cache {folder} cannot be written: {error}; set GENBENCH_CACHE elsewhere") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_old_parts(cache: Path) -> None:
    """What processes left behind that were killed while they wrote: nobody has touched it for a day."""
    for part in cache.glob(".part-*"):
        with contextlib.suppress(OSError):
            if time.time() - max(path.stat().st_mtime for path in (part, *part.iterdir())) > _DAY:
                shutil.rmtree(part, ignore_errors=True)


def _write_cache(
    folder: Path,
    parts: Mapping[str, tuple[Split, NDArray[np.int64] | None]],
    labels: Mapping[str, NDArray[np.int64] | None],
    size: int,
    rule: str,
) -> None:
    import numpy as np

    splits = {}
    for name, (split, rows) in parts.items():
        shape = (len(split) if rows is None else len(rows), split.images.shape[1], size, size)
        out = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape)
        _fill(out, split, rows, size, rule)
        out.flush()
        splits[name] = Split(out, labels[name])
    (folder / "digest.json").write_text(json.dumps({"digest": digest(splits.values())}))


def _from_cache(folder: Path, labels: Mapping[str, NDArray[np.int64] | None]) -> tuple[dict[str, Split], str]:
    """Raises ValueError where the files are not what their digest says."""
    import numpy as np

    said: Any = json.loads((folder / "digest.json").read_text())["digest"]
    splits = {name: Split(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False), labels[name]) for name in labels}
    if digest(splits.values()) != said:
        raise ValueError(f"{folder} does not match its digest")
    return splits, said
