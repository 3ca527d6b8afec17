"""Array files that a stranger may have written: nothing in them is unpickled, and no memory is spent on what they only claim."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.errors import GenbenchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BYTES = 256 * 2**30
MOST_RATIO = 1100
"""Deflate cannot do better than 1 032 to 1; what claims more lies."""
_DRAWN = (("images",), ("images", "labels"), ("images", "labels", "asked", "asked_labels"))
"""The arrays of a run's own ``samples.npz``, in their order: of a model without labels, of an excerpt with labels, of a conditional one."""
_MOST_DRAWN = 16 * 2**30


def read_drawn(path: Path, most: int, size: int) -> tuple[dict[str, NDArray[Any]], str]:
    """A run's own ``samples.npz`` -> its arrays by name and the SHA-256 over their bytes, as its record holds it.

    It may come from a stranger: exactly the arrays that a run writes, at most `most` images of size×size, and a plain file, or a
    GenbenchError in one line before memory is spent.
    """
    import numpy as np

    if path.is_symlink() or not path.is_file():
        raise GenbenchError(f"{path} is no plain file")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            if tuple(names) not in {tuple(f"{name}.npy" for name in allowed) for allowed in _DRAWN}:
                raise GenbenchError(f"{path} holds {', '.join(map(repr, names[:6])) or 'nothing'}, which is not what a run writes")
            for name in stored.files:
                check_member(path, name, min(_MOST_DRAWN, most * 3 * size * size + 1024))
            arrays = {name: stored[name] for name in stored.files}
    except GenbenchError:
        raise
    except Exception as error:  # what numpy and zipfile raise at damage: ValueError, TokenError, BadZipFile, zlib.error, RuntimeError, …
        raise GenbenchError(array_trouble(path, error)) from None
    for name, array in arrays.items():
        fits = array.dtype == np.int64 and array.ndim == 1
        if not name.endswith("labels"):
            fits = array.dtype == np.uint8 and array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[2:] == (size, size)
        if not fits or len(array) != len(arrays["images"]) or not 0 < len(array) <= most:
            raise GenbenchError(f"{path}: {name} is {array.dtype} {array.shape}, which is not what a run on this track draws")
    return arrays, hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()


def check_member(path: Path, key: str, most: int = MOST_BYTES) -> None:
    """The array's header must claim what its zip member holds, at most `most` bytes, before anything is allocated. Raises GenbenchError."""
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(key if key in archive.namelist() else f"{key}.npy")
        if info.file_size > MOST_RATIO * max(info.compress_size, 1) or info.file_size > most:
            raise GenbenchError(f"{path}: {key} claims {info.file_size} bytes: refused as a decompression bomb")
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(member)
            count = 1
            for extent in shape:
                count *= extent
            if not dtype.hasobject and member.tell() + count * dtype.itemsize != info.file_size:
                raise GenbenchError(f"{path}: {key} claims {shape} {dtype}, which is not what the file holds")


def array_trouble(path: Path, error: Exception | str) -> str:
    """What numpy or zipfile said of a file -> one line for its reader."""
    why = " ".join(str(error).split()) or type(error).__name__
    if "pickle" in why or "Python objects" in why:
        return f"{path} holds pickled objects, which can run code: refused; save a plain uint8 array"
    return f"{path} is damaged or no array file: {why}"
