"""torchvision's formats, written small: each loader reads what its dataset class would find under the data root."""

import dataclasses
import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from genbench.datasets import prepare as module
from genbench.datasets import torchvision as loaders
from genbench.datasets.builtin import builtin_datasets
from genbench.datasets.prepare import prepare
from genbench.errors import GenbenchError
from genbench.torchvision_shim import import_torchvision

RNG = np.random.default_rng(8)
SPECS = {spec.name: spec for spec in builtin_datasets()}


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv(loaders.OFFLINE, "1")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_kept", {})


@pytest.fixture
def counts(monkeypatch):
    """The files of a test hold fewer images than the real ones."""

    def set_counts(name, train, test):
        small = dataclasses.replace(loaders._SOURCES[name], train=train, test=test, md5={})
        monkeypatch.setitem(loaders._SOURCES, name, small)

    return set_counts


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


def write_mnist_like(root, folder, train=12, test=5):
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = RNG.integers(0, 10, count).astype(np.uint8)
        write_idx(root / folder / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(root / folder / "raw" / f"{part}-labels-idx1-ubyte", labels)
        arrays[part] = images, labels
    return arrays


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_mnist_and_its_kin(tmp_path, counts, name, folder):
    arrays = write_mnist_like(tmp_path, folder)
    counts(folder, 12, 5)
    parts = SPECS[name].load(tmp_path)
    for part, written in (("train", "train"), ("test", "t10k")):
        np.testing.assert_array_equal(parts[part].images[:, 0], arrays[written][0])
        np.testing.assert_array_equal(parts[part].labels, arrays[written][1])
    assert parts["train"].labels.dtype == np.int64


def test_mnist_of_another_length_or_truncated_or_not_mnist_is_refused(tmp_path, counts):
    write_mnist_like(tmp_path, "KMNIST")
    with pytest.raises(GenbenchError, match="12 uint8 images where 60000 of uint8 are expected"):
        SPECS["kmnist"].load(tmp_path)
    counts("KMNIST", 12, 5)
    path = tmp_path / "KMNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(GenbenchError, match=r"dataset KMNIST: .* are damaged") as caught:
        SPECS["kmnist"].load(tmp_path)
    assert "\n" not in str(caught.value)
    write_mnist_like(tmp_path, "MNIST")
    with pytest.raises(GenbenchError, match="checksum of train-images-idx3-ubyte is not MNIST's"):
        SPECS["mnist"].load(tmp_path)


def test_labels_out_of_range_are_refused(tmp_path, counts):
    write_mnist_like(tmp_path, "KMNIST")
    counts("KMNIST", 12, 5)
    write_idx(tmp_path / "KMNIST" / "raw" / "train-labels-idx1-ubyte", np.full(12, 10, np.uint8))
    with pytest.raises(GenbenchError, match="labels are not 12 numbers from 0 to 9"):
        SPECS["kmnist"].load(tmp_path)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar(tmp_path, counts, monkeypatch, name):
    import_torchvision()
    from torchvision import datasets

    cls = getattr(datasets, name)
    folder = tmp_path / cls.base_folder
    folder.mkdir()
    key = "labels" if name == "CIFAR10" else "fine_labels"
    written = {}
    for files in ("train_list", "test_list"):
        found = []
        for file, _ in getattr(cls, files):
            pixels = RNG.integers(0, 256, (4, 3072), dtype=np.uint8)
            labels = RNG.integers(0, 10, 4).tolist()
            (folder / file).write_bytes(pickle.dumps({"data": pixels, key: labels}))
            found.append([file, md5(folder / file)])
            written.setdefault(files, []).append((pixels.reshape(4, 3, 32, 32), labels))
        monkeypatch.setattr(cls, files, found)
    names = "label_names" if name == "CIFAR10" else "fine_label_names"
    (folder / cls.meta["filename"]).write_bytes(pickle.dumps({names: [str(i) for i in range(10)]}))
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(folder / cls.meta["filename"])})
    counts(name, 4 * len(cls.train_list), 4)
    parts = SPECS[name.lower()].load(tmp_path)
    np.testing.assert_array_equal(parts["train"].images, np.concatenate([pixels for pixels, _ in written["train_list"]]))
    assert parts["test"].labels.tolist() == written["test_list"][0][1]
    damaged = folder / cls.test_list[0][0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    with pytest.raises(GenbenchError, match=f"dataset {name} is not under .*, or not whole"):
        SPECS[name.lower()].load(tmp_path)


def test_svhn(tmp_path, counts, monkeypatch):
    import_torchvision()
    from torchvision.datasets import SVHN

    split_list, written = {}, {}
    for part, count in (("train", 6), ("test", 3)):
        pixels = RNG.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        path = tmp_path / f"{part}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels, "y": np.arange(count)[:, None] + 8})  # 10 stands for the digit 0
        written[part] = pixels
        split_list[part] = ["", path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", split_list)
    counts("SVHN", 6, 3)
    with pytest.raises(GenbenchError, match="labels are not"):  # 8 … 13
        SPECS["svhn"].load(tmp_path)
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": written["train"], "y": np.arange(6)[:, None] + 5})
    split_list["train"][2] = md5(tmp_path / "train_32x32.mat")
    parts = SPECS["svhn"].load(tmp_path)
    np.testing.assert_array_equal(parts["train"].images, written["train"].transpose(3, 2, 0, 1))
    assert parts["test"].labels.tolist() == [8, 9, 0]


def test_stl10_is_labelled_and_unlabelled_together_and_has_no_labels(tmp_path, counts, monkeypatch):
    import_torchvision()
    from torchvision.datasets import STL10

    folder = tmp_path / STL10.base_folder
    folder.mkdir()
    pixels = {}
    for part, count in (("train", 2), ("unlabeled", 3), ("test", 2)):
        pixels[part] = RNG.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        (folder / f"{part}_X.bin").write_bytes(pixels[part].transpose(0, 1, 3, 2).tobytes())  # column by column, as the source is
        (folder / f"{part}_y.bin").write_bytes(bytes(range(1, count + 1)))
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    (folder / "fold_indices.txt").write_text("")
    for files in ("train_list", "test_list"):
        monkeypatch.setattr(STL10, files, [[file, md5(folder / file)] for file, _ in getattr(STL10, files)])
    counts("STL10", 5, 2)
    parts = SPECS["stl10"].load(tmp_path)
    np.testing.assert_array_equal(parts["train"].images, np.concatenate([pixels["train"], pixels["unlabeled"]]))
    np.testing.assert_array_equal(parts["test"].images, pixels["test"])
    assert parts["train"].labels is None


def test_celeba_is_cropped_to_its_centre_square_and_reduced_to_64(tmp_path, counts, monkeypatch):
    import_torchvision()
    from torchvision.datasets import CelebA

    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, 31)]
    for i, name in enumerate(names):
        pixels = np.zeros((218, 178, 3), np.uint8)
        pixels[20:198] = 60 + 4 * i  # what the centre 178 rows hold
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name, "JPEG", quality=100, subsampling=0)
    parts = [0] * 24 + [1] * 2 + [2] * 4
    (folder / "list_eval_partition.txt").write_text("".join(f"{name} {part}\n" for name, part in zip(names, parts, strict=True)))
    (folder / "identity_CelebA.txt").write_text("".join(f"{name} 1\n" for name in names))
    for file, width in (("list_bbox_celeba.txt", 4), ("list_landmarks_align_celeba.txt", 10), ("list_attr_celeba.txt", 40)):
        header = f"{len(names)}\n{' '.join(f'k{i}' for i in range(width))}\n"
        (folder / file).write_text(header + "".join(f"{name} {' '.join(['1'] * width)}\n" for name in names))
    found = [(None, md5(folder / file), file) for file in sorted(path.name for path in folder.glob("*.txt"))]
    monkeypatch.setattr(CelebA, "file_list", [*found, (None, None, "img_align_celeba.zip")])
    counts("CelebA", 24, 4)
    data = prepare(dataclasses.replace(SPECS["celeba"], holdout=4), 64, tmp_path)
    assert data.train.images.shape == (20, 3, 64, 64)
    assert data.resize == "area-reduced 178 → 64"
    middle = data.test.images[:, :, 8:56].reshape(4, -1).astype(int)
    assert np.abs(middle - (60 + 4 * np.arange(26, 30))[:, None]).max() <= 2
    assert data.test.images[:, :, 1].min() > 60  # no black of the rows cropped away
    assert data.num_classes == 0
    (folder / "img_align_celeba" / names[27]).unlink()
    with pytest.raises(GenbenchError, match=r"000028\.jpg cannot be read: No such file"):
        prepare(dataclasses.replace(SPECS["celeba"], holdout=4), 32, tmp_path)
    (folder / "img_align_celeba" / names[27]).write_bytes((folder / "img_align_celeba" / names[26]).read_bytes())
    (folder / "img_align_celeba" / names[3]).write_bytes(b"\xff\xd8 cut short")
    with pytest.raises(GenbenchError, match=r"000004\.jpg cannot be decoded"):
        prepare(dataclasses.replace(SPECS["celeba"], holdout=4), 16, tmp_path)


