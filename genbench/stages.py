"""The stages of a run: check, train, sample, score. Each is one function of a job, called inside a child process."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genbench import devices, machine
from genbench.devices import ALONE, Rank
from genbench.errors import ChangedError, GenbenchError
from genbench.jobs import Check, Checked, Job, Sampled, Scored, Trained
from genbench.records import HOLDOUT_NLL, CurvePoint, Spent, Throughput
from genbench.states import FOLDER
from genbench.track import Track

if TYPE_CHECKING:
    from genbench.catalogue import Catalogue
    from genbench.datasets import DatasetSpec
    from genbench.extractors import ExtractorSpec


_NO_TRAINING = "sample() and its like must not train, nor may a thread"


class Send(Protocol):
    """How a stage speaks to the supervisor: ``send("tick", progress=0.5)``. Where it trains nothing, ``alive`` says that it gets on."""

    def __call__(self, kind: str, **content: Any) -> None:
        """One message of JSON values."""


def check(job: Check, send: Send) -> Checked:
    """See that device, dataset and metrics are there, and that the extractors see the track's images. Raises GenbenchError."""
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
    last = devices.device_of(str(asked), job.devices - 1)
    if asked.type == "cuda" and (not torch.cuda.is_available() or (torch.device(last).index or 0) >= torch.cuda.device_count()):
        wanted = f"device {job.device!r}" if job.devices == 1 else f"device {last!r}, the last of {job.devices} from {job.device!r} on,"
        raise GenbenchError(f"{wanted} is not here: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices")
    extractors = [(extractor.spec, job.weights), *((catalogue.extractor(name).spec, None) for name in track.beside)]
    for spec, weights in extractors:
        spec.require(weights)
    with _taking_its_time(send):
        data = prepare(dataset, track.size, job.data_root)
        for spec, weights in extractors:
            _see_that_it_sees(spec, weights, (data.channels, track.size, track.size))
    cuda = asked.type == "cuda"
    name = torch.cuda.get_device_name(asked) if cuda else machine.processor()
    one = name if cuda else f"cpu-{devices.threads_of(job.threads, job.devices)}"
    packages = {package: version(package) for package in ("numpy", "scipy", "torch-fidelity", "torchvision")}
    return Checked(
        device=str(asked), device_class=devices.class_of(one, job.devices), device_name=name,
        num_devices=torch.cuda.device_count() if cuda else 1, channels=data.channels,
        num_train=len(data.train), num_holdout=len(data.holdout), num_test=len(data.test),
        num_classes=0 if data.train.labels is None else data.num_classes, torch=str(torch.__version__), packages=packages,
    )  # fmt: skip


