"""From a results folder to a page that is open: which rows are judged, what they are judged against, where the server listens."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.catalogue import load_catalogue
from genbench.datasets.prepare import prepare, resolve
from genbench.errors import GenbenchError
from genbench.judge import require
from genbench.judge import study as studies
from genbench.judge.pictures import Pictures, gather
from genbench.judge.study import Entrant, Shown, Study
from genbench.judge.votes import Votes, database
from genbench.judgements import Mode
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.compare import find_row, find_table
from genbench.leaderboard.table import Row, Run

if TYPE_CHECKING:
    from genbench.judge.guard import Gate

SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Choice:
    """How a study is carried out; all of it is part of the study."""

    mode: Mode = "real-or-fake"
    trials: int = 100
    pool: int = 500
    exposure_ms: int | None = None


def prepare_study(results: Path, track: str, models: Sequence[str], choice: Choice, device: str = "") -> tuple[Study, Pictures]:
    """Rows of a results folder, named as in the tables (all models that have samples where none is), -> a study and its pictures.

    Raises GenbenchError.
    """
    table = find_table(read(results).tables, models or [track], track, device)
    rows = [find_row(table, name) for name in models] or [row for row in table.rows if any(map(_has_samples, row.runs))]
    if not rows:
        raise GenbenchError(f"judge: no finished run on {track} has its samples.npz beside it in {results}")
    if len({row.id for row in rows}) < len(rows):
        raise GenbenchError(f"judge: {', '.join(models)} name the same row more than once")
    real = [row.label for row in rows if _shows_real_images(row)]
    if real and choice.mode == "real-or-fake":
        raise GenbenchError(f"judge: {', '.join(real)} shows real images, which nobody can call generated; --mode which-is-better takes it")
    if choice.exposure_ms is not None and not 100 <= choice.exposure_ms <= 1000:
        raise GenbenchError(f"judge: --exposure {choice.exposure_ms} ms; 100 to 1000 ms can be judged")
    if not studies.FEWEST_TRIALS <= choice.trials <= 2000 or choice.pool < 1:
        raise GenbenchError(f"judge: --trials is {studies.FEWEST_TRIALS} to 2000 and --images at least 1")
    catalogue = load_catalogue(kinds=("dataset",))
    spec = resolve(table.track.dataset, {name: entry.spec for name, entry in catalogue.datasets.items()})
    data = prepare(spec, table.track.size)
    folders = {(row.id, run.seed): run.path.parent for row in rows for run in row.runs}
    study = studies.check(
        Study(
            mode=choice.mode, track=table.track.name, track_hash=table.track_hash, device_class=table.device_class,
            dataset=table.track.dataset, dataset_digest=data.digest, size=table.track.size, channels=data.channels,
            num_real=len(data.test), num_samples=table.track.num_samples, pool=choice.pool, trials=choice.trials,
            exposure_ms=choice.exposure_ms, entrants=tuple(_entrant(row) for row in sorted(rows, key=lambda row: row.id)),
        )
    )  # fmt: skip
    return study, gather(study, folders, data.test.images)


def _has_samples(run: Run) -> bool:
    return run.done and (run.path.parent / "samples.npz").exists()


def _shows_real_images(row: Row) -> bool:
    """Whether a row is a control whose samples are images of the data set."""
    return row.control and (row.model.holdout or any(flag.startswith("memorised") for run in row.runs for flag in run.record.flags))


def _entrant(row: Row) -> Entrant:
    runs = tuple(
        Shown(seed=run.seed, samples=run.record.digests["samples"]) for run in row.runs if run.done and "samples" in run.record.digests
    )
    if not runs:
        raise GenbenchError(f"judge: {row.label} has no finished run with samples; its runs: {row.status}")
    return Entrant(row=row.id, label=row.label, runs=runs)


def gate_for(address: str, port: int, token: str, names: Sequence[str]) -> Gate:
    """Where it listens and how people will write that -> who is let in. Raises GenbenchError where others could reach it unasked."""
    from genbench.judge.guard import Gate

    loopback, every = is_loopback(address), address in ("0.0.0.0", "::")
    if (names or not loopback) and len(token) < SHORTEST_TOKEN:
        raise GenbenchError(
            f"judge: others can reach {', '.join(names) or address}: that takes --token with {SHORTEST_TOKEN} characters or more, "
            f"for instance --token {secrets.token_urlsafe(16)}"
        )
    if every and not names:
        raise GenbenchError(f"judge: {address} is every address of this machine: say with --name what people type, like --name lab.local")
    written = f"[{address}]" if ":" in address else address.lower()
    hosts = {"127.0.0.1", "localhost", "[::1]", written} if loopback else set() if every else {written}
    known = {f"{host}:{port}" for host in hosts} | {host for host in hosts if port in (80, 443)}
    for name in map(str.lower, names):  # behind a proxy people type the name with its port, or with none
        known |= {name} if re.search(r":\d+$", name) else {name, f"{name}:{port}"}
    return Gate(frozenset(known), token)


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine reaches it. Raises GenbenchError where it is no address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        raise GenbenchError(f"judge: {address!r} is no IP address; 127.0.0.1 works, or one of this machine's") from None


def bind(address: str, port: int) -> socket.socket:
    """A listening address. Raises GenbenchError where it is taken or not this machine's."""
    where = "127.0.0.1" if address == "localhost" else address
    listening = socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((where, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise GenbenchError(f"judge: can't listen on {address} port {port}: {error.strerror or error}; --port 0 takes a free one") from None
    return listening


def serve(study: Study, pictures: Pictures, results: Path, listening: socket.socket, gate: Gate) -> None:
    """Answer until interrupted. Nothing of whoever asks is logged."""
    require("starlette", "uvicorn", "multipart")
    import uvicorn

    from genbench.judge.app import Desk, make_app

    votes = Votes(database(results, study.track), create=True)
    config = uvicorn.Config(
        make_app(Desk(study, votes, pictures), gate), access_log=False, log_level="warning", server_header=False, date_header=False,
        lifespan="off", ws="none", timeout_graceful_shutdown=5, proxy_headers=False,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        votes.close()
        listening.close()
