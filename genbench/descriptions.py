"""Descriptions of what is installed as plain values, and hparams checked against them. Imports no torch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from genbench.errors import GenbenchError, unknown
from genbench.modelfile import is_file
from genbench.origin import Entry, Kind
from genbench.track import Track


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return value


Value = Annotated[bool | int | float | str | None, AfterValidator(_finite)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HparamDescription(_Part):
    """A hyper-parameter: default, type (``int``, ``float``, ``bool``, ``str``) and choices, where it has them."""

    default: Value
    type: Literal["bool", "int", "float", "str"]
    choices: tuple[Value, ...] | None = None


class _Description(_Part):
    name: str
    description: str = ""
    distribution: str
    version: str
    """Of the distribution."""
    digest: str
    """SHA-256 over the plugin's source files; of a model, over those it is made of."""
    source: str
    """What `genbench.catalogue.load_entry` takes: an entry point's value, or a file's absolute path and class."""


class ModelDescription(_Description):
    """A model, as `genbench.ModelSpec` says it."""

    family: str
    paper: str = ""
    hparams: dict[str, HparamDescription] = {}
    sizes: tuple[int, ...] | None = None
    presets: dict[str, dict[str, Value]] = {}
    trials: int = 0
    pretrained: str = ""
    holdout: bool = False
    conditional: bool = False
    """Told which classes to make."""
    single_device: dict[str, str] = {}
    """Hparams as on a command line (none: always) -> why the model with them can't train on several devices."""

    def alone(self, hparams: Mapping[str, Any]) -> str:
        """Why the model with these hparams, all of them, can't train on several devices; empty where it can."""
        for written, why in self.single_device.items():
            if all(hparams[name] == value for name, value in check_hparams(self, _written(written)).items()):
                return why
        return ""

    @property
    def label(self) -> str:
        """The source as records name it, without this machine's folders: ``genbench_gans``, ``mygan.py:MyGAN``."""
        return Path(self.source).name if is_file(self.source) else self.source

    @property
    def defaults(self) -> dict[str, Any]:
        """Hparam -> default."""
        return {name: hparam.default for name, hparam in self.hparams.items()}


class DatasetDescription(_Description):
    """A dataset, as `genbench.DatasetSpec` says it."""

    channels: int
    native_size: int
    num_classes: int = 0
    holdout: int = 0
    resize: str = ""
    licence: str = ""
    url: str = ""


class ExtractorDescription(_Description):
    """An extractor, as `genbench.ExtractorSpec` says it."""

    dim: int
    num_classes: int = 0
    labels_of: str = ""
    accuracy: float | None = None


class MetricDescription(_Description):
    """A metric, as `genbench.MetricSpec` says it."""

    paper: str = ""


class TrackDescription(Track):
    """A track's keys and who ships it."""

    distribution: str
    version: str
    digest: str
    source: str

    @property
    def track(self) -> Track:
        """The track alone, as runs and records hold it."""
        return Track(**{key: getattr(self, key) for key in Track.model_fields})

    @property
    def hash(self) -> str:
        """The track's own: who ships it makes no difference to a result."""
        return self.track.hash


def check_hparams(model: ModelDescription, given: Mapping[str, Any]) -> dict[str, Any]:
    """Hparams as a command line (text) or a TOML file (values) gives them -> values of the right type.

    Raises GenbenchError: unknown (with a suggestion), wrong type, not among the choices, not finite.
    """
    values = {}
    for name, value in given.items():
        if name not in model.hparams:
            raise GenbenchError(f"model {model.name!r}: {unknown('hparam', name, model.hparams)}".replace("installed:", "hparams:"))
        hparam = model.hparams[name]
        try:
            values[name] = _convert(value, hparam)
        except ValueError as error:
            raise GenbenchError(f"model {model.name!r}: hparam {name}={value!s:.60} {error}; default: {hparam.default!r}") from None
    return values


