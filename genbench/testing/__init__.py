"""The conformance suite: what every model must do, as small checks whose messages say what to change.

In a plugin's tests::

    from genbench.testing import parametrize_checks

    @parametrize_checks(my_plugin.genbench_models())
    def test_conformance(check):
        check()

On a command line: ``genbench check my-model``, or ``genbench check ./mygan.py:MyGAN``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from genbench.held_out import METHODS
from genbench.model import ModelSpec
from genbench.surroundings import isolated
from genbench.testing import building, learning, registration, sampling, training
from genbench.testing.subject import ConformanceError, NotApplicableError, Subject
from genbench.testing.where import explained

if TYPE_CHECKING:
    import pytest

__all__ = ["Check", "ConformanceError", "NotApplicableError", "Outcome", "check_model", "checks", "outcomes", "parametrize_checks"]

_CHECKS: tuple[Callable[[Subject], None], ...] = (
    registration.check_hparams_have_types_and_defaults,
    registration.check_name_paper_and_description,
    registration.check_licence,
    building.check_every_size,
    building.check_presets,
    building.check_follows_its_device,
    building.check_step_does_not_wait,
    training.check_step,
    training.check_bfloat16,
    training.check_global_state,
    training.check_checkpoint,
    training.check_resume,
    training.check_sampling_leaves_training_alone,
    sampling.check_samples,
    sampling.check_sampling_seed,
    sampling.check_independence_of_batch_size,
    sampling.check_labels,
    sampling.check_abilities,
    learning.check_learns,
)
_WHERE: Mapping[Callable[[Subject], None], Callable[[ModelSpec], bool]] = {
    building.check_presets: lambda spec: bool(spec.presets),
    sampling.check_labels: lambda spec: callable(getattr(spec.cls, "sample", None)) and spec.conditional,
    sampling.check_abilities: lambda spec: any(callable(getattr(spec.cls, name, None)) for name in METHODS),
    learning.check_learns: lambda spec: spec.family != "control",
}
"""Checks that are not for every model, and for which they are."""


@dataclass(frozen=True)
class Check:
    """One check of one model; calling it raises ConformanceError where the model fails, NotApplicableError where it says nothing."""

    spec: ModelSpec
    function: Callable[[Subject], None]

    @property
    def name(self) -> str:
        """In words: ``every size``."""
        return self.function.__name__.removeprefix("check_").replace("_", " ")

    def __str__(self) -> str:
        return f"{self.spec.name}: {self.name}"

    def __call__(self) -> None:
        """Run it; whatever the model does to the process's global state is undone."""
        with isolated():
            try:
                self.function(Subject(self.spec))
            except (ConformanceError, NotApplicableError):
                raise
            except Exception as error:
                raise ConformanceError(f"it raised {explained(error)}") from error


@dataclass(frozen=True)
class Outcome:
    """What a check said: ``ok``, ``failed`` with what to do, or ``skipped`` with the reason."""

    model: str
    check: str
    status: Literal["ok", "failed", "skipped"]
    message: str
    seconds: float


def checks(spec: ModelSpec) -> list[Check]:
    """All checks that are for this model, cheap ones first."""
    return [Check(spec, function) for function in _CHECKS if function not in _WHERE or _WHERE[function](spec)]


def outcomes(spec: ModelSpec) -> Iterator[Outcome]:
    """Run all checks of a model, one after another; none stops the others."""
    for check in checks(spec):
        started = time.perf_counter()
        status: Literal["ok", "failed", "skipped"] = "ok"
        message = ""
        try:
            check()
        except ConformanceError as error:
            status, message = "failed", str(error)
        except NotApplicableError as error:
            status, message = "skipped", str(error)
        yield Outcome(spec.name, check.name, status, message, time.perf_counter() - started)


def check_model(spec: ModelSpec) -> None:
    """Run all checks. Raises ConformanceError with the message of each that failed."""
    failed = [f"{outcome.check}: {outcome.message}" for outcome in outcomes(spec) if outcome.status == "failed"]
    if failed:
        raise ConformanceError("\n".join([f"{spec.name} fails {len(failed)} checks", *failed]))


def parametrize_checks(specs: Iterable[ModelSpec]) -> pytest.MarkDecorator:
    """Models -> a decorator that runs a test with a `check` argument once for every check of every model."""
    import pytest

    everything = [pytest.param(check, id=f"{check.spec.name}-{check.name.replace(' ', '-')}") for spec in specs for check in checks(spec)]
    return pytest.mark.parametrize("check", everything)
