"""Every model of this package does what genbench asks of one; each check says what to change where it does not."""

from __future__ import annotations

from genbench_vaes import genbench_models

from genbench.testing import Check, parametrize_checks


@parametrize_checks(genbench_models())
def test_conformance(check: Check) -> None:
    check()
