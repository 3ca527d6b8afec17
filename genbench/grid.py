"""A sheet of samples as people look at them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genbench.errors import GenbenchError
from genbench.records import write_atomic

LARGEST = 8_000_000
"""Bytes; a larger file is not taken for a sheet."""
_MOST_PIXELS = 16_000_000
COLUMNS = ROWS = 10
CELL = 32
"""Pixels a small image is enlarged to at least, by a whole factor, nearest neighbour."""


def save_grid(images: NDArray[np.uint8], path: Path) -> None:
    """The first 100 of (N, C, H, W) uint8 images as a PNG of 10 x 10, a pixel apart, enlarged by a whole factor."""
    write_atomic(path, grid_png(images))


def grid_png(images: NDArray[np.uint8]) -> bytes:
    """The sheet as PNG bytes."""
    shown = images[: COLUMNS * ROWS]
    _, channels, height, width = shown.shape
    scale = max(1, CELL // height)
    rows = -(-len(shown) // COLUMNS)
    sheet = np.full((rows * (height * scale + 2) + 2, COLUMNS * (width * scale + 2) + 2, channels), 128, np.uint8)
    for index, image in enumerate(shown):
        top, left = (2 + (index // COLUMNS) * (height * scale + 2), 2 + (index % COLUMNS) * (width * scale + 2))
        tile = np.moveaxis(image, 0, -1).repeat(scale, 0).repeat(scale, 1)
        sheet[top : top + height * scale, left : left + width * scale] = tile
    buffer = io.BytesIO()
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def check_png(path: Path) -> tuple[int, int]:
    """A file that a stranger may have written -> width and height of its PNG. Raises GenbenchError for anything else."""
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST:
            raise GenbenchError(f"{path.name} is a link or larger than a sheet of samples is")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise GenbenchError(f"{path.name} claims {image.width}x{image.height} pixels: refused as a decompression bomb")
                image.verify()
                return image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise GenbenchError(f"{path.name} claims too many pixels: refused as a decompression bomb") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise GenbenchError(f"{path.name} is no PNG: {' '.join(str(error).replace(str(path), path.name).split())[:120]}") from None
