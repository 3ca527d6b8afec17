import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from genbench.datasets import DatasetSpec, Split
from genbench.datasets import prepare as module
from genbench.datasets.builtin import builtin_datasets
from genbench.datasets.prepare import carve, digest, prepare, resize_images, resolve
from genbench.errors import GenbenchError

RNG = np.random.default_rng(3)


def spec(resize="exact", native=8, channels=1, n=50, holdout=10, name="made", height=None):
    images = RNG.integers(0, 256, (n + 7, channels, height or native, native), dtype=np.uint8)
    labels = np.arange(n + 7, dtype=np.int64) % 10
    parts = {"train": Split(images[:n], labels[:n]), "test": Split(images[n:], labels[n:])}
    return DatasetSpec(name, lambda root: parts, channels, native, 10, holdout=holdout, resize=resize)


def test_digits_have_the_splits_of_the_protocol():
    data = prepare("digits", 8)
    assert (len(data.train), len(data.holdout), len(data.test)) == (1197, 300, 300)
    assert data.digest == "8818c9d5a52b" + data.digest[12:]  # golden: the split of every published digits score
    assert (data.channels, data.num_classes, data.resize) == (1, 10, "")
    seen = [{image.tobytes() for image in split.images} for split in (data.train, data.holdout, data.test)]
    assert len(seen[0] & seen[1]) == len(seen[0] & seen[2]) == len(seen[1] & seen[2]) == 0
    assert min(np.bincount(data.holdout.labels)) > 15
    assert prepare("digits", 8) is data


def test_holdout_is_carved_from_train_alone_and_labels_stay_with_their_images():
    made = spec()
    source = made.load(None)
    data = prepare(made, 8)
    stay, held = carve(source["train"], 10)
    assert sorted([*stay, *held]) == list(range(50))
    np.testing.assert_array_equal(data.train.images, source["train"].images[stay])
    np.testing.assert_array_equal(data.holdout.labels, source["train"].labels[held])
    np.testing.assert_array_equal(data.test.images, source["test"].images)
    assert held.tolist() != list(range(10))
    assert carve(source["train"], 10, seed=1)[1].tolist() != held.tolist()


def test_padding_puts_zeros_around_the_unchanged_image():
    made = spec("pad", native=28, n=12, holdout=2)
    data = prepare(made, 32)
    assert data.resize == "zero-padded 28 → 32"
    np.testing.assert_array_equal(data.test.images[:, :, 2:30, 2:30], made.load(None)["test"].images)
    assert data.test.images.sum() == made.load(None)["test"].images.sum()
    assert data.test.images.shape == (7, 1, 32, 32)


def test_area_reduction_is_the_rounded_mean_of_whole_blocks():
    images = RNG.integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    means = images.reshape(5, 3, 4, 2, 4, 2).mean(axis=(3, 5))
    reduced = resize_images(images, 4, "area")
    np.testing.assert_array_equal(reduced, np.floor(means + 0.5))
    by_pillow = np.stack([np.asarray(Image.fromarray(image.transpose(1, 2, 0)).reduce(2)).transpose(2, 0, 1) for image in images])
    np.testing.assert_array_equal(reduced, by_pillow)
    assert resize_images(np.full((1, 1, 178, 178), 77, np.uint8), 64, "area").tolist() == np.full((1, 1, 64, 64), 77).tolist()


def test_area_reduction_shares_pixels_that_lie_across_an_edge():
    row = np.array([[[[30, 60, 90]] * 3]], np.uint8)
    # two pixels of width 1.5: (30 + 60 / 2) / 1.5 and (60 / 2 + 90) / 1.5
    assert resize_images(row, 2, "area").tolist() == [[[[40, 80], [40, 80]]]]
    large = RNG.integers(0, 256, (1, 1, 300, 300), dtype=np.uint8)
    blocks = large.reshape(1, 1, 100, 3, 100, 3).astype(int).sum(axis=(3, 5))
    np.testing.assert_array_equal(resize_images(large, 100, "area"), (2 * blocks + 9) // 18)


def test_area_reduction_crops_the_centre_square_first():
    images = np.zeros((1, 1, 12, 8), np.uint8)
    images[:, :, 2:10] = 100  # what the centre 8 rows hold
    assert (resize_images(images, 4, "area") == 100).all()
    assert (resize_images(images, 8, "area") == 100).all()
    data = prepare(spec("area", native=8, channels=3, height=12), 4)
    assert data.test.images.shape == (7, 3, 4, 4)
    assert data.resize == "area-reduced 8 → 4"


@pytest.mark.parametrize(
    ("rule", "native", "size", "says"),
    [("exact", 8, 16, "8 only"), ("pad", 28, 64, "29 to 35"), ("pad", 28, 14, "zero padding"), ("area", 32, 64, "smaller")],
)
def test_a_size_that_cannot_be_had_names_those_that_can(rule, native, size, says):
    with pytest.raises(GenbenchError, match=f"cannot be had at {size}x{size}.*{says}"):
        prepare(spec(rule, native=native), size)


def test_the_digest_covers_pixels_labels_and_shape():
    images = RNG.integers(0, 256, (4, 1, 2, 6), dtype=np.uint8)
    labels = np.arange(4)
    base = digest([Split(images, labels)])
    assert base == hashlib.sha256(b"(4, 1, 2, 6) labels;" + images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    other = images.copy()
    other[3, 0, 1, 5] ^= 1
    different = [Split(other, labels), Split(images, labels[::-1]), Split(images, None), Split(images.reshape(4, 1, 6, 2), labels)]
    assert len({base, *(digest([split]) for split in different)}) == 5


def test_unknown_names_get_a_suggestion():
    with pytest.raises(GenbenchError, match="unknown dataset 'digts'; did you mean 'digits'"):
        prepare("digts", 8)
    assert resolve("made", [spec()]).name == "made"
    with pytest.raises(GenbenchError, match="unknown dataset 'digits'"):
        resolve("digits", [spec()])


def test_a_dataset_that_is_not_what_its_spec_says_is_refused():
    good = spec()
    wrong = DatasetSpec("wrong", good.load, 3, 8)
    with pytest.raises(GenbenchError, match=r"train is \(50, 1, 8, 8\), not \(N, 3, 8, 8\)"):
        prepare(wrong, 8)
    with pytest.raises(GenbenchError, match="too few"):
        prepare(spec(holdout=50), 8)


def test_a_changed_spec_of_the_same_name_is_not_served_from_the_cache():
    first, second = prepare(spec(), 8), prepare(spec(), 8)
    assert first.digest != second.digest


def test_listing_datasets_imports_nothing_heavy():
    code = (
        "import sys; from genbench.datasets.builtin import builtin_datasets; import genbench.datasets.prepare; builtin_datasets();"
        "print([m for m in ('torch', 'numpy', 'scipy', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_built_in_datasets_are_those_of_the_documentation():
    found = {spec.name: (spec.channels, spec.native_size, spec.num_classes, spec.holdout) for spec in builtin_datasets()}
    assert found == {
        "digits": (1, 8, 10, 300), "mnist": (1, 28, 10, 10_000), "fashion-mnist": (1, 28, 10, 10_000), "kmnist": (1, 28, 10, 10_000),
        "cifar10": (3, 32, 10, 5_000), "cifar100": (3, 32, 100, 5_000), "svhn": (3, 32, 10, 5_000), "stl10": (3, 96, 0, 5_000),
        "celeba": (3, 178, 0, 10_000), "mnist-binary": (1, 28, 10, 10_000), "mnist-dynamic": (1, 28, 10, 10_000),
    }  # fmt: skip
    assert module.HOLDOUT_SEED == 2014
