"""``folder:PATH`` and ``zip:PATH``: anyone's images as a dataset; StyleGAN/EDM zips, class folders, train and test parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.datasets import DatasetSpec, Split
from genbench.datasets.encoded import Encoded, Source, encoded, labels_of, open_source, relative_names
from genbench.datasets.prepare import carve
from genbench.errors import GenbenchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TEST_SHARE = 10
"""Where nothing is marked as test, one image in ten becomes it."""
_MOST_HELD_OUT = 10_000
_TEST_NAMES = ("test", "val", "valid")


def folder_spec(name: str) -> DatasetSpec:
    """``folder:PATH`` or ``zip:PATH`` -> a dataset with the channels, size and classes found there.

    Test images are those under ``test/`` (or ``val/``) beside ``train/``, or of ``test.zip`` beside ``train.zip``; else a seeded tenth.
    """
    kind, _, where = name.partition(":")
    path = Path(where).expanduser()
    if not where or not path.exists():
        raise GenbenchError(f"dataset {name!r}: {f'{path} does not exist' if where else f'write it {kind}:PATH'}")
    if kind == "folder" and not path.is_dir():
        raise GenbenchError(f"dataset {name!r}: {path} is not a folder; a zip is written zip:{where}")
    parts = _parts(path)
    train = encoded(parts["train"])
    count = len(train)
    if "test" not in parts:
        if count < 3:
            raise GenbenchError(f"dataset {name!r}: {count} images are too few for train, holdout and test")
        count -= max(1, count // _TEST_SHARE)
    elif count < 2:
        raise GenbenchError(f"dataset {name!r}: {count} training image is too few")
    classes = _classes(parts)
    return DatasetSpec(
        name, _Load(path, tuple(part.fingerprint for part in parts.values())), train.shape[1], min(train.shape[2:]), len(classes),
        holdout=max(1, min(_MOST_HELD_OUT, count // 10)), resize="area", class_names=classes, description=f"images in {path}",
    )  # fmt: skip


@dataclass(frozen=True)
class _Load:
    """`DatasetSpec.load` of a folder; two are equal where the files are."""

    path: Path
    fingerprints: tuple[str, ...]

    def __call__(self, root: Path) -> Mapping[str, Split]:
        parts = _parts(self.path)
        classes = _classes(parts)
        train = encoded(parts["train"])
        labels = _labels(parts["train"], classes)
        if "test" in parts:
            test = encoded(parts["test"], channels=train.shape[1])
            return {"train": _split(train, labels), "test": _split(test, _labels(parts["test"], classes))}
        stay, held = carve(_split(train, labels), max(1, len(train) // _TEST_SHARE))
        return {
            "train": _split(train.subset(stay, "train"), None if labels is None else labels[stay]),
            "test": _split(train.subset(held, "test"), None if labels is None else labels[held]),
        }


def _parts(path: Path) -> dict[str, Source]:
    """``train`` and, where it is marked as such, ``test``."""
    if path.is_dir() and (path / "train.zip").is_file():
        parts = {"train": open_source(path / "train.zip")}
        tests = [path / f"{name}.zip" for name in _TEST_NAMES if (path / f"{name}.zip").is_file()]
        return parts | ({"test": open_source(tests[0])} if tests else {})
    source = open_source(path)
    relative = relative_names(source.names)
    tops = {parts[0] for parts in relative if len(parts) > 1}
    test = next((name for name in _TEST_NAMES if name in tops), None)
    if "train" not in tops or test is None:
        return {"train": source}
    named = [(name, parts[0]) for name, parts in zip(source.names, relative, strict=True) if len(parts) > 1]
    tops_of = {"train": "train", "test": test}
    return {part: source.only([name for name, top in named if top == wanted], part) for part, wanted in tops_of.items()}


def _classes(parts: Mapping[str, Source]) -> tuple[str, ...]:
    """Names of the classes of train and test together; () where either has no labels."""
    found = [labels_of(_inside(part)) for part in parts.values()]
    if any(labels is None for labels, _ in found):
        return ()
    if any(part.table is not None for part in parts.values()):
        return max((names for _, names in found), key=len)
    return tuple(sorted({name for _, names in found for name in names}))


def _labels(part: Source, classes: tuple[str, ...]) -> NDArray[np.int64] | None:
    return labels_of(_inside(part), classes)[0] if classes else None


def _inside(part: Source) -> Source:
    """The part seen from within its ``train/`` or ``test/`` folder, so that the folders left are classes."""
    relative = relative_names(part.names)
    if part.table is not None or any(parts[0] not in ("train", *_TEST_NAMES) for parts in relative):
        return part
    return Source(part.path, tuple("/".join(parts[1:]) for parts in relative), part.read, part.fingerprint)


def _split(images: Encoded, labels: NDArray[np.int64] | None) -> Split:
    # indexed like a memory map by the preparation, the only one to see it
    pixels: Any = images
    return Split(pixels, labels)