@pytest.mark.parametrize("name", [name for name in SPECS if name != "digits"])
def test_missing_data_offline_says_which_folder_and_where_from(tmp_path, name):
    says = rf"is not under {tmp_path}/empty, or not whole \(GENBENCH_OFFLINE is set\); put .*http"
    with pytest.raises(GenbenchError, match=says) as caught:
        SPECS[name].load(tmp_path / "empty")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "empty").exists()


def test_a_download_that_fails_is_one_clear_line(tmp_path, monkeypatch, capsys):
    import_torchvision()
    from torchvision.datasets import mnist

    def fail(url, **_):
        print(f"Downloading {url}")
        raise RuntimeError("no\nnetwork")

    monkeypatch.delenv(loaders.OFFLINE)
    monkeypatch.setattr(mnist, "download_and_extract_archive", fail)
    with pytest.raises(GenbenchError, match=r"dataset KMNIST is not under .*the download failed: .*no network") as caught:
        SPECS["kmnist"].load(tmp_path)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def real_root():
    roots = [Path(path) for path in (os.environ.get("GENBENCH_DATA"), Path(__file__).parents[2].parent / "shared" / "data") if path]
    return next((root for root in roots if (root / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()), None)


@pytest.mark.skipif(real_root() is None, reason="MNIST is not here: neither under GENBENCH_DATA nor in ../shared/data")
def test_the_real_mnist_at_32(tmp_path):
    data = prepare("mnist", 32, real_root())
    assert (len(data.train), len(data.holdout), len(data.test)) == (50_000, 10_000, 10_000)
    assert data.digest == "e07801404973" + data.digest[12:]  # golden: the data of every published MNIST score
    assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert data.train.images[:, :, :2].max() == data.test.images[..., 30:].max() == 0
    labels = np.concatenate([data.train.labels, data.holdout.labels])
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
