"""What the published JSON holds, as models whose JSON Schemas are published beside it: for those who read it without genbench."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict

from genbench.leaderboard.columns import Better
from genbench.records import Finite, Part, RunRecord, Status
from genbench.track import Track


class Described(Part):
    """What published files are made of. The words below a field are its description in the schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Cell(Described):
    """One measure of one row."""

    mean: Finite | None
    """Over finished seeds."""
    half_width_95: Finite | None
    """Of the 95 % t interval of the mean; null below two finished seeds."""
    median: Finite | None
    """Over all planned seeds, a failed one as the worst value; null where that is infinite."""
    best: bool
    """Whether the mean is the best of its column."""
    extractor: str | None
    """Whose features were compared; null where none were."""
    protocols: tuple[str, ...]
    """Under which the values were made; more than one: not comparable."""
    note: str
    by_seed: dict[str, Finite | None]


class SecondsToTarget(Described):
    """Device-seconds of training until the curve's FID first reached the track's target; null where it never did."""

    target: Finite | None
    median: Finite | None
    by_seed: dict[str, Finite | None]


class Run(Described):
    """One run of a row."""

    seed: int
    status: Status
    reason: str
    started: str
    """UTC, ISO 8601."""
    folder: str
    """Place inside a results folder."""


class Row(Described):
    """One model in one table."""

    track: str
    track_hash: str
    device_class: str
    rank: int | None
    """Null for a control, and where nothing can be ranked."""
    rank_interval_95: tuple[int, int] | None
    group: str
    """Letters; rows that share one are not distinguishable in what the track ranks by."""
    preliminary: bool
    """Fewer than five seeds."""
    label: str
    """Tells the row from the others of its table."""
    model: str
    family: str
    prior: str
    control: bool
    row: str
    """Eight hex digits of its identity: name, source, package, version, digest, changed hparams."""
    done: int
    """Planned seeds that finished."""
    ended: int
    """Planned seeds that ended, however."""
    planned: int
    tier: str
    """How far it was verified: T0 reported, T1 recomputed, T2 regenerated, T3 retrained; "(self)": by whoever ran it."""
    status: str
    flags: tuple[str, ...]
    distribution: str
    version: str
    digest: str
    """SHA-256 over the source files the model is made of."""
    paper: str
    changed: dict[str, bool | int | float | str | None]
    """Hparams that differ from the defaults."""
    reproduce: str
    """The shell command that runs it again."""
    seconds_to_target: SecondsToTarget
    runs: tuple[Run, ...]
    scores: dict[str, Cell]
    """By the key of their column."""


class Column(Described):
    """One measure of a table."""

    key: str
    title: str
    better: Better
    unit: str
    explanation: str
    protocols: tuple[str, ...]
    """Of its models' scores, most frequent first."""


class Table(Described):
    """One ranking: one track hash on one device class."""

    track_hash: str
    device_class: str
    devices: tuple[str, ...]
    harness: tuple[str, ...]
    """Versions of genbench that made the runs."""
    gemm_gflops: tuple[Finite, Finite] | None
    """Lowest and highest calibrated rate of a float32 matrix product."""
    extractor_accuracy: Finite | None
    rank_by: str
    """Key of the column whose median ranks the rows."""
    notes: tuple[str, ...]
    """What to know before comparing rows."""
    columns: tuple[Column, ...]
    floor: dict[str, Finite]
    """By column, the same measure of real training images."""
    fronts: dict[str, tuple[str, ...]]
    """By cost, the labels of the rows that no other beats in both FID and that."""
    rows: tuple[Row, ...]
    """Models by rank, then controls."""


class Tables(Described):
    """<track>.json: the tables of a track."""

    schema_version: Literal[1]
    track: Track
    """As the fullest table has it; another hash among `tables` is of another version of it."""
    tables: tuple[Table, ...]


class TrackOfAcross(Described):
    """A track that counts, and the FID of the curve's images to reach in it."""

    name: str
    target: Finite | None


class Entrant(Described):
    """A model in every one of the tracks; lists are by track."""

    label: str
    mean_rank: Finite
    ranks: tuple[Finite, ...]
    medians: tuple[Finite | None, ...]
    """Of what each track ranks by; null where more than half of the seeds failed."""
    seconds_to_target: tuple[Finite | None, ...]
    """Median; null where there is no target or more than half of the seeds never reached it."""


class FriedmanTest(Described):
    """Friedman's test, and Nemenyi's critical difference of mean ranks at 5 %."""

    chi2: Finite
    p: Finite
    critical_difference: Finite


class OneDeviceClass(Described):
    """What the tables of one device class say together."""

    device_class: str
    tracks: tuple[TrackOfAcross, ...]
    entrants: tuple[Entrant, ...]
    """By mean rank, best first."""
    friedman: FriedmanTest | None
    not_distinguishable: tuple[tuple[str, ...], ...]
    """Labels of every largest run of entrants that Nemenyi's test can't tell apart."""
    refused: str
    """Why there is no test; empty where there is one."""
    notes: tuple[str, ...]


class Across(Described):
    """across.json: ranks and times over tracks."""

    schema_version: Literal[1]
    across: tuple[OneDeviceClass, ...]


PUBLISHED: dict[str, type[BaseModel]] = {"records": RunRecord, "tables": Tables, "across": Across}
"""What ``<name>.schema.json`` describes."""


def schema(model: type[BaseModel]) -> bytes:
    """A model -> its JSON Schema."""
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"
