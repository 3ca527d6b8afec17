"""Real runs of small models on the bundled digits, for tests of what is done with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from genbench import run as runs
from genbench.inventory import describe_file
from genbench.track import Track

TRACK = Track(
    name="tiny", dataset="digits", size=8, budget="12steps", num_samples=100, extractor="digits-cnn",
    curve=(1.0,), curve_samples=50, metrics=("fid", "statistical_fidelity"), grace=2.0,
)  # fmt: skip

MODEL = """
import torch
from torch import nn

class Tiny(nn.Module):
    family = "other"
    def __init__(self, image, width: int = 3, lr: float = 1e-2):
        super().__init__()
        self.image, self.lr, self.batch_size = image, lr, 16
        self.net = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, 1, 1))
    def configure_optimizers(self):
        return {"all": torch.optim.Adam(self.parameters(), self.lr)}
    def training_step(self, batches, optimizers):
        real = next(batches).images
        loss = (self.net(real + torch.randn_like(real)) - real).square().mean()
        optimizers["all"].minimize(loss)
        return {"loss": loss}
    def sample(self, n):
        return self.net(torch.randn(n, *self.image.shape)).tanh()

class Flat(Tiny):
    def sample(self, n):
        return super().sample(n) * 0
"""


def make_runs(folder: Path, supervisor, *, seeds=1, flat=False, track=TRACK) -> tuple[str, list[Path]]:
    """Train `Tiny`, or `Flat`, into ``folder/results`` -> the model's file and class, and the folders of the runs."""
    file = folder / "tiny.py"
    file.write_text(MODEL)
    source = f"{file}:{'Flat' if flat else 'Tiny'}"
    place = runs.check(track, supervisor, results=folder / "results", device="cpu", threads=1)
    found = []
    for planned in runs.plan([describe_file(source)], track, range(seeds), place, {}):
        record = runs.run(planned, place, supervisor)
        assert record is not None
        assert record.status == "done", record.reason
        found.append(place.store.folder(planned.spec))
    return source, found


def copied(run: Path, folder: Path) -> Path:
    """A copy of a run, with its row beside it, to do things to."""
    shutil.copytree(run.parent, folder / run.parent.name)
    return folder / run.parent.name / run.name


def edit(run: Path, change) -> None:
    """Change a record as a forger would: `change` gets its JSON value."""
    path = run / "record.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
