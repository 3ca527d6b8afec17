from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from tests.metrics.seen import Seen, evidence


def test_too_few_images(kid: ModuleType) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        kid.kid(np.zeros((3, 2)), np.zeros((9, 2)), seed=0)
    (found,) = kid.compute(evidence(Seen(np.zeros((3, 2))), Seen(np.zeros((9, 2)))))
    assert (found.value, found.note) == (None, "needs at least 4 images")
