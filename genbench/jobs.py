"""What the stages of a run are told and what they answer: plain values that cross the process boundary as JSON. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from genbench.records import CurvePoint, Finite, RunSpec, Score, Spent, Throughput
from genbench.track import Track

Stage = Literal["check", "train", "sample", "score"]


class Check(BaseModel):
    """What must be there before any compute: a device, a dataset, an extractor's weights, metrics."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    track: Track
    attempt: Path
    data_root: Path
    device: str
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    devices: int = 1
    """That train one run together."""
    threads: int
    weights: Path | None = None


class Checked(BaseModel):
    """Result of the ``check`` stage."""

    device: str
    device_class: str
    """``cpu-2`` or the GPU's name, of several devices ``2x cpu-1``: time budgets compare inside one class only."""
    device_name: str
    num_devices: int
    """Of that type."""
    channels: int
    num_train: int
    num_holdout: int
    num_test: int
    num_classes: int
    """0 where the images have no labels."""
    torch: str
    packages: dict[str, str]


class Job(BaseModel):
    """What a child is told: the run, where its files go, and where to find plugin, data and weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: RunSpec
    source: str
    """Where the model comes from: ``entry point`` or ``/path/mygan.py:MyGAN``."""
    folder: Path
    attempt: Path
    """Where in that folder this attempt keeps its logs, and leaves what it makes until the parent keeps it."""
    data_root: Path
    cache: Path
    device: str
    """The first; where there are more, ``cuda:2`` is followed by ``cuda:3``."""
    devices: int = 1
    """That train together; everything else happens on the first."""
    threads: int
    """Of all devices together, where they are CPUs."""
    weights: Path | None = None
    memory: int | None = None
    """Bytes that a child on a CPU may map beyond what its imports did; None: no limit."""


class Trained(BaseModel):
    """Result of the ``train`` stage."""

    spent: Spent
    throughput: Throughput
    curve: tuple[CurvePoint, ...]
    checkpoint: str
    diverged: str = ""
    stopped: bool = False
    flags: tuple[str, ...] = ()
    """What the model's code changed in its process."""


class Sampled(BaseModel):
    """Result of the ``sample`` stage."""

    samples: str
    sample_rates: dict[str, tuple[Finite, Finite, Finite]]
    sample_waited: Finite
    peak_bytes: int
    flags: tuple[str, ...]
    prior: str


class Scored(BaseModel):
    """Result of the ``score`` stage."""

    scores: tuple[Score, ...]
    curve: tuple[Finite | None, ...]
    flags: tuple[str, ...]
    extractor_accuracy: Finite | None