def train(job: Job, send: Send, rank: Rank = ALONE) -> Trained:
    """Train within the budget, draw the curve's samples off the clock, seal the final state.

    With several devices each of them calls this as a rank of its own; the first speaks, draws and writes.
    """
    import numpy as np
    import torch

    from genbench import checkpoint, ranks, resume, surroundings, throughput
    from genbench.budget import CONTENDED, Budget, Meter
    from genbench.datasets.resident import TrainingBatches
    from genbench.held_out import density, holdout_nll
    from genbench.model import Optimizers
    from genbench.sample import draw
    from genbench.seeds import stream
    from genbench.train import Point
    from genbench.train import train as train_model
    from genbench.witness import Witness, undone

    stop, threads = _stop_on_sigterm(), torch.get_num_threads()
    spec, track = job.spec, job.spec.track
    device = torch.device(job.device if rank.of == 1 else devices.device_of(job.device, rank.number))
    synchronize, first = throughput.synchronizer(device), rank.number == 0
    data, image = _data(job)
    team = ranks.join(rank, device, synchronize)
    torch.manual_seed(stream(spec.seed, "init"))
    watch = surroundings.watch(device)
    model = _build(job, image).to(device, memory_format=torch.channels_last)
    density(model)  # a word that nobody knows is said before the budget is spent
    model = team.prepare(model)
    optimizers = Optimizers(model.configure_optimizers(), team.average)  # type: ignore[operator]
    trained = [parameter for optimizer in optimizers.values() for parameter in optimizer.params]
    meter = Meter(Budget.parse(track.budget), team.synchronize, team.clock)
    batch_size = int(getattr(model, "batch_size", 64))
    batches = TrainingBatches(
        data, batch_size=batch_size, seed=spec.seed, meter=meter, device=device, flip=track.flip, rank=rank.number, ranks=rank.of
    )
    if rank.of > 1 and hasattr(model, "batch_size"):
        setattr(model, "batch_size", batches.part)  # noqa: B010 - a step draws as much noise as it sees images
    watch.look()
    torch.manual_seed(stream(spec.seed, f"train/{rank.number}" if rank.number else "train"))
    state = job.folder / FOLDER
    restored = resume.restore(state, model, optimizers, batches, meter, rank.number, rank.of, device, threads)
    earlier, drawn, last = restored or ([], [], None)
    watch.seeded()

    def keep(points: Sequence[Point], last: Point | None) -> None:
        team.align(model, trained)
        others = team.randomness()
        if first:
            resume.save(state, model, optimizers, batches, meter, points, drawn, others, rank.of, device, threads, last)

    def save(points: Sequence[Point], last: Point) -> None:
        send("pause")
        with cadence.saving():
            keep(points, last)
            team.synchronize()  # how long it took is known to all
        send("resume")

    lost = team.tell(undone(job.attempt, meter.seconds) if first else 0.0)
    if lost:
        meter.charge_lost(lost)
        keep(earlier, last)  # what the crash cost stays charged if there is another
        if meter.exhausted and not meter.steps:
            raise GenbenchError(f"its whole budget of {track.budget} was lost to crashes, and no step of it could be saved")
    cadence = resume.Cadence(team.wall)

    def note() -> None:
        witness.note(meter.seconds, meter.steps, meter.images)

    if first:
        witness = Witness(job.attempt)
        note()

    def on_point(point: Point) -> dict[str, float]:
        if not first:
            return {}
        send("pause")
        before = checkpoint.state_digest(model)
        if track.curve_samples:
            n = min(track.curve_samples, track.num_samples, _available(model))
            labels = _labels(model, data, n, spec.seed, "curve")
            drawn.append(draw(model, n, spec.seed, image, labels=labels, stream_name="curve", on_chunk=partial(send, "alive")).images)
        measured = {}
        if track.ranks_by_likelihood:
            measured[HOLDOUT_NLL] = holdout_nll(model, data.holdout, spec.seed, device, on_chunk=partial(send, "alive"))
        if checkpoint.state_digest(model) != before:
            raise GenbenchError(f"the model's parameters or buffers changed while its clock stood still; {_NO_TRAINING}")
        send("tick", phase="curve", devices=rank.of, **asdict(point) | {"losses": {**point.losses, **measured}})
        send("resume")
        return measured

    quiet = throughput.gemm_rate(device, synchronize) if first else 0.0
    send("started", parameters=sum(p.numel() for p in model.parameters()), spent=meter.seconds / rank.of)
    send("resume")
    training = train_model(
        model, optimizers, batches, meter, device=device, precision=track.precision, at=track.curve, stop=lambda: team.any(stop()),
        earlier=earlier, last=last, on_point=on_point, on_tick=lambda point: send("tick", phase="train", devices=rank.of, **asdict(point)),
        after_step=team.after_step(note), save_due=cadence.due, save=save,
        devices=rank.of, clock=team.wall, agree=team.agree, any_finished=team.finished,
    )  # fmt: skip
    send("pause")
    if training.stopped:
        keep(training.points, training.last)
    elif not training.diverged:
        team.align(model, trained)
    ledger = training.ledger
    cpu_seconds, waited = team.total([ledger.cpu_seconds, ledger.waited])
    spent = Spent(
        budget=track.budget, seconds=ledger.seconds, steps=ledger.steps, images=ledger.images, flops=ledger.flops,
        overshoot=training.overshoot, lost=ledger.lost, cpu_seconds=cpu_seconds, waited=waited,
        contended=ledger.seconds > 1 and waited > CONTENDED, finished_early=training.finished_early,
        gemm_gflops=(quiet, throughput.gemm_rate(device, synchronize) if first else 0.0),
    )  # fmt: skip
    measured = Throughput(
        train=training.throughput, parameters=sum(p.numel() for p in model.parameters()),
        flops_per_image=ledger.flops / ledger.images if ledger.images else None,
        train_peak_bytes=int(team.most(throughput.peak_bytes(device))),
    )  # fmt: skip
    curve = tuple(
        CurvePoint(progress=p.progress, seconds=p.seconds, steps=p.steps, images=p.images, losses=_finite(p.losses))
        for p in training.points
    )
    sealed = ""
    if first and not (training.diverged or training.stopped):
        sealed = checkpoint.seal(
            model, job.attempt / "checkpoint.safetensors", {"model": spec.model.name, "seed": spec.seed, "steps": meter.steps}
        )
    if first and drawn:
        _save_npz(job.attempt / "curve.npz", images=np.stack(drawn))
    return Trained(
        spent=spent, throughput=measured, curve=curve, checkpoint=sealed, diverged=training.diverged, stopped=training.stopped,
        flags=watch.look(),
    )  # fmt: skip


