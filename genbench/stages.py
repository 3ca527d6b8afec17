"""The stages of a run: check, train, sample, score. Each is one function of a job, called inside a child process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from genbench import machine
from genbench.errors import GenbenchError
from genbench.records import CurvePoint, RunSpec, Score, Spent, Throughput
from genbench.track import Track

if TYPE_CHECKING:
    from genbench.catalogue import Catalogue
    from genbench.datasets import DatasetSpec

Stage = Literal["check", "train", "sample", "score"]


class Send(Protocol):
    """How a stage speaks to the supervisor: ``send("tick", progress=0.5)``."""

    def __call__(self, kind: str, **content: Any) -> None:
        """One message of JSON values."""


class Check(BaseModel):
    """What must be there before any compute: a device, a dataset, an extractor's weights, metrics."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    track: Track
    attempt: Path
    data_root: Path
    device: str
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    threads: int
    weights: Path | None = None


class Checked(BaseModel):
    """Result of the ``check`` stage."""

    device: str
    device_class: str
    """``cpu-2`` or the GPU's name: time budgets compare inside one class only."""
    device_name: str
    channels: int
    num_train: int
    num_holdout: int
    num_test: int
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
    data_root: Path
    cache: Path
    device: str
    threads: int
    weights: Path | None = None


class Trained(BaseModel):
    """Result of the ``train`` stage."""

    spent: Spent
    throughput: Throughput
    curve: tuple[CurvePoint, ...]
    checkpoint: str
    diverged: str = ""
    stopped: bool = False


class Sampled(BaseModel):
    """Result of the ``sample`` stage."""

    samples: str
    sample_rates: dict[str, tuple[float, float, float]]
    peak_bytes: int
    flags: tuple[str, ...]


class Scored(BaseModel):
    """Result of the ``score`` stage."""

    scores: tuple[Score, ...]
    curve: tuple[float | None, ...]
    flags: tuple[str, ...]
    extractor_accuracy: float | None


def check(job: Check, send: Send) -> Checked:
    """See that device, dataset, extractor's weights and metrics are there. Raises GenbenchError."""
    from importlib.metadata import version

    import torch

    from genbench.catalogue import load_catalogue
    from genbench.datasets.prepare import prepare

    catalogue, track = load_catalogue(kinds=("dataset", "extractor", "metric")), job.track
    dataset, extractor = _dataset(track.dataset, catalogue), catalogue.extractor(track.extractor)
    for name in track.metrics:
        catalogue.metric(name)
    try:
        asked = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if job.device == "auto" else job.device)
    except RuntimeError:
        raise GenbenchError(f"device {job.device!r} is none that torch knows; use auto, cpu, cuda or cuda:N") from None
    if asked.type not in ("cpu", "cuda"):
        raise GenbenchError(f"device {job.device!r} is not supported; use auto, cpu, cuda or cuda:N")
    if asked.type == "cuda" and (not torch.cuda.is_available() or (asked.index or 0) >= torch.cuda.device_count()):
        raise GenbenchError(f"device {job.device!r} is not here: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices")
    extractor.spec.require(job.weights)
    data = prepare(dataset, track.size, job.data_root)
    cuda = asked.type == "cuda"
    name = torch.cuda.get_device_name(asked) if cuda else machine.processor()
    packages = {package: version(package) for package in ("numpy", "scipy", "torch-fidelity", "torchvision")}
    return Checked(
        device=str(asked), device_class=name if cuda else f"cpu-{job.threads}", device_name=name, channels=data.channels,
        num_train=len(data.train), num_holdout=len(data.holdout), num_test=len(data.test), torch=str(torch.__version__), packages=packages,
    )  # fmt: skip


def train(job: Job, send: Send) -> Trained:
    """Train within the budget, draw the curve's samples off the clock, seal the final state."""
    import numpy as np
    import torch

    from genbench import checkpoint, resume, throughput
    from genbench.budget import Budget, Meter
    from genbench.datasets.resident import TrainingBatches
    from genbench.model import Optimizers
    from genbench.sample import draw
    from genbench.seeds import stream
    from genbench.train import Point
    from genbench.train import train as train_model

    stop = _stop_on_sigterm()
    spec, track, device = job.spec, job.spec.track, torch.device(job.device)
    synchronize = throughput.synchronizer(device)
    data, image = _data(job)
    torch.manual_seed(stream(spec.seed, "init"))
    model = _build(job, image).to(device, memory_format=torch.channels_last)
    optimizers = Optimizers(model.configure_optimizers())
    meter = Meter(Budget.parse(track.budget), synchronize)
    batch_size = int(getattr(model, "batch_size", 64))
    batches = TrainingBatches(data, batch_size=batch_size, seed=spec.seed, meter=meter, device=device, flip=track.flip)
    torch.manual_seed(stream(spec.seed, "train"))
    state = job.folder / "state"
    earlier, drawn = resume.restore(state, model, optimizers, batches, meter) or ([], [])

    def on_point(point: Point) -> None:
        send("pause")
        if track.curve_samples:
            n = min(track.curve_samples, track.num_samples, _available(model))
            drawn.append(draw(model, n, spec.seed, image, stream_name="curve").images)
        send("tick", phase="curve", **asdict(point))
        send("resume")

    quiet = throughput.gemm_rate(device, synchronize)
    send("started", parameters=sum(p.numel() for p in model.parameters()))
    send("resume")
    training = train_model(
        model, optimizers, batches, meter, device=device, precision=track.precision, at=track.curve, stop=stop, earlier=earlier,
        on_point=on_point, on_tick=lambda point: send("tick", phase="train", **asdict(point)),
    )  # fmt: skip
    send("pause")
    if training.stopped:
        resume.save(state, model, optimizers, batches, meter, training.points, drawn)
    ledger = training.ledger
    spent = Spent(
        budget=track.budget, seconds=ledger.seconds, steps=ledger.steps, images=ledger.images, flops=ledger.flops,
        overshoot=training.overshoot, cpu_seconds=ledger.cpu_seconds, waited=ledger.waited,
        contended=ledger.seconds > 1 and ledger.waited > 0.1, finished_early=training.finished_early,
        gemm_gflops=(quiet, throughput.gemm_rate(device, synchronize)),
    )  # fmt: skip
    measured = Throughput(
        train=training.throughput, parameters=sum(p.numel() for p in model.parameters()),
        flops_per_image=ledger.flops / ledger.images if ledger.images else None, train_peak_bytes=throughput.peak_bytes(device),
    )  # fmt: skip
    curve = tuple(
        CurvePoint(progress=p.progress, seconds=p.seconds, steps=p.steps, images=p.images, losses=dict(p.losses)) for p in training.points
    )
    sealed = ""
    if not (training.diverged or training.stopped):
        sealed = checkpoint.seal(
            model, job.folder / "checkpoint.safetensors", {"model": spec.model.name, "seed": spec.seed, "steps": meter.steps}
        )
    if drawn:
        _save_npz(job.folder / "state" / "curve.npz", images=np.stack(drawn))
    return Trained(spent=spent, throughput=measured, curve=curve, checkpoint=sealed, diverged=training.diverged, stopped=training.stopped)


