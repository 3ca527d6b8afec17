import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genbench.datasets import DatasetSpec, ImageData, Split
from genbench.datasets.prepare import digest
from genbench.errors import GenbenchError
from genbench.extractors import recipe
from genbench.extractors.cnn import load_cnn, read_header
from genbench.extractors.recipe import DRAWINGS, PHOTOS, accuracy, augment, augment_photos, train_cnn

SMALL = replace(DRAWINGS, batch_size=32)


def bars(n, seed, channels=1):
    """Images of one bright row (class 0) or one bright column (class 1) on a noisy ground."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (n, channels, 8, 8), dtype=np.uint8)
    labels = rng.integers(0, 2, n)
    for image, label, at in zip(images, labels, rng.integers(1, 7, n), strict=True):
        image[0, at if label == 0 else slice(None), slice(None) if label == 0 else at] = 220
    return Split(images, labels)


def data(num_classes=2, labelled=True, channels=1):
    splits = [bars(256, 0, channels), bars(40, 1, channels), bars(101, 2, channels)]
    if not labelled:
        splits = [Split(split.images, None) for split in splits]
    return ImageData("bars", DatasetSpec("bars", lambda root: {}, channels, 8, num_classes), 8, *splits, "digest", "")


def test_it_learns_writes_what_it_says_and_does_so_again_bit_for_bit(tmp_path):
    made = data()
    reports = []
    said = train_cnn(made, tmp_path / "a.safetensors", recipe=SMALL, epochs=10, report=lambda *values: reports.append(values))
    assert said["test_accuracy"] > 0.95
    assert said == json.loads((tmp_path / "a.json").read_text())
    assert said["train_digest"] == digest([made.train])
    assert [epoch for epoch, _, _ in reports] == list(range(1, 11))
    extractor = load_cnn(tmp_path / "a.safetensors", torch.device("cpu"))
    assert accuracy(extractor, made.test) == said["test_accuracy"]
    assert extractor.digest == said["digest"]
    again = train_cnn(made, tmp_path / "b.safetensors", recipe=SMALL, epochs=10)
    other = train_cnn(made, tmp_path / "c.safetensors", recipe=SMALL, epochs=10, seed=1)
    assert again["digest"] == said["digest"] != other["digest"]


def test_images_in_colour_get_the_recipe_and_the_network_for_photographs(tmp_path):
    made = data(channels=3)
    said = train_cnn(made, tmp_path / "a.safetensors", recipe=replace(PHOTOS, batch_size=32), epochs=6)
    assert said["test_accuracy"] > 0.9
    assert read_header(tmp_path / "a.safetensors")["photos"] is True
    kernels = [value for value in load_file(tmp_path / "a.safetensors").values() if value.ndim > 1]
    assert {value.dtype for value in kernels} == {torch.float16}
    features, _ = load_cnn(tmp_path / "a.safetensors", torch.device("cpu"))(torch.from_numpy(made.train.images))
    assert features.shape == (256, 256)
    assert features.double().var(dim=0).mean().item() == pytest.approx(1, abs=1e-4)
    assert train_cnn(made, tmp_path / "b.safetensors", epochs=1)["recipe"]["photos"] is True
    assert train_cnn(data(), tmp_path / "c.safetensors", epochs=1)["recipe"]["photos"] is False


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


def test_what_weights_and_sidecar_cannot_be_written_to_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "_fit", lambda *values: pytest.fail("it trains"))
    (tmp_path / "there.json").mkdir()
    with pytest.raises(GenbenchError, match=r"is a folder; it takes a file, like .*bars.safetensors$"):
        train_cnn(data(), tmp_path)
    for name in ("w.json", "there.safetensors"):
        with pytest.raises(GenbenchError, match=r"goes to .*\.json; choose another name, like bars.safetensors$"):
            train_cnn(data(), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]


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


def ramp(count=200, size=16):
    """(N, 1, 16, 16): every pixel of an image has a value of its own."""
    return (torch.arange(size * size, dtype=torch.float32) / (size * size) + 1).reshape(1, 1, size, size).repeat(count, 1, 1, 1)


def test_photographs_are_shifted_by_whole_pixels_or_mirrored_and_nothing_else():
    x = ramp()
    torch.testing.assert_close(augment_photos(x[:1], torch.Generator().manual_seed(1), 0)[0, 0].sort(dim=1).values, x[0, 0])
    seen = set()
    padded = torch.nn.functional.pad(x[:1], (2, 2, 2, 2), mode="reflect")[0, 0]
    views = {(dy, dx, m): padded[dy : dy + 16, dx : dx + 16] for dy in range(5) for dx in range(5) for m in (False, True)}
    for image in augment_photos(x, torch.Generator().manual_seed(0), 0.125):
        found = [key for key, view in views.items() if torch.equal(image[0], view.flip(1) if key[2] else view)]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) > 45  # of 5 · 5 · 2, in 200 draws