def sample(job: Job, send: Send) -> Sampled:
    """Draw samples from the sealed checkpoint in a model built anew; measure how fast; then ask it about held-out images."""
    import hashlib

    import torch

    from genbench import checkpoint, surroundings, throughput
    from genbench.grid import save_grid
    from genbench.held_out import consult, prior
    from genbench.sample import FEW, balanced_labels, draw, heeds_its_seed

    device, seed = torch.device(job.device), job.spec.seed
    data, image = _data(job)
    watch = surroundings.watch(device)
    model = _build(job, image)
    checkpoint.unseal(model, job.folder / "checkpoint.safetensors")
    model = model.to(device, memory_format=torch.channels_last).requires_grad_(False)
    before = checkpoint.state_digest(model)
    n = min(job.spec.track.num_samples, _available(model))
    alive = partial(send, "alive")
    samples = draw(model, n, seed, image, labels=_labels(model, data, n, seed), on_chunk=alive)
    arrays: dict[str, Any] = {"images": samples.images}
    flags = []
    if samples.labels is not None:
        asked = draw(model, n, seed, image, labels=balanced_labels(image.num_classes, n, seed), stream_name="asked", on_chunk=alive)
        arrays |= {"labels": samples.labels, "asked": asked.images, "asked_labels": asked.labels}
        flags.append("conditional")
    speed = throughput.sampling_throughput(model, synchronize=throughput.synchronizer(device), labels=samples.labels)
    peak = throughput.peak_bytes(device)
    track = job.spec.track
    asking = "model" in _needs(track)
    said: dict[str, Any] = {}
    if asking:
        said = consult(model, data.test, seed, device, most=track.held_out_images, k=track.importance_samples, on_chunk=alive)
    label = None if samples.labels is None else int(samples.labels[0])
    stored = job.spec.model.family == "control" or hasattr(model, "num_available")
    seeds = heeds_its_seed(model, min(FEW, n), seed, image, label=label, stored=stored)
    if checkpoint.state_digest(model) != before:
        raise GenbenchError(f"the model's parameters or buffers changed after training was over; {_NO_TRAINING}")
    _save_npz(job.attempt / "samples.npz", **arrays)
    if said:
        _save_npz(job.attempt / "held_out.npz", **said)
    save_grid(samples.images, job.attempt / "grid.png")
    if samples.clipped > 0.01:
        flags.append(f"{samples.clipped:.1%} of values clipped")
    if speed.contended:
        flags.append("sampling speed contended")  # by how much: `Throughput.sample_waited`
    flags += [*seeds, *watch.look()]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()
    return Sampled(
        samples=digest, sample_rates=speed.rates, sample_waited=speed.waited, peak_bytes=peak, flags=tuple(flags), prior=prior(model)
    )  # fmt: skip


