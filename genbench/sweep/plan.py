"""A sweep's file -> its configurations and runs. Imports no torch.

    models = ["dcgan", "conv-vae", "./mygan.py:MyGAN"]
    tracks = ["mnist-3m"]
    seeds = 5

    [grid.dcgan]                 # every combination of the lists
    lr = [1e-4, 2e-4]

    [random.conv-vae]            # independent draws; their number is declared in every record as the tuning it is
    configurations = 8
    z_dim = [4, 8, 16]
    lr = { low = 1e-4, high = 1e-2, log = true }
"""

from __future__ import annotations

import itertools
import math
import random
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genbench.budget import Budget
from genbench.errors import GenbenchError, unknown
from genbench.inventory import ModelDescription, check_hparams
from genbench.records import RunSpec
from genbench.run import Place, Planned, plan
from genbench.seeds import stream
from genbench.track import Track

Value = bool | int | float | str
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Range(BaseModel):
    """Where a number is drawn from: uniform, or uniform in its logarithm."""

    model_config = _STRICT
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:g} must lie below high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log = true needs low above 0, not {self.low:g}")
        return self

    def draw(self, chance: random.Random) -> float:
        """One number."""
        return math.exp(chance.uniform(math.log(self.low), math.log(self.high))) if self.log else chance.uniform(self.low, self.high)


class Sweep(BaseModel):
    """What a sweep's file says."""

    model_config = _STRICT
    models: tuple[str, ...] = Field(min_length=1)
    tracks: tuple[str, ...] = Field(min_length=1)
    seeds: int | tuple[int, ...] = 1
    budget: str = ""
    """Instead of the tracks' own."""
    devices: int = Field(1, ge=1)
    """That train each run together."""
    grid: dict[str, dict[str, tuple[Value, ...]]] = {}
    random: dict[str, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Sweep:
        if self.budget:
            try:
                Budget.parse(self.budget)
            except GenbenchError as error:
                raise ValueError(str(error)) from None
        seeds = self.seed_list
        if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
            raise ValueError("seeds must be a number from 1, or a list of different numbers from 0")
        for kind, tables in (("grid", self.grid), ("random", self.random)):
            for name in tables:
                if name not in self.models:
                    raise ValueError(str(unknown("model", name, self.models)).replace("installed:", f"{kind} is for one of:"))
        for name, lists in self.grid.items():
            for key, values in lists.items():
                if not values:
                    raise ValueError(f"grid.{name}.{key} = [] leaves no run; list the values to try, or leave it out")
        both = sorted(set(self.grid) & set(self.random))
        if both:
            raise ValueError(f"{both[0]} has a grid and random draws; give it one of them")
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        """0, 1, ... or the seeds listed."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    def drawn(self, name: str) -> set[str]:
        """Hparams of a model, as the file names it, that are drawn from ranges."""
        return {key for key, value in self.random.get(name, {}).items() if isinstance(value, dict)}

    def configurations(self, name: str) -> list[dict[str, Any]]:
        """A model as the file names it -> its hparams that differ from preset and defaults, one dict a configuration.

        Raises GenbenchError where its random draws are not well described.
        """
        if name in self.grid:
            keys, lists = list(self.grid[name]), list(self.grid[name].values())
            return [dict(zip(keys, values, strict=True)) for values in itertools.product(*lists)]
        if name in self.random:
            return _draws(name, dict(self.random[name]))
        return [{}]


def load_sweep(path: Path) -> Sweep:
    """A TOML file -> Sweep. Raises GenbenchError that names the file, the place in it and what would work."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GenbenchError(f"sweep file {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GenbenchError(f"sweep file {path} is not TOML: {error}") from None
    for key in values:
        if key not in Sweep.model_fields:
            raise GenbenchError(f"sweep file {path}: {unknown('key', key, Sweep.model_fields)}".replace("installed:", "keys:"))
    try:
        return Sweep.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise GenbenchError(f"sweep file {path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def _draws(name: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
    count, seed = asked.pop("configurations", None), asked.pop("seed", 0)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise GenbenchError(f"random.{name}: say how many configurations to draw, like configurations = 8")
    if not isinstance(seed, int) or seed < 0:
        raise GenbenchError(f"random.{name}: seed = {seed!r} is no whole number from 0")
    sources: dict[str, Range | Sequence[Any]] = {}
    for key, value in asked.items():
        if isinstance(value, list) and value:
            sources[key] = value
        elif isinstance(value, dict):
            try:
                sources[key] = Range.model_validate(value)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join([f"random.{name}.{key}", *map(str, first["loc"])])
                raise GenbenchError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
        else:
            raise GenbenchError(f"random.{name}.{key}: give a list of choices, or a range like {{ low = 1e-4, high = 1e-2, log = true }}")
    found = []
    for number in range(count):
        chance = random.Random(stream(seed, f"sweep/{name}/{number}"))
        found.append({k: source.draw(chance) if isinstance(source, Range) else chance.choice(source) for k, source in sources.items()})
    return found


def runs_of(sweep: Sweep, models: Mapping[str, ModelDescription], track: Track, place: Place) -> list[Planned]:
    """All runs of a sweep on one track, seeds outermost: an interrupted night has every configuration once.

    `models` are the file's names and what they mean. Configurations that come to the same are run once. Raises GenbenchError.
    """
    planned: dict[Path, Planned] = {}
    for seed in sweep.seed_list:
        for name, model in models.items():
            configurations = sweep.configurations(name)
            for hparams in configurations:
                asked = whole_numbers(model, hparams, sweep.drawn(name))
                (one,) = plan([model], track, [seed], place, {model.name: asked})
                planned.setdefault(one.spec.folder, _declared(one, len(configurations)))
    return list(planned.values())


def whole_numbers(model: ModelDescription, hparams: Mapping[str, Any], drawn: Collection[str]) -> dict[str, Any]:
    """Hparams, those `drawn` from a range rounded where the model wants whole numbers.

    Raises GenbenchError where one is unknown or of another type.
    """
    whole = {name for name in drawn if name in model.hparams and model.hparams[name].type == "int"}
    return check_hparams(model, {name: round(value) if name in whole else value for name, value in hparams.items()})


def only(planned: Iterable[Planned], wanted: Sequence[str]) -> list[Planned]:
    """Those runs whose model, track or ``track/model/seed`` is one of the words. Raises GenbenchError for a word that is no run's."""
    planned = list(planned)
    if not wanted:
        return planned
    meant = {word: [one for one in planned if _is_meant(one.spec, word)] for word in wanted}
    nobody = [word for word, found in meant.items() if not found]
    if nobody:
        names = sorted({one.spec.model.name for one in planned})
        raise GenbenchError(f"--only {', '.join(nobody)} leaves no run; it takes a model ({', '.join(names)}), a track or track/model/seed")
    kept = {id(one) for found in meant.values() for one in found}
    return [one for one in planned if id(one) in kept]


def _is_meant(spec: RunSpec, word: str) -> bool:
    path = f"{spec.track.name}/{spec.model.name}/{spec.seed}"
    return word in (spec.model.name, spec.track.name) or f"{path}/".startswith(f"{word}/")


def _declared(one: Planned, configurations: int) -> Planned:
    """Several configurations of a model are trials, beside those that its preset took, whatever is published of them."""
    if configurations == 1:
        return one
    reference = one.spec.model.model_copy(update={"trials": one.spec.model.trials + configurations})
    return replace(one, spec=one.spec.model_copy(update={"model": reference}))
