"""The controls, end to end: trained by the model contract, sampled, scored, and held against what is known of them beforehand."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from genbench_controls import genbench_models

from genbench.budget import Budget, Meter
from genbench.datasets import ImageData, Split
from genbench.datasets.prepare import prepare
from genbench.datasets.resident import TrainingBatches
from genbench.extractors.builtin import builtin_extractors
from genbench.metrics.builtin import builtin_metrics
from genbench.metrics.memorisation import alarms
from genbench.model import ImageSpec, ModelSpec, Optimizers
from genbench.reference import split_of
from genbench.sample import draw
from genbench.score import Scorer
from genbench.seeds import stream
from genbench.train import train

CPU = torch.device("cpu")
TABLE = tomllib.loads(Path(__file__).with_name("control_order.toml").read_text(encoding="utf-8"))
CONTROLS = {spec.name: spec for spec in genbench_models()}
SCORES = [name for order in TABLE["order"] for name in order["scores"]]
Values = Mapping[str, Mapping[str, float | None]]
"""Control -> score -> value."""


def violations(order: Mapping[str, Any], values: Values) -> Iterator[str]:
    """What an order of the table claims and values don't do, in words."""
    for score in order["scores"]:
        for lower, higher in pairwise(order["ascending"]):
            a, b = values[lower].get(score), values[higher].get(score)
            least = None if a is None else a * order["times"] if "times" in order else a + order["by"]
            if b is None or least is None or not b >= least:
                yield f"{score}: {higher} has {b}, which is not well above {a} of {lower}"


def fewer(data: ImageData, train: int, others: int) -> ImageData:
    """Seeded random parts of the splits, so that a test costs seconds."""

    def some(split: Split, n: int) -> Split:
        index = np.sort(np.random.default_rng(0).permutation(len(split))[:n])
        return Split(split.images[index], split.labels[index])

    return replace(
        data, train=some(data.train, train), holdout=some(data.holdout, others), test=some(data.test, others),
        digest=f"{data.digest} {train} {others}",
    )  # fmt: skip


def images_of(data: ImageData, spec: ModelSpec, seed: int, n: int) -> np.ndarray:
    """Train a control and draw from it: (n, C, H, W) uint8."""
    image = ImageSpec(data.channels, data.size, data.num_classes, len(data.train))
    torch.manual_seed(stream(seed, "init"))
    model = spec.cls(image).to(memory_format=torch.channels_last)
    meter = Meter(Budget.parse("1000 steps"), lambda: None)
    batches = TrainingBatches(data, batch_size=getattr(model, "batch_size", 64), seed=seed, meter=meter, device=CPU)
    trained = train(model, Optimizers(model.configure_optimizers()), batches, meter, device=CPU)
    assert trained.finished_early
    assert meter.steps == 1
    return draw(model, n, seed, image).images


def measure(data: ImageData, n: int, seed: int) -> tuple[Values, dict[str, list[str]]]:
    """Every control's scores, and the alarms they raise."""
    (extractor,) = [e for e in builtin_extractors() if e.name == f"{data.name}-cnn"]
    scorer = Scorer(split_of(data), extractor, builtin_metrics(), device=CPU)
    values, raised = {}, {}
    for name, spec in CONTROLS.items():
        scores = scorer.score(images_of(data, spec, seed, n), stream(seed, "metrics"))
        values[name] = {score.name: score.value for score in scores}
        raised[name] = alarms(values[name], {score.name: score.floor for score in scores})
    return values, raised


@cache
def measured(name: str, seed: int = 0) -> tuple[Values, dict[str, list[str]]]:
    if name == "digits":
        return measure(prepare("digits", 8), 300, seed)
    if not (Path(os.environ.get("GENBENCH_DATA", "")) / "MNIST").is_dir():
        pytest.skip("no MNIST under GENBENCH_DATA")
    return measure(fewer(prepare("mnist", 32), 10_000, 2500), 2500, seed)


@pytest.mark.parametrize("order", TABLE["order"], ids=lambda order: f"{'+'.join(order['scores'])}-{'-'.join(order['ascending'])}")
@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_order(dataset: str, order: dict[str, Any]) -> None:
    assert list(violations(order, measured(dataset)[0])) == []


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_copies_raise_alarms_and_nothing_else_does(dataset: str) -> None:
    raised = measured(dataset)[1]
    assert {name for name, found in raised.items() if found} == {"train-copy", "one-sample"}
    assert raised["train-copy"][0] == "memorised: 100 % exact copies"
    if dataset == "mnist":
        assert raised["train-copy"][1].startswith("memorised: nearer to training than to test images")


def test_every_score_has_its_place_in_the_table() -> None:
    measured_scores = {name for scores in measured("digits")[0].values() for name in scores}
    assert measured_scores == set(SCORES) | set(TABLE["unordered"])
    assert not set(SCORES) & set(TABLE["unordered"])


def test_every_order_is_one_of_controls_with_a_margin() -> None:
    for order in TABLE["order"]:
        assert set(order) in ({"scores", "ascending", "by"}, {"scores", "ascending", "times"})
        assert len(order["ascending"]) > 1
        assert set(order["ascending"]) <= set(CONTROLS)
        assert order.get("times", 2) > 1
        assert order.get("by", 1) > 0
    assert {name for order in TABLE["order"] for name in order["ascending"]} == set(CONTROLS)


def test_a_wrong_claim_names_score_and_pair() -> None:
    values = {"noise": {"fid": 40.0, "recall": 0.1}, "real-holdout": {"fid": 10.0, "recall": 0.9}}
    assert list(violations({"scores": ["fid"], "ascending": ["real-holdout", "noise"], "times": 4}, values)) == []
    (said,) = violations({"scores": ["fid"], "ascending": ["real-holdout", "noise"], "times": 4.1}, values)
    assert said == "fid: noise has 40.0, which is not well above 10.0 of real-holdout"
    assert len(list(violations({"scores": ["fid", "recall"], "ascending": ["noise", "real-holdout"], "by": 0.7}, values))) == 1
    assert len(list(violations({"scores": ["kid"], "ascending": ["noise", "real-holdout"], "by": 0.7}, values))) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("precision", "recall"), ("exact_copies", "nn_ratio"), ("mean_gap", "covariance"), ("ct", "nn_excess")]
)  # fmt: skip
def test_scores_under_each_others_names_are_noticed(one: str, other: str) -> None:
    values = {name: scores | {one: scores[other], other: scores[one]} for name, scores in measured("digits")[0].items()}
    found = [said for order in TABLE["order"] for said in violations(order, values)]
    assert any(said.startswith((one, other)) for said in found)
