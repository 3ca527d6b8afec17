"""Reading images people made elsewhere: a folder, a zip, an npz or an npy; strictly, since what is guessed here moves every score."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.arrays import array_trouble, check_member
from genbench.datasets.encoded import Encoded, encoded, labels_of, open_source, reduced, with_channels
from genbench.errors import GenbenchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NPY = b"\x93NUMPY"
_KEYS = ("samples", "images", "arr_0")
_MOMENTS = frozenset({"mu", "sigma"})


@dataclass(frozen=True)
class Opened:
    """Images found at a path; those in files of their own are decoded when indexed."""

    images: NDArray[np.uint8] | Encoded
    """(N, C, H, W) uint8."""
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] = ()


def open_images(path: str | Path, *, channels: int | None = None, allow_lossy: bool = True, resize: int | None = None) -> Opened:
    """As `read_images`, but encoded images stay in their files; `resize` reduces images of any size to resize×resize."""
    path = Path(path)
    if not path.exists():
        raise GenbenchError(f"no images at {path}: it does not exist")
    if not (path.is_dir() or path.is_file()):
        raise GenbenchError(f"no images at {path}: it is neither a folder nor a file")
    if path.is_dir() or not _is_array_file(path):
        source = open_source(path)
        files = encoded(source, channels=channels, allow_lossy=allow_lossy, resize=resize)
        return Opened(files, *labels_of(source))
    images, labels = _read_npz(path) if zipfile.is_zipfile(path) else (_read_npy(path), None)
    images = with_channels(images, channels, str(path))
    return Opened(images if resize is None else reduced(images, resize, str(path)), labels)


def read_images(
    path: str | Path, *, size: int | None = None, channels: int | None = None, allow_lossy: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """A folder (with its subfolders), zip, npz or npy -> images (N, C, H, W) uint8 and labels (N,) int64, or None.

    Arrays are NHWC or NCHW under ``samples``, ``images`` or ``arr_0``, with labels under ``labels`` or ``arr_1``. Labels of files
    come from ``dataset.json`` or from class folders. `size` demands size×size pixels: nothing is ever resized. `channels` turns grey
    into three equal channels, and three that are equal into one. Raises GenbenchError, in one line, for whatever is not exactly that.
    """
    found = open_images(path, channels=channels, allow_lossy=allow_lossy)
    _check_size(found.images.shape[2:], size, str(path))
    return found.images[:], found.labels


def _check_size(shape: tuple[int, ...], size: int | None, where: str) -> None:
    if size is not None and shape != (size, size):
        raise GenbenchError(
            f"{where}: images are {shape[0]}x{shape[1]}, not {size}x{size}; they are never resized here, since that moves every score"
        )


def _is_array_file(path: Path) -> bool:
    if path.suffix.lower() in (".npy", ".npz"):
        return True
    return _start(path) == _NPY


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(len(_NPY))
    except OSError as error:
        raise GenbenchError(f"{path} cannot be read: {error.strerror or error}") from None


def _read_npy(path: Path) -> NDArray[np.uint8]:
    import numpy as np

    start = _start(path)
    if start != _NPY:
        raise GenbenchError(array_trouble(path, "a pickle" if start[:1] == b"\x80" else "it does not begin like one"))
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except GenbenchError:
        raise
    except Exception as error:  # what numpy and zipfile raise at damage: ValueError, TokenError, BadZipFile, zlib.error, RuntimeError, …
        raise GenbenchError(array_trouble(path, error)) from None
    return np.ascontiguousarray(_as_nchw(array, str(path)))


def _read_npz(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    import numpy as np

    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:  # np.load leaks what it opened itself
            key = next((key for key in _KEYS if key in arrays.files), None)
            if key is None and len(arrays.files) == 1:
                key = arrays.files[0]
            if key is None:
                found = ", ".join(map(repr, arrays.files)) or "nothing"
                also = "; mu and sigma can be a --reference, not samples" if set(arrays.files) >= _MOMENTS else ""
                raise GenbenchError(f"{path} holds {found}; the images are expected under samples, images or arr_0{also}")
            check_member(path, key)
            images = np.ascontiguousarray(_as_nchw(arrays[key], f"{path}: {key}"))
            labels = next((arrays[name] for name in ("labels", "arr_1") if name in arrays.files), None)
    except GenbenchError:
        raise
    except Exception as error:  # what numpy and zipfile raise at damage: ValueError, TokenError, BadZipFile, zlib.error, RuntimeError, …
        raise GenbenchError(array_trouble(path, error)) from None
    if labels is None:
        return images, None
    if labels.ndim == 2 and labels.shape[0] == len(images) and labels.shape[1] > 1:
        labels = labels.argmax(1)  # one-hot, as ADM writes them
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise GenbenchError(f"{path}: labels are {labels.shape} {labels.dtype}, not one integer for each of {len(images)} images")
    return images, labels.astype(np.int64)


def read_statistics(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """An npz of ``mu`` and ``sigma``, as clean-fid, pytorch-fid, ADM and EDM write them -> mean (d,) and covariance (d, d) of features.

    None where the path is anything else; where images lie beside them, as in ADM's batches, the images count. Raises GenbenchError
    for moments that are none: of the wrong shape, not finite, not symmetric, or not positive semidefinite.
    """
    import numpy as np

    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            if not set(arrays.files) >= _MOMENTS or set(_KEYS) & set(arrays.files):
                return None
            for key in _MOMENTS:
                check_member(path, key)
            mean, covariance = (np.asarray(arrays[key]) for key in ("mu", "sigma"))
    except GenbenchError:
        raise
    except Exception as error:
        raise GenbenchError(array_trouble(path, error)) from None
    where = f"reference statistics {path}"
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or len(mean) == 0:
        raise GenbenchError(f"{where}: mu is {mean.shape} and sigma {covariance.shape}, not (d,) and (d, d)")
    if mean.dtype.kind != "f" or covariance.dtype.kind != "f":
        raise GenbenchError(f"{where}: mu is {mean.dtype} and sigma {covariance.dtype}, not floating point")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise GenbenchError(f"{where}: not all values are finite")
    size = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > 1e-5 * size:  # those of float32 sums are symmetric to about 1e-7
        raise GenbenchError(f"{where}: sigma is not symmetric, hence no covariance")
    covariance = (covariance + covariance.T) / 2
    if np.linalg.eigvalsh(covariance)[0] < -1e-5 * size:
        raise GenbenchError(f"{where}: sigma has negative eigenvalues, hence is no covariance")
    return mean, covariance


def _as_nchw(array: Any, where: str) -> NDArray[np.uint8]:
    """(N, H, W, C), (N, C, H, W) or grey (N, H, W), uint8 -> (N, C, H, W)."""
    import numpy as np

    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        kind = getattr(array, "dtype", type(array).__name__)
        raise GenbenchError(f"{where} is {kind}; images are expected as uint8, 0 to 255; x in [-1, 1] becomes floor(127.5 (x + 1) + 0.5)")
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or 0 in array.shape:
        raise GenbenchError(f"{where} has the shape {array.shape}; (N, H, W, C) or (N, C, H, W) with at least one image is expected")
    first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
    if first and last and array.shape[1] != array.shape[3]:
        first, last = array.shape[2] == array.shape[3], array.shape[1] == array.shape[2]  # the square reading
    if first == last:
        what = "could be NHWC or NCHW" if first else "has neither 1 nor 3 channels"
        raise GenbenchError(f"{where} has the shape {array.shape}, which {what}")
    images: NDArray[np.uint8] = array if first else array.transpose(0, 3, 1, 2)
    return images
