"""What the tests of all plugins share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Every test draws the same numbers, alone or after others: torch's own seed is another in every process."""
    torch.manual_seed(0)
