from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from genbench import view
from genbench.datasets import Split
from genbench.datasets.prepare import prepare
from genbench.extractors.builtin import builtin_extractors
from genbench.metrics import fid
from genbench.reference import split_of
from genbench.score import Scorer
from genbench.view import SplitView, View

IMAGES = np.random.default_rng(0).integers(0, 256, (700, 1, 4, 4), dtype=np.uint8)
D = 2000


class Wide:
    """Yields batches of many features and few logits; counts the images it has seen."""

    def __init__(self) -> None:
        self.seen = 0
        self.filters = np.random.default_rng(1).standard_normal((16, D), dtype=np.float32)

    def __call__(self, images: np.ndarray) -> Iterator[view.Seen]:
        for start in range(0, len(images), 100):
            batch = images[start : start + 100].reshape(-1, 16).astype(np.float32)
            self.seen += len(batch)
            yield batch @ self.filters, batch[:, :3]


def test_images_are_seen_once_whatever_is_asked() -> None:
    see = Wide()
    seen = View(see, IMAGES, None)
    mean, covariance, n = seen.moments
    assert seen.features.shape == (700, D)
    assert (n, covariance.shape) == (700, (D, D))
    np.testing.assert_array_equal(seen.logits, IMAGES.reshape(700, 16)[:, :3])
    np.testing.assert_allclose(mean, seen.features.mean(axis=0, dtype=np.float64), rtol=1e-9)
    assert see.seen == 700
    assert seen.some(np.array([3, 1])).features.shape == (2, D)
    assert see.seen == 702


def test_all_features_take_their_own_room_and_no_more() -> None:
    see = Wide()
    tracemalloc.start()
    try:
        size = View(see, IMAGES, None).features.nbytes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * size


def test_an_extractor_that_loses_images_is_caught() -> None:
    with pytest.raises(ValueError, match="700 images gave features of 600"):
        _ = View(lambda images: Wide()(images[:600]), IMAGES, None).features


@pytest.mark.parametrize("buffered", [True, False])
def test_a_split_keeps_moments_and_logits_without_its_features_where_none_asks(buffered: bool) -> None:
    see, kept = Wide(), {}

    def keep(what, compute):
        if what not in kept:
            kept[what] = compute()
        return kept[what]

    split = SplitView(see, Split(IMAGES, None), keep, buffered)
    mean, covariance, n = split.moments
    assert set(kept) == ({"features", "summary"} if buffered else {"summary"})
    assert split.logits.shape == (700, 3)
    assert see.seen == 700
    expected = fid.moments([View(Wide(), IMAGES, None).features])
    np.testing.assert_allclose(mean, expected[0], rtol=1e-9)
    np.testing.assert_allclose(covariance, expected[1], rtol=1e-7, atol=1e-7 * np.abs(expected[1]).max())
    assert n == 700


def test_fid_of_a_curve_holds_no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepare("digits", 8)
    spec = next(spec for spec in builtin_extractors() if spec.name == "digits-cnn")
    scorer = Scorer(split_of(data), spec, [], device=torch.device("cpu"))
    images = np.ascontiguousarray(data.train.images[:300])
    expected = fid.frechet(*scorer._view(images).moments[:2], *scorer._splits["test"].moments[:2])

    def refuse(*_):
        raise AssertionError("features were gathered")

    monkeypatch.setattr(view, "_concatenate", refuse)
    assert scorer.fid(images) == pytest.approx(expected, rel=1e-9)
