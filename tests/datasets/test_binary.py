"""Black and white drawings of grey images: probabilities, reproducibility, and what a training batch is drawn from."""

import numpy as np
import pytest
import torch

from genbench.budget import Budget, Meter
from genbench.datasets import DatasetSpec, Split
from genbench.datasets.binary import SEED, binarised, load_binary
from genbench.datasets.prepare import prepare
from genbench.datasets.resident import TrainingBatches

LEVELS = np.array([0, 64, 128, 255], np.uint8)


def grey(n: int) -> np.ndarray:
    """(n, 1, 2, 2): the four levels in every image."""
    return np.broadcast_to(LEVELS.reshape(1, 1, 2, 2), (n, 1, 2, 2)).copy()


def load(root: object) -> dict[str, Split]:
    return {"train": Split(grey(6000), np.arange(6000) % 3), "test": Split(grey(5000), None)}


def spec(dynamic: bool) -> DatasetSpec:
    return DatasetSpec("levels", load, 1, 2, 3, holdout=1000, dynamic=dynamic)


def test_white_is_as_frequent_as_the_level_says_and_always_in_the_same_places():
    images = binarised(grey(20_000), 3)
    assert set(np.unique(images)) == {0, 255}
    np.testing.assert_allclose(images.mean(0).ravel() / 255, LEVELS / 255, atol=0.012)
    assert (images[:, 0, 0, 0] == 0).all()
    assert (images[:, 0, 1, 1] == 255).all()
    assert np.array_equal(images[:5000], binarised(grey(5000), 3))
    assert not np.array_equal(images, binarised(grey(20_000), 4))


def test_a_loaders_splits_are_drawn_once_each_from_its_own_seed():
    found = load_binary(None, load)
    assert np.array_equal(found["test"].images, binarised(grey(5000), SEED))
    assert np.array_equal(found["train"].images, binarised(grey(6000), SEED + 1))
    assert np.array_equal(found["train"].labels, np.arange(6000) % 3)


def test_a_dynamic_dataset_keeps_its_levels_for_training_and_shows_drawings_elsewhere(tmp_path):
    data = prepare(spec(dynamic=True), 2, tmp_path)
    assert len(data.grey) == len(data.train) == 5000
    assert set(np.unique(data.grey.images)) == set(LEVELS)
    for split in (data.train, data.holdout, data.test):
        assert set(np.unique(split.images)) == {0, 255}
    assert data.digest != prepare(DatasetSpec("still", load, 1, 2, 3, holdout=1000), 2, tmp_path).digest


@pytest.mark.parametrize("flip", [False, True])
def test_training_batches_are_drawn_anew_and_repeat_after_a_resume(tmp_path, flip):
    data = prepare(spec(dynamic=True), 2, tmp_path)

    def batches(drawn: int = 0) -> TrainingBatches:
        made = TrainingBatches(
            data, batch_size=500, seed=1, meter=Meter(Budget.parse("9steps")), device=torch.device("cpu"), flip=flip
        )  # fmt: skip
        made.drawn = drawn
        return made

    first = batches()
    images = [next(first).images for _ in range(20)]
    assert set(torch.cat(images).unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(next(batches(7)).images, images[7])
    if not flip:
        white = (torch.cat(images).mean(0).flatten() + 1) / 2
        torch.testing.assert_close(white, torch.from_numpy(LEVELS / 255).float(), atol=0.02, rtol=0)
    # the second epoch shows the same images in other drawings
    assert sum(float(batch.sum()) for batch in images[:10]) != sum(float(batch.sum()) for batch in images[10:])
