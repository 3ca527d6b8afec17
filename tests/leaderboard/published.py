"""A small folder of published records that fit each other, their files and their tables, for tests that then spoil something."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from genbench.grid import grid_png
from genbench.records import CurvePoint, Environment, ModelRef, RunRecord, RunSpec, Score, Spent, Throughput, curve_csv
from genbench.track import shipped_tracks

TRACK = next(track for track in shipped_tracks() if track.name == "digits-20s")


def honest(
    name="vae", seed=0, fid=20.0, *, family="vae", status="done", digests=None, track=TRACK, model=None, device="cpu-2", **changes
) -> RunRecord:  # fmt: skip
    """A record whose parts fit each other; `model` changes its ModelRef, `changes` the record."""
    ref = ModelRef(
        name=name, family=family, paper="arXiv:1312.6114", source="plug_in", distribution="plug-in", version="1.0", digest="d" * 64,
        hparams={"width": 8, "batch_size": 16}, changed={"width": 8},
    ).model_copy(update=model or {})  # fmt: skip
    done = status == "done"
    scores = [
        Score(name="fid", value=fid + seed, better="lower", floor=4.0, interval=(fid, fid + seed + 2), extractor="digits-cnn", split="test",
              n_real=300, n_fake=300, protocol="aaaa1111"),
        Score(name="precision", value=0.5, better="higher", floor=0.9, extractor="digits-cnn", split="test", n_real=300, n_fake=300,
              protocol="bbbb2222"),
    ]  # fmt: skip
    values = {
        "spec": RunSpec(model=ref, track=track, track_hash=track.hash, seed=seed, device=device), "status": status,
        "reason": "" if done else "loss was nan", "started": f"2026-01-0{1 + seed}T00:00:00+00:00", "scores": tuple(scores) if done else (),
        "curve": tuple(CurvePoint(progress=p, seconds=20 * p, steps=int(100 * p), images=int(100 * p) * 16, fid=50.0) for p in (0.5, 1.0)),
        "spent": Spent(budget=track.budget, seconds=20.5, steps=100, images=1600, overshoot=0.5, waited=0.01),
        "throughput": Throughput(train=80.0, parameters=12, sample={"64": (900.0, 800.0, 1000.0)}),
        "environment": Environment(genbench="0.1.0", python="3.11", torch="2.13", device="A processor", cores=2, threads=2, platform="L"),
        "digests": {what: sha256(f"{what} of {name} {seed}") for what in ("samples", "checkpoint")} if digests is None else digests,
        "extractor_accuracy": 0.98,
    }  # fmt: skip
    return RunRecord.model_validate(values | changes)


def sha256(text: str) -> str:
    """Of a text, as a digest of something."""
    return hashlib.sha256(text.encode()).hexdigest()


def images(seed=0, n=300):
    """(n, 1, 8, 8) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)


def arrays(**named) -> tuple[bytes, str]:
    """Arrays -> a ``samples.npz`` and the digest that its record holds."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **named)
    return buffer.getvalue(), hashlib.sha256(b"".join(array.tobytes() for array in named.values())).hexdigest()


def results_run(root: Path, *, seed=0, **changes) -> Path:
    """A run with all its files in a results folder."""
    checkpoint = b"weights of seed %d, or not really" % seed
    samples, digest = arrays(images=images(seed))
    sealed = hashlib.sha256(checkpoint).hexdigest()
    record = honest(seed=seed, digests={"samples": digest, "checkpoint": sealed}, **changes)
    folder = root / record.spec.folder
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(record.model_dump_json(indent=1))
    (folder / "curve.csv").write_bytes(curve_csv(record.curve))
    if record.status == "done":
        (folder / "samples.npz").write_bytes(samples)
        (folder / "grid.png").write_bytes(grid_png(images(seed)))
        (folder / "checkpoint.safetensors").write_bytes(checkpoint)
        (folder / "checkpoint.json").write_text(json.dumps({"sha256": sealed, "parameters": 12, "extra": {}}))
    return folder


def publish(root: Path, *records: RunRecord) -> list[Path]:
    """Records -> their folders under ``root/records``, with curve and grid."""
    found = []
    for record in records:
        folder = root / "records" / Path(*record.spec.folder.parts[1:])
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(record.model_dump_json(indent=1))
        (folder / "curve.csv").write_bytes(curve_csv(record.curve))
        Image.fromarray(np.full((20, 30), record.spec.seed, np.uint8)).save(folder / "grid.png")
        found.append(folder)
    return found
