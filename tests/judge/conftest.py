"""Small studies without a results folder, people whose ability is known, and a server in a process of its own."""

from __future__ import annotations

import itertools
import json
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from genbench.judge.pictures import Pictures
from genbench.judge.study import REAL, Entrant, Shown, Study, check
from genbench.judge.trials import owner

ROWS = ("aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd")
LABELS = ("dcgan", "vae", "noise", "gan")


def study_of(mode="real-or-fake", models=2, *, size=8, channels=1, trials=40, pool=60, exposure=None, seeds=2) -> Study:
    """A study of models called dcgan, vae, noise, gan on 200 real images and 300 samples a run."""
    return check(Study(
        mode=mode, track="digits-20s", track_hash="12345678", device_class="cpu-2", dataset="digits", dataset_digest="e" * 64,
        size=size, channels=channels, num_real=200, num_samples=300, pool=pool, trials=trials, exposure_ms=exposure,
        entrants=tuple(
            Entrant(row=row, label=label, runs=tuple(Shown(seed=seed, samples=f"{at}{seed}" * 32) for seed in range(seeds)))
            for at, (row, label) in enumerate(zip(ROWS[:models], LABELS, strict=False))
        ),
    ))  # fmt: skip


def pixels(study: Study) -> dict[str, np.ndarray]:
    """Images whose upper left pixel says whose they are: 250 real, 10, 20, … the models in their order. So a test can look."""
    mark = {REAL: 250} | {entrant.row: 10 * (at + 1) for at, entrant in enumerate(study.entrants)}
    found = {}
    for at, key in enumerate(sorted(study.every_picture)):
        image = np.random.default_rng(at).integers(0, 200, (study.channels, study.size, study.size)).astype(np.uint8)
        image[:, 0, 0] = mark[owner(key)]
        found[key] = image
    return found


def pictures_of(study: Study) -> Pictures:
    return Pictures(study, pixels(study))


SERVER = """
import itertools, json, secrets, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import pictures_of
from genbench.judge import serve, study
seeds = itertools.count(int(sys.argv[4]))  # the same trials for the same people: of 95 % intervals one in twenty would fail by chance
secrets.randbits = lambda bits: next(seeds)
about, results, port = study.parse(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
where = serve.bind("127.0.0.1", port)
gate = serve.gate_for("127.0.0.1", where.getsockname()[1], "", [])
print(where.getsockname()[1], flush=True)
serve.serve(about, pictures_of(about), results, where, gate)
"""


class Server:
    """The page of a study in a process of its own, which can be killed and started again on the same port."""

    def __init__(self, study: Study, results: Path) -> None:
        self.study = study
        self.results = results
        self.port = self.starts = 0
        self.start()

    def start(self) -> None:
        code = SERVER.format(tests=str(Path(__file__).parent))
        command = [sys.executable, "-c", code, self.study.model_dump_json(), str(self.results), str(self.port), str(1000 * self.starts + 1)]
        self.starts += 1
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()


@pytest.fixture(autouse=True)
def same_people(monkeypatch):
    """The trials of the first, second, … person are the same in every run of a test: what it asks for fails by chance otherwise."""
    seeds = itertools.count(1)
    monkeypatch.setattr(secrets, "randbits", lambda bits: next(seeds))


@pytest.fixture
def serving(tmp_path):
    """A study -> its running server."""
    started = []

    def start(study: Study, results: Path = tmp_path / "results") -> Server:
        started.append(Server(study, results))
        return started[-1]

    yield start
    for server in started:
        server.stop()


