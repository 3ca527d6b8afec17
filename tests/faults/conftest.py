"""A small model whose body each test replaces, run for real on the bundled digits."""

from __future__ import annotations

import contextlib
import textwrap
import time

import psutil
import pytest

from genbench import run as runs
from genbench.inventory import describe_file
from genbench.supervisor import Supervisor
from genbench.sweep.cell import Cell
from genbench.sweep.cell import attempt as attempt_under_lease
from genbench.track import Track

TRACK = Track(
    name="tiny", dataset="digits", size=8, budget="12steps", num_samples=60, extractor="digits-cnn",
    curve=(0.5, 1.0), curve_samples=20, metrics=("fid",), grace=2.0,
)  # fmt: skip

MODEL = '''
import gc, os, random, signal, struct, sys, threading, time, warnings
from pathlib import Path
import numpy as np
import torch
from torch import nn

class Tiny(nn.Module):
    family = "other"
    def __init__(self, image, lr: float = 1e-2):
        super().__init__()
        self.image, self.lr, self.batch_size, self.count = image, lr, 16, 0
        self.net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 1))
    def configure_optimizers(self):
        return {"all": torch.optim.Adam(self.parameters(), self.lr)}
    def training_step(self, batches, optimizers):
        real = next(batches).images
        self.count += 1
        self.misbehave()
        loss = (self.net(real + torch.randn(real.shape, dtype=torch.float32)) - real).square().mean()
        optimizers["all"].minimize(loss)
        return {"loss": loss.detach()}
    def misbehave(self):
        pass
    def sample(self, n):
        return self.net(torch.randn(n, *self.image.shape, dtype=torch.float32)).tanh()
'''


@pytest.fixture(scope="session")
def supervisor():
    return Supervisor()


@pytest.fixture
def attempt(tmp_path, supervisor):
    """Run the class `Mine`, given as a body, and return its record; then `attempt.folder` is the run's and `attempt.store` has it.

    `leased`: as commands do it, under the run's lease.
    """

    def attempt(body="", track=TRACK, results="results", seed=0, leased=False, **options):
        file = tmp_path / "mine.py"
        file.write_text(MODEL + "\nclass Mine(Tiny):\n" + textwrap.indent(textwrap.dedent(body) or "pass", "    ") + "\n")
        place = runs.check(track, supervisor, results=tmp_path / results, device="cpu", threads=1)
        (planned,) = runs.plan([describe_file(f"{file}:Mine")], track, [seed], place, {})
        attempt.planned, attempt.store, attempt.folder = planned, place.store, place.store.folder(planned.spec)
        attempt.cell = Cell(planned, place)
        if leased:
            return attempt_under_lease(attempt.cell, supervisor, options["on_event"], runs.run)
        return runs.run(planned, place, supervisor, **options)

    return attempt


def no_children_left():
    """True when nothing but the fork server and its helpers, this process's own children, is left."""
    own = psutil.Process()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended while we looked
            if not [child for child in own.children(recursive=True) if child.ppid() != own.pid and child.status() != "zombie"]:
                return True
        time.sleep(0.1)
    return False


def told(record):
    """Flags of a record but for those that a busy machine causes."""
    return [flag for flag in record.flags if "contended" not in flag]