def sample(job: Job, send: Send) -> Sampled:
    """Draw samples from the sealed checkpoint in a model built anew; measure how fast."""
    import hashlib

    import torch

    from genbench import checkpoint, throughput
    from genbench.grid import save_grid
    from genbench.sample import draw

    device = torch.device(job.device)
    _, image = _data(job)
    model = _build(job, image)
    checkpoint.unseal(model, job.folder / "checkpoint.safetensors")
    model = model.to(device, memory_format=torch.channels_last).requires_grad_(False)
    before = checkpoint.state_digest(model)
    n = min(job.spec.track.num_samples, _available(model))
    samples = draw(model, n, job.spec.seed, image)
    rates = throughput.sampling_throughput(model, synchronize=throughput.synchronizer(device))
    if checkpoint.state_digest(model) != before:
        raise GenbenchError("sample() changed the model's parameters or buffers; sampling must not train")
    _save_npz(job.folder / "samples.npz", images=samples.images)
    save_grid(samples.images, job.folder / "grid.png")
    flags = (f"{samples.clipped:.1%} of values clipped",) if samples.clipped > 0.01 else ()
    digest = hashlib.sha256(samples.images.tobytes()).hexdigest()
    return Sampled(samples=digest, sample_rates=rates, peak_bytes=throughput.peak_bytes(device), flags=flags)


def score(job: Job, send: Send) -> Scored:
    """Score the samples and the curve. No model's code runs here."""
    import numpy as np
    import torch

    from genbench.catalogue import load_catalogue
    from genbench.reference import split_of
    from genbench.score import Scorer
    from genbench.seeds import stream

    track = job.spec.track
    data, _ = _data(job)
    catalogue = load_catalogue(kinds=("extractor", "metric"))
    extractor = catalogue.extractor(track.extractor).spec
    metrics = [catalogue.metric(name).spec for name in track.metrics]
    scorer = Scorer(
        split_of(data, track.reference), extractor, metrics, device=torch.device(job.device), weights=job.weights, cache=job.cache
    )
    with np.load(job.folder / "samples.npz", allow_pickle=False) as file:
        images = file["images"]
    scores = scorer.score(images, stream(job.spec.seed, "metrics"))
    curve: tuple[float | None, ...] = ()
    drawn = job.folder / "state" / "curve.npz"
    if drawn.exists():
        with np.load(drawn, allow_pickle=False) as file:
            curve = tuple(scorer.fid(part) for part in file["images"])
    return Scored(scores=tuple(scores), curve=curve, flags=tuple(scorer.flags(images)), extractor_accuracy=extractor.accuracy)


def _dataset(name: str, catalogue: Catalogue) -> DatasetSpec:
    """``mnist``, ``folder:PATH`` or ``zip:PATH`` -> its spec. Raises GenbenchError."""
    from genbench.datasets.prepare import resolve

    return resolve(name) if name.startswith(("folder:", "zip:")) else catalogue.dataset(name).spec


def _data(job: Job) -> tuple[Any, Any]:
    from genbench.catalogue import load_catalogue
    from genbench.datasets.prepare import prepare
    from genbench.model import ImageSpec

    track = job.spec.track
    data = prepare(_dataset(track.dataset, load_catalogue(kinds=("dataset",))), track.size, job.data_root)
    return data, ImageSpec(data.channels, track.size, data.num_classes, len(data.train))


def _build(job: Job, image: Any) -> Any:
    from genbench.catalogue import load_entry

    spec = load_entry(job.source, job.spec.model.name).spec
    return spec.cls(image, **job.spec.model.hparams)


def _available(model: Any) -> int:
    """How many images the model can give: a control that copies real ones has only so many."""
    return int(getattr(model, "num_available", sys.maxsize))


def _save_npz(path: Path, **arrays: Any) -> None:
    import io

    import numpy as np

    from genbench.records import write_atomic

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def _stop_on_sigterm() -> Callable[[], bool]:
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    return lambda: bool(asked)
