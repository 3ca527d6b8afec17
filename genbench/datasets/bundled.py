"""Digits: the 1 797 real 8×8 handwritten digits that ship with the package, so that the main job needs no download."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from genbench.datasets import Split

_TEST = 300
_TEST_SEED = 1998
"""The year of the data's release: which images are the test set is fixed for good."""


def load_digits(root: Path) -> dict[str, Split]:
    """The 8×8 digits: 1 497 train and 300 test images, parted by a seeded permutation (the source has one part only)."""
    import numpy as np

    with resources.files("genbench.datasets").joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images = arrays["images"][:, None]
        labels = arrays["labels"].astype(np.int64)
    # RandomState's stream is frozen by numpy's policy; Generator's is not
    order = np.random.RandomState(_TEST_SEED).permutation(len(images))
    train, test = np.sort(order[_TEST:]), np.sort(order[:_TEST])
    return {"train": Split(images[train], labels[train]), "test": Split(images[test], labels[test])}
