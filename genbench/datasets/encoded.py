"""Encoded images in folders and zips: which there are, what labels they carry, and strict decoding one by one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from genbench.arrays import MOST_BYTES, MOST_RATIO
from genbench.errors import GenbenchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"})
"""What counts as an image; other files are passed over."""
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_MOST_PIXELS = 64 * 2**20
_MOST_FILE_BYTES = 512 * 2**20
_WORTH_A_THREAD = 128 * 128
_AT_ONCE = 512


@dataclass(frozen=True)
class Source:
    """Encoded images by name, in a folder or zip, in lexical order."""

    path: Path
    names: tuple[str, ...]
    read: Callable[[str], bytes]
    fingerprint: str
    """Changes when a file does: of a zip over names, sizes and CRCs; of a folder over names, sizes and times."""
    table: Any = None
    """``dataset.json``, as StyleGAN and EDM write it."""

    def only(self, names: Sequence[str], part: str) -> Source:
        """The same source with fewer images."""
        joined = "\n".join(names)
        return replace(self, names=tuple(names), fingerprint=_sha(f"{self.fingerprint} {part} {_sha(joined)}"))


def open_source(path: Path) -> Source:
    """A folder or zip -> its images, none of them read yet. Raises GenbenchError where there are none."""
    try:
        source = _open_folder(path) if path.is_dir() else _open_zip(path)
    except OSError as error:
        raise GenbenchError(f"{path} cannot be read: {error.strerror or error}") from None
    for name in source.names:
        if not name.isprintable():
            raise GenbenchError(f"{path}: the file name {name!r} cannot be printed; rename it")
    if not source.names:
        raise GenbenchError(f"{path} holds no images ({', '.join(sorted(SUFFIXES)[:4])}, …)")
    return source


def relative_names(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Names as path parts, without the folders that all of them share (but ``train`` and ``test`` stay)."""
    parts = [PurePosixPath(name).parts for name in names]
    while all(len(part) > 1 and part[0] == parts[0][0] for part in parts) and parts[0][0] not in ("train", "test", "val", "valid"):
        parts = [part[1:] for part in parts]
    return parts