def score(job: Job, send: Send) -> Scored:
    """Score the samples and the curve. No model's code runs here."""
    import torch

    from genbench.catalogue import load_catalogue
    from genbench.datasets import Split
    from genbench.held_out import as_evidence
    from genbench.metrics.memorisation import alarms
    from genbench.reference import split_of
    from genbench.score import Scorer
    from genbench.seeds import stream

    track = job.spec.track
    data, _ = _data(job)
    catalogue = load_catalogue(kinds=("extractor", "metric"))
    extractor = catalogue.extractor(track.extractor).spec
    metrics = [catalogue.metric(name).spec for name in track.metrics]
    reference, device, seed = split_of(data, track.reference), torch.device(job.device), stream(job.spec.seed, "metrics")

    def alive(step: str, done: int, total: int) -> None:
        send("alive")

    scorer = Scorer(reference, extractor, metrics, device=device, weights=job.weights, cache=job.cache, show=alive)
    found = _load_npz(job.folder / "samples.npz")
    images = found["images"]
    asked = Split(found["asked"], found["asked_labels"]) if "asked" in found else None
    said = _load_npz(job.folder / FOLDER / "held_out.npz")
    model = as_evidence(said, data.test) if said else None
    scores = scorer.score(images, seed, asked=asked, model=model)
    curve: tuple[float | None, ...] = ()
    drawn = _load_npz(job.folder / FOLDER / "curve.npz")
    if drawn:
        curve = tuple(scorer.fid(part) for part in drawn["images"])
    flags = scorer.flags(images) + alarms({s.name: s.value for s in scores}, {s.name: s.floor for s in scores})
    for name in track.beside:
        fid = [catalogue.metric("fid").spec]
        witness = Scorer(reference, catalogue.extractor(name).spec, fid, device=device, cache=job.cache, show=alive)
        scores += [score for score in witness.score(images, seed) if score.name == "fid"]
    return Scored(scores=tuple(scores), curve=curve, flags=tuple(flags), extractor_accuracy=extractor.accuracy)


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

    entry, planned = load_entry(job.source, job.spec.model.name), job.spec.model
    if entry.digest != planned.digest:
        raise ChangedError(
            f"the source of {planned.name} changed after this run was planned (SHA-256 {planned.digest[:8]}, now {entry.digest[:8]});"
            f" the same command plans it anew, with the source as it is then"
        )
    return entry.spec.cls(image, **planned.hparams)


def _see_that_it_sees(spec: ExtractorSpec, weights: Path | None, shape: tuple[int, int, int]) -> None:
    """Raise GenbenchError where an extractor can't see images (C, H, W): better now than once the budget is spent."""
    import torch

    if spec.fit is None:  # one that is fitted takes the shape it is fitted on
        spec.load(torch.device("cpu"), weights)(torch.zeros((2, *shape), dtype=torch.uint8))


@contextlib.contextmanager
def _taking_its_time(send: Send) -> Iterator[None]:
    """Say every half minute that we get on: a dataset may take long to download or decode. A connection that stalls for a minute fails."""
    over = threading.Event()

    def say() -> None:
        while not over.wait(30.0):
            send("alive")

    saying = threading.Thread(target=say, daemon=True)
    saying.start()
    socket.setdefaulttimeout(60.0)
    try:
        yield
    finally:
        over.set()
        saying.join()


def _needs(track: Track) -> set[str]:
    """What the track's metrics can't do without."""
    from genbench.catalogue import load_catalogue

    catalogue = load_catalogue(kinds=("metric",))
    return {need for name in track.metrics for need in catalogue.metric(name).spec.needs}


def _labels(model: Any, data: Any, n: int, seed: int, stream_name: str = "sampling") -> Any:
    """n labels drawn from train's frequencies for a conditional model; None for any other."""
    from genbench.model import is_conditional
    from genbench.sample import marginal_labels

    return marginal_labels(data.train.labels, n, seed, stream_name=stream_name) if is_conditional(model) else None


def _available(model: Any) -> int:
    """How many images the model can give: a control that copies real ones has only so many."""
    return int(getattr(model, "num_available", sys.maxsize))


def _finite(losses: Mapping[str, float]) -> dict[str, float | None]:
    """Losses with None for what is no number: a record is strict JSON."""
    return {name: value if math.isfinite(value) else None for name, value in losses.items()}


def _save_npz(path: Path, **arrays: Any) -> None:
    import io

    import numpy as np

    from genbench.records import write_atomic

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def _load_npz(path: Path) -> dict[str, Any]:
    """The arrays of a file; none where there is no file."""
    import numpy as np

    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _stop_on_sigterm() -> Callable[[], bool]:
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    return lambda: bool(asked)
