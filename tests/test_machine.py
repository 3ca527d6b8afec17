import os
import sys

import numpy as np
import pytest

from genbench import machine


def test_what_the_machine_has():
    assert 1 <= machine.cores() <= os.cpu_count()
    assert machine.processor()
    assert machine.free_bytes() > 1 << 28


def test_peak_follows_what_was_taken():
    before = machine.peak_bytes()
    block = np.ones(32 << 20)  # 256 MiB, touched
    assert machine.peak_bytes() >= before
    assert machine.peak_bytes() > block.nbytes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="stands in for other systems")
def test_without_proc_there_are_answers_too(monkeypatch):
    def absent(*arguments, **options):
        raise FileNotFoundError

    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr("builtins.open", absent)
    assert machine.cores() == os.cpu_count()
    assert machine.free_bytes() > 1 << 28
    assert machine.processor()