class Browser:
    """What a browser does, without one: cookies, Origin, CSRF token."""

    def __init__(self, client, url: str) -> None:
        self.client = client
        self.url = url
        self.csrf = ""

    def join(self, nickname: str = "") -> None:
        page = self.client.get(self.url + "/").text
        self.csrf = re.search(r'name="csrf" value="([0-9a-f]{32})"', page)[1]
        form = {"csrf": self.csrf, "nickname": nickname, "consent": "yes"}
        answer = self.client.post(self.url + "/join", data=form, headers={"Origin": self.url})
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"] == "/judge"

    def state(self) -> dict:
        return self.client.get(self.url + "/state").json()

    def post(self, path: str, body: dict, **headers: str):
        sent = {"Origin": self.url, "X-CSRF-Token": self.csrf, "Content-Type": "application/json", **headers}
        return self.client.post(self.url + path, content=json.dumps(body), headers=sent)

    def vote(self, state: dict, answer: str, ms: int = 800):
        return self.post("/vote", {"trial": state["next"][0]["trial"], "attempt": state["attempt"], "answer": answer, "ms": ms})

    def picture(self, name: str):
        return self.client.get(f"{self.url}/picture/{name}")


def wait_for(condition, seconds=20.0):
    """Until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def make():
    """The helpers above, by name."""
    return SimpleNamespace(
        study=study_of, pictures=pictures_of, pixels=pixels, rows=ROWS, labels=LABELS, Browser=Browser, wait_for=wait_for,
        answer_all=answer_all, fooled_by=fooled_by, results=results_of,
    )  # fmt: skip


def answer_all(votes, study: Study, token: str, decide, *, ms=900, upto=None) -> str:
    """A person who says `decide(trial)` to each trial, straight into the file -> their id."""
    from genbench.judge.votes import Vote

    votes.enter_study(study)
    person = votes.enter(study, token, f"Person {token}").id
    for trial in votes.trials(person)[:upto]:
        votes.vote(study, person, Vote(trial.number, 0, decide(trial), ms))
    return person


def fooled_by(rates: dict[str, float], seed=0):
    """Whoever is fooled by exactly this share of each owner's pictures (``real`` too), the same way at the second showing."""
    seen: dict[str, int] = {}
    said: dict[str, str] = {}

    def decide(trial) -> str:
        whose = owner(trial.left)
        if trial.left not in said:
            at = seen[whose] = seen.get(whose, 0) + 1
            wrong = int(at * rates[whose] + 1e-9) > int((at - 1) * rates[whose] + 1e-9)
            said[trial.left] = "real" if (whose == REAL) != wrong else "fake"
        return said[trial.left]

    return decide


def results_of(folder: Path, track: str = "digits-20s", seeds=2) -> Path:
    """A results folder of finished runs of dcgan, vae and noise (a control), with samples: blurred, shifted, random digits."""
    import hashlib

    from genbench.records import Environment, ModelRef, RunRecord, RunSpec, Score, Store
    from genbench.track import shipped_tracks

    chosen = next(one for one in shipped_tracks() if one.name == track)
    store = Store(folder)
    for at, name in enumerate(("dcgan", "vae", "noise")):
        for seed in range(seeds):
            family = "control" if name == "noise" else "gan"
            model = ModelRef(name=name, family=family, source="x", distribution="x", version="1", digest="d" * 64)
            spec = RunSpec(model=model, track=chosen, track_hash=chosen.hash, seed=seed, device="cpu-2")
            images = np.random.default_rng(10 * at + seed).integers(0, 256, (chosen.num_samples, 1, 8, 8)).astype(np.uint8)
            record = RunRecord(
                spec=spec, status="done", started="2026-01-01T00:00:00+00:00",
                scores=(Score(name="fid", value=10.0 * (at + 1) + seed, better="lower", extractor=chosen.extractor, protocol="p"),),
                environment=Environment(
                    genbench="0.1.0", python="3.11", torch="2", device="CPU", cores=2, threads=2, platform="Linux"
                ),
                digests={"samples": hashlib.sha256(images.tobytes()).hexdigest()},
            )  # fmt: skip
            where = store.commit(record).parent
            np.savez(where / "samples.npz", images=images)
    return folder
