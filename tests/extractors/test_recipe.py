import json

import numpy as np
import pytest
import torch

from genbench.datasets import DatasetSpec, ImageData, Split
from genbench.datasets.prepare import digest
from genbench.errors import GenbenchError
from genbench.extractors.cnn import load_cnn
from genbench.extractors.recipe import accuracy, augment, train_cnn


def bars(n, seed):
    """Images of one bright row (class 0) or one bright column (class 1) on a noisy ground."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (n, 1, 8, 8), dtype=np.uint8)
    labels = rng.integers(0, 2, n)
    for image, label, at in zip(images, labels, rng.integers(1, 7, n), strict=True):
        image[0, at if label == 0 else slice(None), slice(None) if label == 0 else at] = 220
    return Split(images, labels)


def data(num_classes=2, labelled=True):
    splits = [bars(256, 0), bars(40, 1), bars(101, 2)]
    if not labelled:
        splits = [Split(split.images, None) for split in splits]
    return ImageData("bars", DatasetSpec("bars", lambda root: {}, 1, 8, num_classes), 8, *splits, "digest", "")


def test_it_learns_writes_what_it_says_and_does_so_again_bit_for_bit(tmp_path):
    made = data()
    reports = []
    said = train_cnn(made, tmp_path / "a.safetensors", epochs=10, batch_size=32, report=lambda *values: reports.append(values))
    assert said["test_accuracy"] > 0.95
    assert said == json.loads((tmp_path / "a.json").read_text())
    assert said["train_digest"] == digest([made.train])
    assert [epoch for epoch, _, _ in reports] == list(range(1, 11))
    extractor = load_cnn(tmp_path / "a.safetensors", torch.device("cpu"))
    assert accuracy(extractor, made.test) == said["test_accuracy"]
    assert extractor.digest == said["digest"]
    again = train_cnn(made, tmp_path / "b.safetensors", epochs=10, batch_size=32)
    other = train_cnn(made, tmp_path / "c.safetensors", epochs=10, batch_size=32, seed=1)
    assert again["digest"] == said["digest"] != other["digest"]


def test_training_leaves_the_callers_random_stream_alone(tmp_path):
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    train_cnn(data(), tmp_path / "a.safetensors", epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_data_without_labels_and_folders_that_are_not_there_are_refused_before_training(tmp_path):
    with pytest.raises(GenbenchError, match="'bars' has no labels"):
        train_cnn(data(labelled=False, num_classes=0), tmp_path / "a.safetensors")
    with pytest.raises(GenbenchError, match="does not exist"):
        train_cnn(data(), tmp_path / "nowhere" / "a.safetensors")


def test_augmentation_with_nothing_asked_changes_nothing():
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(augment(x, torch.Generator(), 0, 0, 0, 0), x, atol=1e-5, rtol=0)


def test_augmentation_moves_by_the_share_asked_and_fills_with_black():
    x = torch.full((64, 1, 16, 16), -1.0)
    x[:, :, 8, 8] = 1.0
    moved = augment(x, torch.Generator().manual_seed(0), 0, 0, 0.25, 0) + 1
    rows = (moved.sum(dim=(1, 3)) * torch.arange(16)).sum(1) / moved.sum(dim=(1, 2, 3))
    assert 3.9 < rows.min() < 5  # a quarter of 16 pixels, up and down
    assert 11 < rows.max() < 12.1
    torch.testing.assert_close(moved.sum(dim=(1, 2, 3)), torch.full((64,), 2.0))
    turned = augment(x, torch.Generator().manual_seed(0), 45, 0, 0, 0.0) + 1
    assert turned[:, :, :4].abs().max() < 1e-5


def test_augmentation_adds_noise_of_at_most_the_deviation_asked():
    x = torch.zeros(200, 1, 16, 16)
    deviations = augment(x, torch.Generator().manual_seed(0), 0, 0, 0, 0.2).std(dim=(1, 2, 3))
    assert 0.18 < deviations.max() < 0.23
    assert deviations.min() < 0.02
