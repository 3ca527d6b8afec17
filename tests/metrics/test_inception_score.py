from __future__ import annotations

import numpy as np
import pytest

from genbench.metrics.inception_score import inception_score, score_in_order


def one_hot(n: int, k: int = 10, smooth: float = 0.0) -> np.ndarray:
    p = np.eye(k)[np.repeat(np.arange(k), n // k)] * (1 - smooth) + smooth / k
    with np.errstate(divide="ignore"):
        return np.log(p)


def test_golden_values() -> None:
    assert inception_score(np.zeros((50, 10)), seed=0) == pytest.approx((1, 0), abs=1e-12)
    assert score_in_order(one_hot(1000), 1)[0] == pytest.approx(10, abs=1e-12)
    assert score_in_order(one_hot(1000, smooth=0.1), 1)[0] == pytest.approx(6.0635598278, abs=1e-9)


def test_splits_of_sorted_images_would_score_1_so_they_are_shuffled_first() -> None:
    sorted_by_class = one_hot(5000)
    assert score_in_order(sorted_by_class, 10)[0] == pytest.approx(1)
    mean, spread = inception_score(sorted_by_class, seed=0)
    assert 9.8 < mean < 10
    assert 0 < spread < 0.1
    assert inception_score(sorted_by_class, seed=0) == (mean, spread) != inception_score(sorted_by_class, seed=1)


def test_logits_may_be_large_and_shifted() -> None:
    logits = np.random.default_rng(0).standard_normal((200, 7))
    assert score_in_order(logits + 1e4, 4) == pytest.approx(score_in_order(logits, 4), rel=1e-9)


def test_too_few_images() -> None:
    with pytest.raises(ValueError, match="got 9"):
        inception_score(np.zeros((9, 3)), seed=0)
