"""MNIST, CIFAR, SVHN, STL-10, CelebA through torchvision's own dataset classes: download, checksums and formats are theirs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genbench.datasets import Split
from genbench.errors import GenbenchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OFFLINE = "GENBENCH_OFFLINE"
"""Environment variable: set to anything but 0, nothing is ever downloaded."""


def load_mnist_like(root: Path, name: str) -> dict[str, Split]:
    """`MNIST`, `FashionMNIST` or `KMNIST`: 60 000 and 10 000 grey 28×28 images."""
    train, test = (_open(name, root, {"train": train}) for train in (True, False))
    for file, md5 in _SOURCES[name].md5.items():
        with open(Path(train.raw_folder, file), "rb") as raw:
            if hashlib.file_digest(raw, "md5").hexdigest() != md5:
                raise _damaged(name, root, f"the checksum of {file} is not MNIST's")
    return {
        "train": _checked(name, root, "train", train.data.numpy()[:, None], train.targets),
        "test": _checked(name, root, "test", test.data.numpy()[:, None], test.targets),
    }


def load_cifar(root: Path, name: str) -> dict[str, Split]:
    """`CIFAR10` or `CIFAR100`: 50 000 and 10 000 colour 32×32 images."""
    train, test = (_open(name, root, {"train": train}) for train in (True, False))
    return {
        "train": _checked(name, root, "train", train.data.transpose(0, 3, 1, 2), train.targets),
        "test": _checked(name, root, "test", test.data.transpose(0, 3, 1, 2), test.targets),
    }


def load_svhn(root: Path) -> dict[str, Split]:
    """Street View House Numbers, cropped digits: 73 257 and 26 032 colour 32×32 images (without the extra set)."""
    train, test = (_open("SVHN", root, {"split": split}) for split in ("train", "test"))
    return {
        "train": _checked("SVHN", root, "train", train.data, train.labels),
        "test": _checked("SVHN", root, "test", test.data, test.labels),
    }


def load_stl10(root: Path) -> dict[str, Split]:
    """STL-10: train is the 5 000 labelled and 100 000 unlabelled images, hence without labels; 8 000 in test; 96×96."""
    train, test = (_open("STL10", root, {"split": split}) for split in ("train+unlabeled", "test"))
    return {
        "train": _checked("STL10", root, "train", train.data, None),
        "test": _checked("STL10", root, "test", test.data, None),
    }


def load_celeba(root: Path) -> dict[str, Split]:
    """CelebA, aligned: 162 770 train and 19 962 test faces, each centre-cropped from 178×218 to 178×178, decoded when indexed."""
    from genbench.datasets.encoded import encoded_files

    found = {}
    for split in ("train", "test"):
        dataset = _open("CelebA", root, {"split": split})
        folder = Path(dataset.root) / dataset.base_folder / "img_align_celeba"
        files = [folder / name for name in dataset.filename]
        if len(files) != getattr(_SOURCES["CelebA"], split):
            raise _damaged("CelebA", root, f"its lists name {len(files)} {split} images")
        images: Any = encoded_files(files, channels=3, shape=(218, 178), crop=178)
        found[split] = Split(images, None)
    return found


def _open(name: str, root: Path, arguments: Mapping[str, Any]) -> Any:
    """torchvision's dataset object, downloaded where it is not found. Raises GenbenchError that says how to get the data."""
    from genbench.torchvision_shim import import_torchvision

    import_torchvision()
    from torchvision import datasets

    make: Callable[..., Any] = getattr(datasets, name)
    try:
        return make(str(root), download=False, **arguments)
    except RuntimeError as error:
        if "not found" not in str(error).lower():
            raise _damaged(name, root, error) from None
    except (OSError, ValueError, AssertionError, EOFError, KeyError, TypeError, IndexError) as error:
        raise _damaged(name, root, error) from None
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise _missing(name, root, f"{OFFLINE} is set")
    try:
        root.mkdir(parents=True, exist_ok=True)
        # torchvision prints its progress: stdout belongs to --json
        with contextlib.redirect_stdout(sys.stderr):
            return make(str(root), download=True, **arguments)
    except Exception as error:  # whatever the network, the disk or a half-finished archive can raise
        raise _missing(name, root, f"the download failed: {_first_line(error)}") from None


def _checked(name: str, root: Path, split: Literal["train", "test"], images: NDArray[Any], labels: Any) -> Split:
    """The arrays as a split, where they are what this dataset must be."""
    import numpy as np

    count, classes = getattr(_SOURCES[name], split), _SOURCES[name].classes
    pixels: NDArray[np.uint8] = np.asarray(images)
    if pixels.dtype != np.uint8 or len(pixels) != count:
        raise _damaged(name, root, f"{len(pixels)} {pixels.dtype} images where {count} of uint8 are expected")
    if labels is None:
        return Split(pixels, None)
    named: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
    if named.shape != (count,) or named.min() < 0 or named.max() >= classes:
        raise _damaged(name, root, f"its labels are not {count} numbers from 0 to {classes - 1}")
    return Split(pixels, named)


def _missing(name: str, root: Path, why: str) -> GenbenchError:
    files, url = _SOURCES[name].files, _SOURCES[name].url
    how = f"put {files} there (from {url}), or point GENBENCH_DATA at a folder that has it"
    return GenbenchError(f"dataset {name} is not under {root}, or not whole ({why}); {how}")


def _damaged(name: str, root: Path, why: object) -> GenbenchError:
    where = f"the files under {root} ({_SOURCES[name].files})"
    return GenbenchError(f"dataset {name}: {where} are damaged: {_first_line(why)}; delete and fetch them again")


def _first_line(error: object) -> str:
    if isinstance(error, BaseException) and not str(error):
        return type(error).__name__
    return " ".join(str(error).split())[:200] or "unreadable"


@dataclass(frozen=True)
class _Source:
    """What torchvision's class looks for under the root, where that comes from, and what must be in it."""

    files: str
    url: str
    train: int
    test: int
    classes: int = 0
    md5: Mapping[str, str] = field(default_factory=dict)
    """Of extracted files that torchvision does not check itself."""


_SOURCES = {
    "MNIST": _Source(
        "MNIST/raw/*-ubyte", "https://ossci-datasets.s3.amazonaws.com/mnist/", 60_000, 10_000, 10,
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb", "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea", "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "FashionMNIST": _Source(
        "FashionMNIST/raw/*-ubyte", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", 60_000, 10_000, 10
    ),
    "KMNIST": _Source("KMNIST/raw/*-ubyte", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/", 60_000, 10_000, 10),
    "CIFAR10": _Source("cifar-10-batches-py/", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", 50_000, 10_000, 10),
    "CIFAR100": _Source("cifar-100-python/", "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", 50_000, 10_000, 100),
    "SVHN": _Source("train_32x32.mat and test_32x32.mat", "http://ufldl.stanford.edu/housenumbers/", 73_257, 26_032, 10),
    "STL10": _Source("stl10_binary/", "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", 105_000, 8_000),
    "CelebA": _Source(
        "celeba/ with img_align_celeba/, list_eval_partition.txt and the other four lists",
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html", 162_770, 19_962,
    ),
}  # fmt: skip
