"""Tier 2: samples drawn again from the sealed checkpoint, by the very source that the record names."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench import agreement
from genbench.arrays import read_drawn
from genbench.bundle import EXCERPT, EXCERPT_IMAGES
from genbench.errors import GenbenchError
from genbench.inventory import ModelDescription, check_hparams, describe_file, inventory
from genbench.jobs import Sampled, Scored
from genbench.modelfile import split_file
from genbench.origin import file_digest
from genbench.records import RunRecord, strict_json, write_atomic
from genbench.verification import Finding
from genbench.verify.subject import Judge, Subject, Told, compare

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_CHECKPOINT = 16 << 30
_MOST_JSON = 64 << 20


def installed(record: RunRecord, model: str) -> ModelDescription:
    """The model as installed here, or in the file `model`: the very source that the record names, or a GenbenchError."""
    theirs = record.spec.model
    if model:
        path, _ = split_file(model)
        if file_digest(path) != theirs.digest:  # before it is imported
            raise GenbenchError(f"{path} is not the source that {theirs.name} was trained from: the record names another digest")
        described = describe_file(model)
        if described.name != theirs.name:
            raise GenbenchError(f"{model} is model {described.name!r}; the record is of {theirs.name!r}")
        return described
    if theirs.distribution == "unpackaged":
        raise GenbenchError(f"{theirs.name} is not packaged: name the file it was trained from, --model {theirs.source}, or use --tier 1")
    described = inventory().model(theirs.name)
    if described.digest != theirs.digest:
        raise GenbenchError(
            f"{theirs.name} is here from {described.distribution} {described.version} ({described.digest[:8]}), which is not the source it "
            f"was trained from: {theirs.distribution} {theirs.version} ({theirs.digest[:8]}); install that, or use --tier 1"
        )
    return described


def declared(record: RunRecord, described: ModelDescription, told: Told) -> None:
    """What the record says of its model, against the model."""
    theirs = record.spec.model
    wrong = [
        f"{key} {getattr(theirs, key)!r} recorded, {getattr(described, key)!r} in the plugin"
        for key in ("family", "paper", "pretrained", "holdout")
        if getattr(theirs, key) != getattr(described, key)
    ]
    try:
        if theirs.hparams != check_hparams(described, {**described.defaults, **theirs.changed}):
            wrong.append("the hparams in force are not the defaults with the changed ones")
    except GenbenchError as error:
        wrong.append(str(error))
    told.findings.append(Finding(what="model", ok=not wrong, detail="; ".join(wrong) or "as its plugin declares it"))


def regenerate(subject: Subject, described: ModelDescription, stored: dict[str, NDArray[Any]] | None, told: Told) -> None:
    """Draw from the checkpoint with the recorded seed and with a fresh one, and compare."""
    record, work = subject.record, subject.work
    problem = _take_checkpoint(subject, work / "again", work / "fresh")
    told.findings.append(Finding(what="checkpoint", ok=not problem, detail=problem or "digest as recorded"))
    if problem:
        return
    subject.tell("drawing from the checkpoint with the recorded seed")
    try:
        sampled = Sampled.model_validate(subject.stage("sample", work / "again", record.spec, described.source))
    except GenbenchError as error:
        told.findings.append(Finding(what="sampling", ok=False, detail=f"drawing from the checkpoint failed: {error}"))
        return
    equal = sampled.samples == record.digests.get("samples")
    again, _ = read_drawn(work / "again" / "samples.npz", record.spec.track.num_samples, record.spec.track.size)
    share = 1.0 if equal else _share(stored or _excerpt(subject), again)
    told.findings.append(_judge_draws(subject, equal, share))
    quiet = {flag for flag in sampled.flags if "contended" not in flag}
    wrong = [f"prior {record.prior!r} recorded, {sampled.prior!r} here"] if record.prior != sampled.prior else []
    wrong += [f"the record leaves out: {', '.join(sorted(quiet - set(record.flags)))}"] if quiet - set(record.flags) else []
    told.findings.append(Finding(what="what sampling tells", ok=not wrong, detail="; ".join(wrong) or "as recorded"))
    if equal and stored is not None and not any(score.n_fake == 0 for score in record.scores):
        subject.tell("the samples are equal bit for bit, and so are their scores")
    else:
        subject.tell("scoring what was drawn")
        scored = Scored.model_validate(subject.stage("score", work / "again", record.spec))
        told.scores += compare(record, scored.scores, "recorded seed", _judge(subject, equal, share))
    told.fresh_seed = secrets.randbits(31)
    spec = record.spec.model_copy(update={"seed": told.fresh_seed})
    subject.tell("drawing from the checkpoint with a fresh seed, and scoring that")
    try:
        subject.stage("sample", work / "fresh", spec, described.source)
    except GenbenchError as error:
        told.findings.append(Finding(what="fresh seed", ok=False, detail=f"drawing from the checkpoint failed: {error}"))
        return
    fresh = Scored.model_validate(subject.stage("score", work / "fresh", spec))
    told.scores += compare(record, fresh.scores, "fresh seed", agreement.of_another_draw)


def _take_checkpoint(subject: Subject, *targets: Path) -> str:
    """Copy the sealed checkpoint aside, checked against the record; returns what is wrong with it."""
    path = subject.folder / "checkpoint.safetensors"
    beside = path.with_suffix(".json")
    for file, most in ((path, _MOST_CHECKPOINT), (beside, _MOST_JSON)):
        if not file.is_file() or file.is_symlink():
            raise GenbenchError(f"{subject.folder} holds no {file.name} to regenerate samples from; fetch it, or use --tier 1")
        if file.stat().st_size > most:
            return f"{file.name} is larger than a checkpoint is"
    content, note = path.read_bytes(), beside.read_bytes()
    if hashlib.sha256(content).hexdigest() != subject.record.digests.get("checkpoint"):
        return "not the one that was sealed: another digest than the record's"
    try:
        about = strict_json(note.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return f"{beside.name}: {str(error) or type(error).__name__}"
    speed = subject.record.throughput
    if not isinstance(about, dict) or (speed and about.get("parameters") != speed.parameters):
        return f"{beside.name} tells another number of parameters than the record"
    for target in targets:
        write_atomic(target / path.name, content)
        write_atomic(target / beside.name, note)
    return ""


def _share(stored: dict[str, NDArray[Any]] | None, again: dict[str, NDArray[Any]]) -> float | None:
    """Share of pixels that are within one level of the stored ones; None where there is nothing to compare with."""
    import numpy as np

    if stored is None or stored["images"].shape[1:] != again["images"].shape[1:] or len(stored["images"]) > len(again["images"]):
        return None
    theirs = stored["images"].astype(np.int16)
    return float((np.abs(theirs - again["images"][: len(theirs)]) <= 1).mean())


def _excerpt(subject: Subject) -> dict[str, NDArray[Any]] | None:
    """The first samples, where a submission brought no more of them."""
    path, track = subject.folder / EXCERPT, subject.record.spec.track
    return read_drawn(path, min(EXCERPT_IMAGES, track.num_samples), track.size)[0] if path.exists() else None


def _judge_draws(subject: Subject, equal: bool, share: float | None) -> Finding:
    """Equal pixels are expected on the same class of machine; elsewhere their scores decide."""
    if equal:
        return Finding(what="recorded seed", ok=True, detail="every pixel is as recorded")
    same = subject.same_machine and subject.place.checked.device == "cpu"
    if share is None:
        detail = "other pixels than recorded, and none stored to see how many"
        return Finding(what="recorded seed", ok=False if same else None, detail=detail)
    near = share >= agreement.SHARE_OF_SAME_DRAWS
    detail = f"{share:.2%} of pixels are within one level of the recorded ones"
    if same and not near:
        return Finding(what="recorded seed", ok=False, detail=f"{detail}, on the machine and versions of the record")
    return Finding(what="recorded seed", ok=None, detail=f"{detail}: {'the same draws' if near else 'other draws'}, their scores decide")


def _judge(subject: Subject, equal: bool, share: float | None) -> Judge:
    """How scores of regenerated samples are judged."""
    if equal and subject.same_machine:
        return agreement.of_same_pixels
    if equal or (share is not None and share >= agreement.SHARE_OF_SAME_DRAWS):
        return lambda recorded, found: agreement.of_same_pixels(recorded, found, agreement.SLACK)
    return agreement.of_another_draw
