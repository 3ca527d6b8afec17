"""docs/reliability.md promises no more than there are tests for."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="docs/ is not beside the tests")


def rows():
    """(fault, outcome, promises, tests) of every line of its tables."""
    lines = [line.strip("| \n").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [line for line in lines if line[0] != "what happens"]


def test_every_fault_names_its_promise_and_tests_that_there_are():
    for fault, _, promises, shown in rows():
        assert re.fullmatch(r"P[1-6]( P[1-6])*", promises), fault
        named = re.findall(r"`([^`:]+)::(\w+)`", shown)
        assert named, fault
        for file, test in named:
            assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), f"{fault}: {file}::{test}"


def test_the_counts_are_true():
    page = PAGE.read_text(encoding="utf-8")
    faults, tests = re.search(r"(\d+) faults, (\d+) tests", page).groups()
    assert len(rows()) == int(faults)
    assert len(set(re.findall(r"`(tests/[^`]+::\w+)`", page))) == int(tests)
    sabotages = (ROOT / "tests" / "faults" / "test_sabotage.py").read_text(encoding="utf-8")
    assert len(re.findall(r'^    "[^"]+": \($', sabotages, re.MULTILINE)) == int(re.search(r"in (\d+) places", page)[1])
