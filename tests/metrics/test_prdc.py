from __future__ import annotations

from types import ModuleType

import pytest

from tests.metrics.seen import Seen, evidence
from tests.metrics.test_golden import clouds


def test_too_few_points(prdc: ModuleType) -> None:
    A, B = clouds()
    with pytest.raises(ValueError, match="at least 6"):
        prdc.prdc(A[:5], A)
    for found in prdc.compute(evidence(Seen(A[:5]), Seen(B))):
        assert (found.value, found.note) == (None, "needs at least 6 images")
