"""The images of a study in memory, as PNG of one length: neither bytes nor headers tell a real image from a fake."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genbench.arrays import read_drawn
from genbench.errors import GenbenchError
from genbench.judge.study import REAL, Study

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Pictures:
    """The pixels of every picture that a study may show."""

    def __init__(self, study: Study, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """`images`: key of a picture -> (C, H, W) uint8, all of one shape."""
        shape = (study.channels, study.size, study.size)
        missing = study.every_picture - images.keys()
        assert not missing, f"{len(missing)} pictures have no pixels"
        for key in study.every_picture:
            if images[key].shape != shape or images[key].dtype != np.uint8:
                raise GenbenchError(f"judge: {key} is {images[key].dtype} {images[key].shape}, the study shows uint8 {shape}")
        self._images = {key: np.ascontiguousarray(images[key]) for key in study.every_picture}

    def png(self, key: str) -> bytes:
        """A picture as PNG."""
        return png(self._images[key])


def png(image: NDArray[np.uint8]) -> bytes:
    """(C, H, W) uint8, C 1 or 3 -> PNG, stored without compression: its length depends on the shape alone."""
    channels, height, width = image.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # a leading 0 a row: no filter
    rows[:, 1:] = image.transpose(1, 2, 0).reshape(height, width * channels)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 0)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def gather(study: Study, folders: Mapping[tuple[str, int], Path], test: NDArray[np.uint8]) -> Pictures:
    """Folders of runs by (row, seed) and the images of the test split (N, C, H, W) -> the pictures of a study.

    Raises GenbenchError where a run's samples are missing, damaged or not those of its record.
    """
    images: dict[str, NDArray[np.uint8]] = {}
    for key in study.pictures.get(REAL, ()):
        images[key] = np.asarray(test[int(key.partition("/")[2])])
    wanted = {(row, seed, int(index)) for row, seed, index in (_parts(key) for key in study.every_picture) if row != REAL}
    for entrant in study.entrants:
        for run in entrant.runs:
            path = folders[entrant.row, run.seed] / "samples.npz"
            if not path.exists():
                raise GenbenchError(f"judge: {path} is not there; samples of a run lie beside its record.json")
            arrays, digest = read_drawn(path, study.num_samples, study.size)
            if digest != run.samples:
                raise GenbenchError(f"judge: {path} has another digest than its record says: these are not the samples that were scored")
            for row, seed, index in wanted:
                if (row, seed) == (entrant.row, run.seed):
                    images[f"{row}/{seed}/{index}"] = arrays["images"][index].copy()
    return Pictures(study, images)


def _parts(key: str) -> tuple[str, int, int]:
    row, *rest = key.split("/")
    return (row, 0, int(rest[0])) if row == REAL else (row, int(rest[0]), int(rest[1]))
