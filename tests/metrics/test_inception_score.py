from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from tests.metrics.seen import Seen, evidence


def test_too_few_images(inception_score: ModuleType) -> None:
    with pytest.raises(ValueError, match="got 9"):
        inception_score.inception_score(np.zeros((9, 3)), seed=0)
    few, none = Seen(np.zeros((99, 2)), logits=np.zeros((99, 3))), Seen(np.zeros((500, 2)))
    found, _ = inception_score.compute(evidence(few, few))
    assert (found.value, found.note) == (None, "needs at least 100 images")
    (found,) = inception_score.compute(evidence(none, few))
    assert (found.value, found.note) == (None, "the extractor is no classifier")


def test_recognised_counts_the_images_with_one_class_above_95_per_cent(inception_score: ModuleType) -> None:
    # of two classes: 95.3 %, 94.7 %, 50 %, and the other way round
    logits = np.array([[3.0, 0.0], [2.88, 0.0], [0.0, 0.0], [-3.0, 0.0], [0.0, 900.0]])
    assert inception_score.recognised(logits) == pytest.approx(3 / 5)
    some = Seen(np.zeros((5, 2)), logits=logits)
    names = [measurement.name for measurement in inception_score.compute(evidence(some, some))]
    assert names == ["is", "recognised"]
    names = [measurement.name for measurement in inception_score.compute(evidence(some, some, labels_named=False))]
    assert names == ["is"]
