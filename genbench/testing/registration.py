"""Checks of what a plugin says of a model: name, paper, hparams, presets, licence. Nothing is built."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import Distribution

from genbench.descriptions import describe_model
from genbench.modelfile import contract_problem
from genbench.origin import Entry, explain, plugin_points
from genbench.testing.subject import ConformanceError, NotApplicableError, Subject

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})(v\d+)?")


def check_hparams_have_types_and_defaults(subject: Subject) -> None:
    """The command line, sweeps and records can spell and check every hparam and preset."""
    spec = subject.spec
    problem = contract_problem(spec)
    if problem:
        raise ConformanceError(problem)
    for name, parameter in list(inspect.signature(spec.cls).parameters.items())[1:]:
        if parameter.annotation is parameter.empty:
            kind = type(parameter.default).__name__
            raise ConformanceError(
                f"hparam {name!r} has no type in {spec.cls.__name__}.__init__; write {name}: {kind} = {parameter.default!r}"
            )
    try:
        describe_model(Entry(spec, "?", "?", "", "?"))
    except TypeError as error:
        raise ConformanceError(str(error)) from None
    except ValueError as error:  # pydantic's
        raise ConformanceError(f"ModelSpec cannot be described: {explain(error)}") from None


def check_name_paper_and_description(subject: Subject) -> None:
    """A reader of a table can find out what a model is."""
    spec = subject.spec
    if spec.name == spec.cls.__name__:
        raise NotApplicableError("a model in a file is named after its class; names and papers count once it is registered")
    if not _NAME.fullmatch(spec.name):
        raise ConformanceError(f"name {spec.name!r}: use lower-case letters and digits in words joined by dashes, like 'wgan-gp'")
    if not spec.description.strip() or "\n" in spec.description or len(spec.description) > 100:
        raise ConformanceError("ModelSpec needs a description: what is special about this model, in one line of at most 100 characters")
    if spec.family in ("gan", "vae") and not spec.paper.strip():
        raise ConformanceError("ModelSpec names no paper: give arXiv:NNNN.NNNNN, a DOI, a venue and year, or 'unpublished'")
    if spec.paper.lower().startswith("arxiv") and not _ARXIV.fullmatch(spec.paper):
        raise ConformanceError(f"paper {spec.paper!r} is no arXiv identifier; they are written like arXiv:1511.06434")
    if bool(spec.presets) != bool(spec.trials):
        said = "presets but trials=0" if spec.presets else f"trials={spec.trials} but no presets"
        raise ConformanceError(f"ModelSpec has {said}: say how many trials its presets were tuned in (on the holdout split)")


def check_licence(subject: Subject) -> None:
    """The distribution that ships the model says under which licence."""
    package = subject.spec.cls.__module__.partition(".")[0]
    distribution = _distribution(package)
    if distribution is None:
        raise NotApplicableError(f"no installed distribution has an entry point to {package!r}")
    fields = [("License-Expression", ""), ("License", ""), ("Classifier", "License ::")]
    said = [text for name, start in fields for text in distribution.metadata.get_all(name) or [] if text.startswith(start)]
    if not any(text.strip().upper() not in ("", "UNKNOWN") for text in said):
        raise ConformanceError(f'{distribution.name} names no licence: put license = "…", an SPDX expression, into its pyproject.toml')


def _distribution(package: str) -> Distribution | None:
    """The distribution with an entry point into the package of that name."""
    return next((point.dist for point in plugin_points() if point.module.partition(".")[0] == package), None)
