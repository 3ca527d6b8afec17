from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from tests.metrics.seen import Seen, evidence


def test_too_few_images(inception_score: ModuleType) -> None:
    with pytest.raises(ValueError, match="got 9"):
        inception_score.inception_score(np.zeros((9, 3)), seed=0)
    few, none = Seen(np.zeros((99, 2)), logits=np.zeros((99, 3))), Seen(np.zeros((500, 2)))
    (found,) = inception_score.compute(evidence(few, few))
    assert (found.value, found.note) == (None, "needs at least 100 images")
    (found,) = inception_score.compute(evidence(none, few))
    assert (found.value, found.note) == (None, "the extractor is no classifier")
