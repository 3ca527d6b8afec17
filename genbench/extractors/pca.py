"""`pixels-pca`: the leading principal components of a reference's own train split, features that need no weights and no training.

They stand beside the shipped CNNs', which anyone could train a model against.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.datasets.prepare import resize_images
from genbench.errors import GenbenchError

COMPONENTS = 64
"""At most; fewer where the images vary in fewer directions. 64 hold 86 % of the variance of MNIST and of CIFAR-10."""
MOST_PIXELS = 32
"""Of a side: what is larger is area-reduced first, so that the covariance stays within 3072 × 3072."""
_CHUNK = 2048
_NOTHING = 1e-9
"""Share of the largest variance below which a direction is rounding."""


class PixelPca:
    """x -> (x - mean) · components: an `Extractor` without logits.

    `mean` (D,) and `components` (D, d) float64 act on the D = C·S·S pixels of images of `shape` (C, H, W), in levels.
    """

    def __init__(
        self, mean: NDArray[np.float64], components: NDArray[np.float64], shape: tuple[int, ...], digest: str, device: torch.device
    ) -> None:
        self.digest = digest
        self.components = components
        self._shape = shape
        self._side = _side(shape)
        self._device = device
        self._components = torch.from_numpy(components).to(device)
        self._offset = torch.from_numpy(mean @ components).to(device)

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        """(B, C, H, W) uint8, of the shape it was fitted on -> features (B, d) float32, from float64 sums."""
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self._shape:
            raise GenbenchError(
                f"pixels-pca was fitted on uint8 images of {self._shape}, not on {images.dtype} of {tuple(images.shape[1:])}"
            )
        if images.shape[2:] != (self._side, self._side):
            images = torch.from_numpy(resize_images(images.cpu().contiguous().numpy(), self._side, "area"))
        pixels = images.to(self._device).flatten(1).double()
        return (pixels @ self._components - self._offset).float(), None


def fit(device: torch.device, images: NDArray[np.uint8]) -> PixelPca:
    """(N, C, H, W) uint8, N >= 2 -> the projection on their leading components, divided by one constant.

    The constant makes the mean variance of the features over `images` 1, as that of the CNNs' is. The digest is of the sums of pixels
    and of their products: whole numbers, the same on every machine, and all that the components follow from.
    """
    if len(images) < 2:
        raise GenbenchError(f"pixels-pca is fitted on 2 images or more, not on {len(images)}")
    from scipy.linalg import eigh

    shape = tuple(int(n) for n in images.shape[1:])
    total, products = _sums(images, _side(shape))
    sha = hashlib.sha256(f"pixels-pca {len(images)} {shape} {len(total)};".encode())
    sha.update(total.astype("<i8").tobytes())
    sha.update(np.ascontiguousarray(products, dtype="<i8").data)
    mean = total / len(images)
    covariance = (products - total.astype(np.float64)[:, None] * mean) / (len(images) - 1)
    count = min(COMPONENTS, len(total))
    variances, vectors = eigh(covariance, subset_by_index=[len(total) - count, len(total) - 1], overwrite_a=True, check_finite=False)
    kept = variances > _NOTHING * max(variances[-1], 0)
    if not kept.any():
        raise GenbenchError("pixels-pca: the images it is fitted on are all the same")
    vectors = vectors[:, kept][:, ::-1]  # the leading one first
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])  # eigenvectors have no sign of their own
    return PixelPca(mean, vectors / np.sqrt(variances[kept].mean()), shape, sha.hexdigest(), device)


def _side(shape: tuple[int, ...]) -> int:
    height, width = shape[1:]
    return min(height, width, MOST_PIXELS)


def _sums(images: NDArray[np.uint8], side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N, C, H, W) uint8 -> sums of the pixels (D,) and of their products (D, D), exact: they stay under 2⁵³ up to 10¹¹ images."""
    from scipy.linalg.blas import dsyrk

    size = images.shape[1] * side * side
    total, products = np.zeros(size, np.int64), np.zeros((size, size), order="F")
    for start in range(0, len(images), _CHUNK):
        part = resize_images(np.asarray(images[start : start + _CHUNK]), side, "area").reshape(-1, size)
        total += part.sum(axis=0, dtype=np.int64)
        dsyrk(1.0, part.T.astype(np.float64, order="F"), beta=1.0, c=products, overwrite_c=1, lower=0)
    upper = np.triu(products)
    return total, (upper + np.triu(upper, 1).T).astype(np.int64)