def _conditions(said: Any) -> dict[str, str]:
    """`ModelSpec.single_device` -> hparams as on a command line -> why."""
    if isinstance(said, str):
        return {"": said} if said else {}
    return dict(said)


def _written(hparams: str) -> dict[str, str]:
    """``"a=1 b=x"`` -> ``{"a": "1", "b": "x"}``."""
    return {name: value for name, _, value in (pair.partition("=") for pair in hparams.split())}


def _convert(value: Any, hparam: HparamDescription) -> Any:
    """Text or value -> a value of the hparam's type. Raises ValueError that reads on from ``hparam x=y``."""
    if hparam.default is None and (value is None or (isinstance(value, str) and value.strip().lower() == "none")):
        return None
    converted = _as_type(value, hparam.type)
    if hparam.choices is not None and converted not in hparam.choices:
        raise ValueError(f"is not one of {', '.join(map(str, hparam.choices))}")
    return converted


def _as_type(value: Any, kind: str) -> bool | int | float | str:
    text = isinstance(value, str)
    if kind == "str" and text:
        return str(value)
    if kind == "bool":
        words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
        if isinstance(value, bool):
            return value
        if text and value.strip().lower() in words:
            return words[value.strip().lower()]
        raise ValueError("is not true or false")
    if kind == "int" and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            if text or isinstance(value, int):
                return int(value)
    if kind == "float" and not isinstance(value, bool) and (text or isinstance(value, int | float)):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise ValueError("is not a number") from None
        if not math.isfinite(number):
            raise ValueError("is not a finite number")
        return number
    raise ValueError({"int": "is not a whole number", "float": "is not a number", "str": "is not text"}[kind])


def _origin(entry: Entry[Any]) -> dict[str, str]:
    return {"distribution": entry.distribution, "version": entry.version, "digest": entry.digest, "source": entry.source}


def _described(cls: type[BaseModel], entry: Entry[Any]) -> BaseModel:
    """The fields that a spec and its description share, and the origin."""
    shared = {name: getattr(entry.spec, name) for name in cls.model_fields if hasattr(entry.spec, name)}
    return cls.model_validate({**shared, **_origin(entry)})


def describe_model(entry: Entry[Any]) -> ModelDescription:
    """A registered model -> its description. Raises TypeError or ValidationError where a default or a preset does not fit."""
    found = {}
    for name, hparam in entry.spec.hparams.items():
        described = HparamDescription(default=hparam.default, type=hparam.type, choices=hparam.choices)
        try:
            default = None if hparam.default is None else _convert(hparam.default, described)
        except ValueError as error:
            raise TypeError(f"the default of hparam {name}, {hparam.default!r}, {error}") from None
        found[name] = described.model_copy(update={"default": default})
    spec = entry.spec
    model = ModelDescription(
        name=spec.name, description=spec.description, family=spec.family, paper=spec.paper, hparams=found, sizes=spec.sizes,
        trials=spec.trials, pretrained=spec.pretrained, holdout=spec.holdout, conditional=spec.conditional,
        single_device=_conditions(spec.single_device), **_origin(entry),
    )  # fmt: skip
    for condition in model.single_device:
        try:
            check_hparams(model, _written(condition))
        except GenbenchError as error:
            raise TypeError(f"single_device {condition!r}: {error}") from None
    presets = {}
    for track, values in spec.presets.items():
        try:
            presets[track] = check_hparams(model, values)
        except GenbenchError as error:
            raise TypeError(f"preset {track!r}: {error}") from None
    return model.model_copy(update={"presets": presets})


DESCRIBE: dict[Kind, Callable[[Entry[Any]], BaseModel]] = {
    "model": describe_model,
    "dataset": lambda entry: _described(DatasetDescription, entry),
    "extractor": lambda entry: _described(ExtractorDescription, entry),
    "metric": lambda entry: _described(MetricDescription, entry),
    "track": lambda entry: _described(TrackDescription, entry),
}
# A metric's and an extractor's own `version` is the estimator's; `_origin` puts the distribution's in its place.
