"""A track fixes everything that makes scores comparable; its hash says whether two runs share one."""

from __future__ import annotations

import hashlib
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from genbench.budget import Budget
from genbench.errors import GenbenchError, unknown

PROTOCOL = "genbench-1"
_AT = "-at-"
_LATER = {"held_out_images": 500, "importance_samples": 50}
"""Keys that came after the first records, with the value those were made under: left out of the hash there, so that it stays theirs."""


def _budget(text: str) -> str:
    try:
        Budget.parse(text)
    except GenbenchError as error:
        raise ValueError(str(error)) from None
    return text


class Track(BaseModel):
    """Dataset and resolution, training budget, precision, sample count, extractor, metrics, seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    description: str = ""
    dataset: str
    size: int = Field(ge=4, le=1024)
    """Pixels of the square images models see. How a dataset gets there is the dataset's rule (`DatasetSpec.resize`)."""
    budget: Annotated[str, AfterValidator(_budget)]
    precision: Literal["fp32", "bf16"] = "fp32"
    flip: bool = False
    """Horizontal flips as training augmentation."""
    num_samples: int = Field(ge=2)
    extractor: str
    beside: tuple[str, ...] = ()
    """Extractors whose FID is shown beside the track's own, never ranked: features that anyone could train against have a witness."""
    reference: Literal["test", "train", "holdout"] = "test"
    """The split `fid` and its kin are measured against; the other split's FID stands beside it. ``holdout`` is for tuning."""
    metrics: tuple[str, ...] = (
        "fid", "kid", "is", "prdc", "statistical_fidelity", "conditional", "memorisation", "likelihood"
    )  # fmt: skip
    rank_by: str = "fid"
    seeds: int = Field(5, ge=1)
    """Training seeds 0 … seeds-1 of a ranked row."""
    curve: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Shares of the budget at which `curve_samples` images are drawn, off the clock, and scored by FID."""
    curve_samples: int = Field(1000, ge=0)
    held_out_images: int = Field(500, ge=2)
    """Test images that a model with likelihoods is asked about, at most."""
    importance_samples: int = Field(50, ge=1)
    """k of the importance-weighted bound."""
    target: float | None = Field(None, gt=0)
    """FID of the curve's `curve_samples` images whose first reaching is a model's time to target, in device-seconds; changes no score."""
    published: dict[str, dict[str, tuple[float, float]]] = {}
    """Model -> score -> the interval in which a reproduction of the published result must lie."""
    grace: float = Field(30.0, gt=0)
    """Seconds beyond a time budget after which the supervisor kills the run."""

    @property
    def base(self) -> str:
        """The name without another budget's (`with_budget`): models' presets are looked up by it."""
        return self.name.partition(_AT)[0]

    @property
    def ranks_by_likelihood(self) -> bool:
        """Whether rows are ranked by a bound of the likelihood: the curve then shows it, on holdout images."""
        return self.rank_by.startswith(("elbo_", "iwae_"))

    @property
    def reproduces(self) -> bool:
        """Whether it repeats a publication's set-up: a model's preset for it is published, not tuned."""
        return self.name.startswith("reproduce-")

    @property
    def protocol(self) -> str:
        """``toy`` (up to 1 000 samples), ``lite`` (up to 10 000) or ``official``: never mixed."""
        return "toy" if self.num_samples <= 1000 else "lite" if self.num_samples <= 10_000 else "official"

    @property
    def hash(self) -> str:
        """Eight hex digits over every key that a result depends on."""
        keys = self.model_dump(mode="json", exclude={"description", "seeds", "rank_by", "grace", "name", "published", "target"})
        for later, usual in _LATER.items():
            if keys[later] == usual:
                del keys[later]
        return short_hash({"protocol": PROTOCOL, **keys})


def short_hash(value: Any) -> str:
    """JSON value -> first eight hex digits of its SHA-256 in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()[:8]


def load_track(path: Path) -> Track:
    """A TOML file -> Track. Raises GenbenchError that names the file, the key and what would work."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GenbenchError(f"track file {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GenbenchError(f"track file {path}: {error}") from None
    return parse_track({"name": path.stem, **values}, source=str(path))


def parse_track(values: dict[str, Any], source: str) -> Track:
    """Plain values -> Track; `source` names their origin in errors."""
    for key in values:
        if key not in Track.model_fields:
            raise GenbenchError(f"track {source}: {unknown('key', key, Track.model_fields)}".replace("installed:", "keys:"))
    try:
        track = Track.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "track"
        raise GenbenchError(f"track {source}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    # not rules of `Track`: records of other times stay readable
    if not all(0 < share <= 1 for share in track.curve):
        raise GenbenchError(f"track {source}: curve: its points are shares of the budget, above 0 and up to 1, like [0.1, 0.5, 1.0]")
    if track.curve and track.curve_samples == 1:
        raise GenbenchError(f"track {source}: curve_samples: FID needs at least 2 images; 0 draws none")
    return track


def with_budget(track: Track, budget: str) -> Track:
    """The same track with another budget, under a name that says so: its rows are never mixed with the track's own, nor held against
    results published for that."""
    plain = budget.lower().replace(" ", "").replace("+", "")
    return track.model_copy(update={"budget": budget, "name": f"{track.base}{_AT}{plain}", "published": {}})


def shipped_tracks() -> list[Track]:
    """The tracks that come with the package, by dataset and budget; those that repeat a publication's set-up last."""
    files = [entry for entry in resources.files("genbench.tracks").iterdir() if entry.name.endswith(".toml")]
    tracks = [
        parse_track({"name": entry.name.removesuffix(".toml"), **tomllib.loads(entry.read_text(encoding="utf-8"))}, entry.name)
        for entry in files
    ]
    order = {"digits": 0, "mnist": 1, "cifar10": 2, "celeba": 3}

    def place(track: Track) -> tuple[bool, int, float, str]:
        return track.reproduces, order.get(track.dataset, 9), Budget.parse(track.budget).amount, track.name

    return sorted(tracks, key=place)