def labels_of(source: Source, classes: Sequence[str] | None = None) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Labels (N,) and the names of the classes: from ``dataset.json``, else from class folders, else None and ()."""
    import numpy as np

    if source.table is not None:
        return _labels_of_table(source)
    parts = relative_names(source.names)
    if any(len(part) < 2 for part in parts):
        return None, ()
    names = sorted({part[0] for part in parts}) if classes is None else list(classes)
    if len(names) < 2 and classes is None:
        return None, ()
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[part[0]] for part in parts], dtype=np.int64), tuple(names)


@dataclass(frozen=True)
class Encoded:
    """Images still in their files, decoded when indexed; otherwise like an array (N, C, H, W) of uint8."""

    names: Sequence[str]
    read: Callable[[str], bytes]
    fingerprint: str
    """Stands for the content without reading it."""
    channels: int
    full: tuple[int, int]
    """(H, W) of every image."""
    crop: int | None = None
    """Only the centre crop×crop is seen."""
    resize: int | None = None
    """Each image, of whatever size, is brought to resize×resize by `reduced`."""
    allow_lossy: bool = True

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        side = self.resize or self.crop
        height, width = self.full if side is None else (side, side)
        return (len(self.names), self.channels, height, width)

    def subset(self, rows: NDArray[np.int64], part: str) -> Encoded:
        """The images of these rows; `part` names them in the fingerprint together with their number."""
        return replace(self, names=[self.names[row] for row in rows], fingerprint=_sha(f"{self.fingerprint} {part} {len(rows)}"))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        import numpy as np

        wanted = np.arange(len(self))[rows]
        out = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        # decoding leaves Python for as long as an image is large: below, threads only wait for each other
        if len(wanted) > 1 and self.full[0] * self.full[1] >= _WORTH_A_THREAD:
            with ThreadPoolExecutor() as threads:
                for start in range(0, len(wanted), _AT_ONCE):  # after a damaged file no more than these are decoded in vain
                    part = slice(start, start + _AT_ONCE)
                    list(threads.map(self._decode_into, out[part], wanted[part]))
        else:
            for target, row in zip(out, wanted, strict=True):
                self._decode_into(target, row)
        return out

    def _decode_into(self, target: NDArray[np.uint8], row: int) -> None:
        """Write the image of this row into (C, H, W)."""
        name = self.names[row]
        image = with_channels(decode(self.read(name), name, allow_lossy=self.allow_lossy)[None], self.channels, name)
        if self.resize is not None:
            target[:] = reduced(image, self.resize, name)[0]
            return
        if image.shape[2:] != self.full:
            raise GenbenchError(
                f"mixed sizes: {name} is {image.shape[2]}x{image.shape[3]} where {self.full[0]}x{self.full[1]} is expected;"
                " bring all images to one size first"
            )
        height, width = self.shape[2:]
        top, left = (self.full[0] - height) // 2, (self.full[1] - width) // 2
        target[:] = image[0, :, top : top + height, left : left + width]


def encoded(source: Source, *, channels: int | None = None, allow_lossy: bool = True, resize: int | None = None) -> Encoded:
    """All images of a source; `channels` and size are those of the first, where not said otherwise."""
    first = decode(source.read(source.names[0]), source.names[0], allow_lossy=allow_lossy)
    found, height, width = first.shape
    fingerprint = source.fingerprint if resize is None else _sha(f"{source.fingerprint} reduced {resize}")
    images = Encoded(source.names, source.read, fingerprint, channels or found, (height, width), resize=resize, allow_lossy=allow_lossy)
    count, channels, height, width = images.shape
    if (total := count * channels * height * width) > MOST_BYTES:
        raise GenbenchError(f"{source.path}: {count} images of {height}x{width} are {total >> 30} GiB of pixels")
    return images


def encoded_files(files: Sequence[Path], channels: int, shape: tuple[int, int], crop: int) -> Encoded:
    """Files at known paths, of known (H, W), seen through their centre crop×crop; fingerprinted by name, size and time."""
    try:
        stats = [file.stat() for file in files]
    except OSError as error:
        raise GenbenchError(f"image {error.filename} cannot be read: {error.strerror}") from None
    marks = "\n".join(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in zip(files, stats, strict=True))
    return Encoded([str(file) for file in files], lambda name: _read_file(Path(name)), _sha(f"{crop} {marks}"), channels, shape, crop)


def decode(data: bytes, name: str, *, allow_lossy: bool = True) -> NDArray[np.uint8]:
    """One encoded image -> (C, H, W) uint8, C 1 or 3. Raises GenbenchError for anything not exactly 8-bit grey or RGB."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_image(image, data, name, allow_lossy)
            image.load()
            pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    except GenbenchError:
        raise
    except Exception as error:  # PIL raises whatever its decoders do: OSError, SyntaxError, struct.error, zlib.error, a bomb's warning, …
        why = " ".join(str(error).split()) or type(error).__name__
        if "cannot identify image file" in why:
            why = "no PNG, JPEG, BMP or WebP image, whatever its name says"
        raise GenbenchError(f"image {name} cannot be decoded: {why}") from None
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        if (pixels[..., -1] != 255).any():
            raise GenbenchError(f"image {name} is transparent; flatten it onto a background first")
        pixels = pixels[..., :-1]
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1) if pixels.shape[2] == 3 else pixels[None, ..., 0]


def _check_image(image: Image, data: bytes, name: str, allow_lossy: bool) -> None:
    kind = image.format
    if kind not in _FORMATS:
        raise GenbenchError(f"image {name} is {kind}; use PNG (or JPEG, BMP, WebP)")
    if image.width * image.height > _MOST_PIXELS:
        raise GenbenchError(f"image {name} claims {image.width}x{image.height} pixels: refused as a decompression bomb")
    if not allow_lossy and (kind == "JPEG" or (kind == "WEBP" and b"VP8L" not in data[:64])):
        raise GenbenchError(f"image {name} is lossy {kind}: compression moves every score; write PNG or npz, or --allow-lossy")
    if getattr(image, "n_frames", 1) > 1:
        raise GenbenchError(f"image {name} is animated ({getattr(image, 'n_frames', 0)} frames)")
    # Pillow cuts 16-bit RGB down to 8 without a word: byte 24 of a PNG is its bit depth
    if (kind == "PNG" and data[24] > 8) or image.mode.startswith(("I", "F")):
        raise GenbenchError(f"image {name} has more than 8 bits a channel; quantise it to 8 first")
    if image.mode not in ("1", "L", "RGB", "LA", "RGBA"):
        what = {"P": "a palette image", "PA": "a palette image", "CMYK": "CMYK"}.get(image.mode, f"of mode {image.mode}")
        raise GenbenchError(f"image {name} is {what}; convert it to 8-bit grey or RGB")
    if "transparency" in image.info:
        raise GenbenchError(f"image {name} is transparent; flatten it onto a background first")


def with_channels(images: NDArray[np.uint8], channels: int | None, where: str) -> NDArray[np.uint8]:
    """(N, C, H, W) -> (N, `channels`, H, W), only where nothing is lost or invented."""
    import numpy as np

    found = images.shape[1]
    if channels is None or found == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    if (images[:, 0] == images[:, 1]).all() and (images[:, 0] == images[:, 2]).all():
        return np.ascontiguousarray(images[:, :1])
    raise GenbenchError(f"{where} is in colour where {channels} grey channel is expected")


