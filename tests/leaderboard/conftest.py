"""Synthetic records: valid RunRecord objects in every state a results folder may be in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from genbench.records import CurvePoint, Environment, ModelRef, RunRecord, RunSpec, Score, Spent, Store, Throughput
from genbench.track import Track

PROTOCOL = "aaaa1111"


def track(**changes):
    values = {
        "name": "mnist-3m",
        "description": "MNIST at 32x32, three minutes",
        "dataset": "mnist",
        "size": 32,
        "budget": "3m",
        "precision": "bf16",
        "num_samples": 10_000,
        "extractor": "mnist-cnn",
        "seeds": 5,
    }
    return Track.model_validate(values | changes)


def score(name, value, better="lower", *, floor=None, extractor="mnist-cnn", protocol=PROTOCOL, note=""):
    return Score(
        name=name,
        value=value,
        better=better,
        floor=floor,
        extractor=extractor,
        protocol=protocol,
        split="test",
        n_real=10_000,
        n_fake=10_000,
        note=note,
    )


def environment(**changes):
    values = {
        "genbench": "0.1.0",
        "python": "3.11.2",
        "torch": "2.13.0",
        "device": "AMD EPYC 9B45",
        "cores": 2,
        "threads": 2,
        "platform": "Linux",
    }
    return Environment.model_validate(values | changes)


def record(
    name="dcgan",
    seed=0,
    fid=100.0,
    *,
    family="gan",
    status="done",
    reason="",
    the_track=None,
    scores=(),
    changed=None,
    speed=1000.0,
    curve=(),
    version="0.1.0",
    digest="d" * 64,
    device="cpu-2",
    env=None,
    started=None,
    flags=(),
    prior="",
    log_tail=(),
    gemm=(160.0, 160.0),
    paper="arXiv:1511.06434",
    source="genbench_gans:plugin",
    protocol=PROTOCOL,
    **model,
):
    chosen = the_track or track()
    ref = ModelRef(
        name=name,
        family=family,
        paper=paper,
        source=source,
        distribution="genbench-gans",
        version=version,
        digest=digest,
        hparams={"z_dim": 100, **(changed or {})},
        changed=changed or {},
        **model,
    )
    spec = RunSpec(model=ref, track=chosen, track_hash=chosen.hash, seed=seed, device=device)
    done = status == "done"
    return RunRecord(
        spec=spec,
        status=status,
        reason=reason,
        log_tail=tuple(log_tail),
        started=started or f"2025-01-0{1 + seed % 9}T10:00:00+00:00",
        flags=tuple(flags),
        prior=prior,
        scores=(score("fid", fid, floor=2.9, extractor=chosen.extractor, protocol=protocol), *scores) if done else (),
        curve=tuple(curve),
        spent=Spent(budget=chosen.budget, seconds=180.2, steps=4321, images=276_544, gemm_gflops=gemm),
        throughput=Throughput(train=speed, sample={"64": (9000.0, 8000.0, 9500.0)}, parameters=1_234_567, train_peak_bytes=812_000_000)
        if done
        else None,
        environment=environment() if env is None else env or None,
    )


def falling(final, seconds=180.0, shares=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), start=3000.0):
    """A curve that falls from about `start` to about 1.1 x `final`."""
    points = []
    for share in shares:
        fid = final * 1.1 + (start - final) * float(np.exp(-6 * share))
        points.append(
            CurvePoint(progress=share + 0.001, seconds=share * seconds, steps=int(share * 4321), images=int(share * 276_544), fid=fid)
        )
    return points


def grid_png(path, seed=0, size=130):
    """A square grayscale PNG of blobs, `size` pixels wide."""
    noise = np.random.default_rng(seed).integers(0, 255, (size // 10, size // 10), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.kron(noise, np.ones((10, 10), np.uint8))).save(path)


def write(root, *records, grids=False):
    """Commit records to a results folder; returns its path."""
    store = Store(Path(root))
    for item in records:
        path = store.commit(item)
        if grids and item.status == "done":
            grid_png(path.parent / "grid.png", seed=item.spec.seed)
    return Path(root)


def full(seeds=3):
    """A plausible results folder: GANs, VAEs, a model with failures, controls, flags."""
    rng = np.random.default_rng(5)
    models = [
        ("dcgan", "gan", 96.0, 1650.0, None, "arXiv:1511.06434"),
        ("wgan-gp", "gan", 171.0, 700.0, {"width": 48, "lr": 0.0002}, "arXiv:1704.00028"),
        ("gan", "gan", 331.0, 9100.0, None, "arXiv:1406.2661"),
        ("vae", "vae", 262.0, 12400.0, None, "arXiv:1312.6114"),
        ("conv-vae", "vae", 201.0, 2100.0, None, "arXiv:1312.6114"),
        ("beta-vae", "vae", 402.0, 2050.0, {"beta": 4.0}, "Higgins et al. 2017"),
    ]
    found = []
    for name, family, fid, speed, changed, paper in models:
        for seed in range(seeds):
            value = fid * float(rng.uniform(0.94, 1.06))
            rest = [
                score("fid_infinity", value * 0.98),
                score("fid_train", value * 1.01, floor=2.0),
                score("kid", value / 900, floor=0.0004),
                score("is", 9.0 - value / 200, "higher", floor=9.7),
                score("precision", 0.9 - value / 900, "higher", floor=0.951),
                score("recall", 0.7 - value / 700, "higher", floor=0.948),
                score("density", 1.0 - value / 800, "higher", floor=1.003),
                score("coverage", 0.9 - value / 600, "higher", floor=0.969),
                score("statistical_fidelity", 0.9 - value / 600, "higher", floor=1.0, extractor=None),
                score("mean_gap", value / 9000, floor=0.0011, extractor=None),
                score("w1", value / 5000, floor=0.002, extractor=None),
                score("spectrum_db", value / 100, floor=0.05, extractor=None),
                score("class_tv", value / 2000, floor=0.006),
                score("their_own_measure", value * 2, "neither", extractor=None),
            ]
            made = {"scores": rest, "curve": falling(value), "speed": speed * float(rng.uniform(0.97, 1.03))}
            found.append(record(name, seed, value, family=family, changed=changed, paper=paper, **made))
    found.append(record("sn-gan", 0, 120.0, changed={"n_dis": 5}, curve=falling(120.0), speed=820.0, flags=["clipped 3 %"]))
    why = {"status": "diverged", "reason": "loss_D became nan at step 812", "log_tail": ["tick 0.10 loss_D 0.7", "tick 0.12 loss_D nan"]}
    found.append(record("sn-gan", 1, changed={"n_dis": 5}, **why))
    found.append(record("sn-gan", 2, changed={"n_dis": 5}, status="oom", reason="DefaultCPUAllocator: can't allocate memory", env=False))
    for name, value in (("real-holdout", 3.1), ("pca-gaussian", 610.0), ("noise", 6381.0)):
        point = [CurvePoint(progress=1.0, seconds=0.1, steps=1, images=64, fid=value * 1.05)]
        found.append(
            record(
                name, 0, value, family="control", curve=point, speed=None, scores=[score("precision", 0.5, "higher", floor=0.951)], paper=""
            )
        )
    return found


HOSTILE = [
    "<script>alert(1)</script>",
    '=HYPERLINK("http://x.example")',
    "a|b`c`[d](http://x.example)",
    "$\\frac{",
    "../../etc/passwd",
    "_under",
    "\u202eevil\nname",
    "@SUM(A1)",
]


@pytest.fixture(scope="session")
def make():
    """The helpers above, by name."""
    return SimpleNamespace(
        track=track,
        score=score,
        environment=environment,
        record=record,
        falling=falling,
        grid_png=grid_png,
        write=write,
        full=full,
        hostile=HOSTILE,
        protocol=PROTOCOL,
    )
