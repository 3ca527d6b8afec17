"""What a leaderboard of ten thousand records costs to build, to build again after one more, and to check.

Run by hand: ``pytest tests/benchmarks/test_build_speed.py --benchmark-only``. The records are the published ones, each many times: ten
tracks, two hundred rows in each, five seeds, their scores scattered by a tenth; with curves and grids.
"""

import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genbench.records import RunRecord, Store, read_record

PUBLISHED = Path(__file__).parents[2] / "leaderboards/records"
TRACKS, ROWS, SEEDS = 10, 200, 5


def variant(record: RunRecord, track: int, row: int, seed: int) -> RunRecord:
    """A published record -> one of a row of its own in a track of its own, with scores that are its own."""
    scatter = random.Random(f"{track} {row} {seed}")
    own = record.spec.track.model_copy(update={"name": f"mnist-{track}", "seeds": SEEDS, "target": None})
    changed = {**record.spec.model.changed, "variant": row}
    model = record.spec.model.model_copy(update={"changed": changed, "hparams": {**record.spec.model.hparams, "variant": row}})
    spec = record.spec.model_copy(update={"model": model, "track": own, "track_hash": own.hash, "seed": seed})
    scores = tuple(
        score if score.value is None else score.model_copy(update={"value": score.value * scatter.lognormvariate(0, 0.1)})
        for score in record.scores
    )
    return record.model_copy(update={"spec": spec, "scores": scores})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A results folder of ten thousand records."""
    results = tmp_path_factory.mktemp("thousands") / "results"
    store = Store(results)
    published = [(record, path.parent) for path in Store(PUBLISHED).paths() if (record := read_record(path)).spec.seed == 0]
    for track in range(TRACKS):
        for row, (record, beside) in zip(range(ROWS), itertools.cycle(published), strict=False):
            for seed in range(SEEDS):
                path = store.commit(variant(record, track, row, seed))
                if (beside / "grid.png").exists():
                    os.link(beside / "grid.png", path.parent / "grid.png")
    assert len(store.paths()) == TRACKS * ROWS * SEEDS
    return results


def genbench(*words) -> float:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "genbench", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


@pytest.mark.benchmark(group="leaderboard of 10 000 records")
def test_build(benchmark, folder):
    out = folder.parent / "out"
    seconds: dict[str, float] = {}

    def build() -> None:
        seconds["from nothing"] = genbench("leaderboard", "build", "--results", folder, "--out", out)
        seconds["nothing new"] = genbench("leaderboard", "build", "--results", folder, "--out", out)
        record = read_record(Store(folder).paths()[0])
        Store(folder).commit(record.model_copy(update={"spec": record.spec.model_copy(update={"seed": SEEDS})}))
        seconds["one record more"] = genbench("leaderboard", "build", "--results", folder, "--out", out)

    benchmark.pedantic(build, rounds=1)
    files = [path for path in out.rglob("*") if path.is_file()]
    benchmark.extra_info |= {what: round(value, 1) for what, value in seconds.items()}
    benchmark.extra_info |= {"files": len(files), "MB": sum(path.stat().st_size for path in files) >> 20}