def reduced(images: NDArray[np.uint8], size: int, where: str) -> NDArray[np.uint8]:
    """(N, C, H, W) of any size -> (N, C, size, size): area reduction of the centre square, as datasets are reduced; never enlarged."""
    from genbench.datasets.prepare import resize_images

    height, width = images.shape[2:]
    if min(height, width) < size:
        raise GenbenchError(f"{where} is {height}x{width}: images are reduced to {size}x{size}, never enlarged")
    return resize_images(images, size, "area")


def _open_folder(path: Path) -> Source:
    names, marks = [], []
    for folder, subfolders, files in os.walk(path, onerror=_raise):
        subfolders[:] = sorted(name for name in subfolders if not _hidden(name))
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not _hidden(name):
                file = Path(folder, name)
                stat = file.stat()
                if not S_ISREG(stat.st_mode):  # to read a pipe is to wait for ever
                    raise GenbenchError(f"image {file} is no regular file")
                names.append(file.relative_to(path).as_posix())
                marks.append(f"{names[-1]} {stat.st_size} {stat.st_mtime_ns}")

    table = path / "dataset.json"
    content = _parse_table(table.read_bytes(), str(table)) if table.is_file() else None
    fingerprint = _sha("\n".join([str(path.absolute()), *sorted(marks)]))
    return Source(path, tuple(sorted(names)), lambda name: _read_file(path / name), fingerprint, content)


def _open_zip(path: Path) -> Source:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise GenbenchError(f"{path} is neither a folder nor a zip, npz or npy that can be read: {error}") from None
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.is_dir():
            continue
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if ".." in parts or info.filename.startswith(("/", "\\")) or ":" in parts[0]:
            raise GenbenchError(f"{path}: member {info.filename!r} lies outside the archive")
        if any(_hidden(part) for part in parts):
            continue
        if info.filename in members:
            raise GenbenchError(f"{path}: member {info.filename!r} is there twice")
        members[info.filename] = info
    names = sorted(name for name in members if PurePosixPath(name).suffix.lower() in SUFFIXES)
    marks = "\n".join(f"{name} {members[name].file_size} {members[name].CRC}" for name in sorted(members))

    def read(name: str) -> bytes:
        info = members[name]
        if info.flag_bits & 1:
            raise GenbenchError(f"{path}: member {name!r} is encrypted")
        if info.file_size > min(_MOST_FILE_BYTES, MOST_RATIO * max(info.compress_size, 1)):
            raise GenbenchError(f"{path}: member {name!r} claims {info.file_size} bytes: refused as a decompression bomb")
        try:
            return archive.read(info)
        except Exception as error:  # BadZipFile, zlib.error, NotImplementedError, OSError, EOFError
            raise GenbenchError(f"{path}: member {name!r} is damaged: {error}") from None

    tables = [name for name in members if PurePosixPath(name).name == "dataset.json"]
    table = min(tables, key=lambda name: name.count("/")) if tables else None
    return Source(path, tuple(names), read, _sha(marks), _parse_table(read(table), f"{path}: {table}") if table else None)


def _parse_table(data: bytes, where: str) -> Any:
    try:
        table = json.loads(data)
    except ValueError as error:
        raise GenbenchError(f"{where} is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise GenbenchError(f'{where} must be an object with "labels"')
    return table


def _labels_of_table(source: Source) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    import numpy as np

    pairs = source.table.get("labels")
    if pairs is None:
        return None, ()
    try:
        by_name = {str(name): label for name, label in pairs}
    except (TypeError, ValueError):
        raise GenbenchError(f'{source.path}: "labels" in dataset.json must be pairs of a file name and a class number') from None
    relative = ["/".join(parts) for parts in relative_names(source.names)]
    labels = [by_name.get(name, by_name.get(short)) for name, short in zip(source.names, relative, strict=True)]
    for name, label in zip(source.names, labels, strict=True):
        if type(label) is not int or label < 0:
            said = json.dumps(label)
            raise GenbenchError(f"{source.path}: dataset.json gives {name} the label {said}; class numbers from 0 are expected")
    classes = source.table.get("classes") or source.table.get("class_names") or ()
    count = max(len(classes), 1 + max(label for label in by_name.values() if type(label) is int))
    names = tuple(str(name) for name in classes) if len(classes) == count else tuple(str(i) for i in range(count))
    return np.array(labels, dtype=np.int64), names


def _read_file(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MOST_FILE_BYTES:
            raise GenbenchError(f"image {file} is {file.stat().st_size >> 20} MiB large")
        return file.read_bytes()
    except OSError as error:
        raise GenbenchError(f"image {file} cannot be read: {error.strerror or error}") from None


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _raise(error: OSError) -> None:
    raise error
