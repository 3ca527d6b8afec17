from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genbench.datasets import DatasetSpec, ImageData, Split
from genbench.errors import GenbenchError
from genbench.extractors import ExtractorSpec
from genbench.kept import Kept
from genbench.metrics import Measurement, MetricSpec, fid, statistics
from genbench.metrics.builtin import builtin_metrics as all_builtin_metrics
from genbench.records import Score
from genbench.reference import Reference, set_of, split_of
from genbench.score import Scorer

CPU = torch.device("cpu")
SAMPLES_ALONE = ("fid", "kid", "is", "prdc", "statistical_fidelity")
"""Metrics that need nothing but samples and a reference."""
DIM, CLASSES = 8, 4


def builtin_metrics() -> list[MetricSpec]:
    return [metric for metric in all_builtin_metrics() if metric.name in SAMPLES_ALONE]


class Tiny(nn.Module):
    """A seeded random conv net; counts the images it has seen."""

    digest = "0123"

    def __init__(self, channels: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.filters = torch.randn(DIM, channels, 3, 3, generator=g) / 3
        self.head = torch.randn(CLASSES, DIM, generator=g)
        self.seen = 0

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert images.dtype == torch.uint8
        assert torch.is_inference_mode_enabled()
        self.seen += len(images)
        h = nn.functional.conv2d(images.float() / 127.5 - 1, self.filters, stride=2)
        features = h.relu().mean(dim=(2, 3))
        return features, 10 * features @ self.head.T


class Loader:
    def __init__(self, channels: int = 1) -> None:
        self.net = Tiny(channels)
        self.spec = ExtractorSpec(
            "tiny", lambda device, weights: self.net, lambda weights: None, DIM, "random filters", num_classes=CLASSES, labels_of="squares"
        )  # fmt: skip


def squares(n: int, seed: int, channels: int = 1, size: int = 8) -> np.ndarray:
    """(n, C, 8, 8) uint8: a bright square of random place and level on a darker, grainy ground."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, channels, size, size))
    for image in images:
        y, x = rng.integers(0, size - 3, 2)
        image[:, y : y + 4, x : x + 4] += rng.integers(60, 180)
    return images.astype(np.uint8)


def dataset(channels: int = 1, train: int = 700, test: int = 240, name: str = "squares") -> ImageData:
    splits = [Split(squares(n, seed, channels), None) for n, seed in ((train, 1), (120, 2), (test, 3))]
    spec = DatasetSpec(name, lambda root: {}, channels, 8, num_classes=CLASSES)
    return ImageData(name, spec, 8, *splits, digest=f"digest-{name}-{channels}-{train}-{test}", resize="")


def scorer(data: ImageData | None = None, loader: Loader | None = None, metrics: list[MetricSpec] | None = None, **options) -> Scorer:
    data = data or dataset()
    loader = loader or Loader(data.channels)
    reference = split_of(data, options.pop("reference", "test"))
    return Scorer(reference, loader.spec, builtin_metrics() if metrics is None else metrics, device=CPU, **options)


def by_name(scores: list[Score]) -> dict[str, Score]:
    assert len({score.name for score in scores}) == len(scores)
    return {score.name: score for score in scores}


ORDER = [
    "fid", "fid_train", "fid_infinity", "kid", "is", "recognised", "precision", "recall", "density", "coverage",
    "statistical_fidelity", "mean_gap", "variance_gap", "quantile_gap", "w1", "w1_pooled", "ks", "covariance", "correlation",
    "spectrum_db", "class_tv", "class_kl", "diversity", "duplicates",
]  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
def test_every_score_is_there_with_its_floor_and_protocol(channels: int) -> None:
    data, loader = dataset(channels), Loader(channels)
    images = squares(240, 9, channels)
    scores = scorer(data, loader).score(images, seed=0)
    assert [score.name for score in scores] == ORDER
    found = by_name(scores)
    # values, by a second way; another memory layout moves the last digits of float32 features
    seen = [features(loader, x) for x in (images, data.test.images, data.train.images)]
    mu, S, _ = fid.moments([seen[0]])
    assert found["fid"].value == pytest.approx(fid.frechet(mu, S, *fid.moments([seen[1]])[:2]), rel=1e-5)
    assert found["fid_train"].value == pytest.approx(fid.frechet(mu, S, *fid.moments([seen[2]])[:2]), rel=1e-5)
    expected = statistics.measure(statistics.summarise(images), statistics.summarise(data.test.images))
    assert {name: found[name].value for name in expected} == pytest.approx(expected)
    # what it takes to compare them
    assert (found["fid"].split, found["fid"].n_real, found["fid"].n_fake) == ("test", 240, 240)
    assert (found["fid_train"].split, found["fid_train"].n_real) == ("train", 700)
    assert found["w1"].extractor is None
    assert found["class_tv"].extractor == found["kid"].extractor == "tiny"
    assert found["fid"].interval[0] < found["fid"].value < found["fid"].interval[1]
    assert len({score.protocol for score in scores}) == len(scores)
    # the floor is a real sample's: about what a fresh sample of the same source scores
    assert all(score.floor is not None for score in scores)
    assert 0.3 < found["fid"].value / found["fid"].floor < 3
    assert found["statistical_fidelity"].floor > 0.9
    assert found["statistical_fidelity"].value > 0.9


def features(loader: Loader, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return loader.net(torch.from_numpy(images))[0].numpy()


def test_controls_come_in_order() -> None:
    judge, rng = scorer(), np.random.default_rng(0)
    real = squares(240, 9)
    grainy = np.clip(real + rng.normal(0, 40, real.shape), 0, 255).astype(np.uint8)
    noise = rng.integers(0, 256, real.shape, dtype=np.uint8)
    runs = [by_name(judge.score(images, seed=0)) for images in (real, grainy, noise)]
    for name in ("fid", "fid_train", "fid_infinity", "kid", "w1", "covariance", "spectrum_db"):
        values = [run[name].value for run in runs]
        assert values == sorted(values), name
    for name in ("statistical_fidelity", "precision", "coverage"):
        values = [run[name].value for run in runs]
        assert values == sorted(values, reverse=True), name
    assert runs[2]["fid"].value > 10 * runs[0]["fid"].value
    assert runs[2]["statistical_fidelity"].value < 0.35


def test_protocol_tells_apart_what_may_not_be_compared() -> None:
    images = squares(240, 9)
    base = by_name(scorer().score(images, 0))
    again = by_name(scorer().score(squares(240, 10), 5))
    assert {name: s.protocol for name, s in again.items()} == {name: s.protocol for name, s in base.items()}
    other_n = by_name(scorer().score(images[:200], 0))
    other_data = by_name(scorer(dataset(train=650)).score(images, 0))
    other_loader = Loader()
    other_loader.net.digest = "4567"
    other_weights = by_name(scorer(loader=other_loader).score(images, 0))
    newer = [dataclasses.replace(metric, version="newer") for metric in builtin_metrics()]
    other_version = by_name(scorer(metrics=newer).score(images, 0))
    for other in (other_n, other_data, other_version):
        assert not {s.protocol for s in other.values()} & {s.protocol for s in base.values()}
    assert other_weights["fid"].protocol != base["fid"].protocol
    assert other_weights["w1"].protocol == base["w1"].protocol  # no extractor has a part in it


def test_against_train_the_other_split_is_test() -> None:
    data = dataset()
    against_test = by_name(scorer(data).score(squares(240, 9), 0))
    against_train = by_name(scorer(data, reference="train").score(squares(240, 9), 0))
    assert against_train["fid"].value == pytest.approx(against_test["fid_train"].value, rel=1e-9)
    assert against_train["fid_test"].value == pytest.approx(against_test["fid"].value, rel=1e-9)
    assert (against_train["fid_test"].split, against_train["w1"].split) == ("test", "train")
    assert (against_train["precision"].n_real, against_train["kid"].n_real) == (240, 240)


def test_curve_fid_is_the_fid_and_images_pass_the_extractor_once() -> None:
    loader = Loader()
    judge, images = scorer(loader=loader), squares(240, 9)
    value = judge.score(images, 0)[0].value
    before = loader.net.seen
    judge.score(squares(240, 10), 0)
    assert loader.net.seen - before == 240  # the reference and the floors are kept
    assert judge.fid(images) == pytest.approx(value, rel=1e-12)
    with pytest.raises(GenbenchError, match="at least 2"):
        judge.fid(images[:1])


def test_the_floor_of_a_set_is_the_score_of_one_half_against_the_other() -> None:
    loader, images = Loader(), squares(500, 4)
    whole = set_of("squares", Split(images, None))
    first, other = whole.halves()

    def judge(reference: Reference) -> Scorer:
        return Scorer(reference, loader.spec, builtin_metrics(), device=CPU)

    found = by_name(judge(whole).score(squares(300, 9), 0))
    second_half = judge(set_of("squares", Split(images[other], None))).score(images[first], 0)
    expected = {score.name: score.value for score in second_half if score.name != "statistical_fidelity"}  # it has floors of its own
    assert expected.keys() == found.keys() - {"statistical_fidelity"}
    assert {name: found[name].floor for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found["statistical_fidelity"].floor > 0.9
    assert {score.split for score in found.values()} == {"all"}
    assert (found["fid"].n_real, found["precision"].n_real) == (500, 300)


def test_labels_that_are_not_the_datasets_give_no_class_measures() -> None:
    found = by_name(scorer(dataset(name="circles")).score(squares(240, 9), 0))
    assert not {"class_tv", "class_kl", "recognised"} & set(found)
    assert found["statistical_fidelity"].extractor is None
    assert found["is"].value is not None


def test_too_few_images_give_notes_instead_of_values() -> None:
    judge = scorer()
    found = by_name(judge.score(squares(5, 9), 0))
    for name in ("fid_infinity", "is", "precision", "recall", "density", "coverage"):
        assert found[name].value is None
        assert "at least" in found[name].note
    assert 0 <= found["recognised"].value <= 1
    assert found["fid"].value > 0
    assert "singular" in found["fid"].note
    for name, score in by_name(judge.score(squares(1, 9), 0)).items():
        if name == "recognised":  # a share of one image
            continue
        assert score.value is None, name
        assert "at least" in score.note


def test_collapsed_output_has_finite_scores_and_flags() -> None:
    judge = scorer()
    one = np.repeat(squares(1, 9), 240, axis=0)
    assert judge.flags(one) == ["collapsed", "duplicates 100 %"]
    blank = np.full_like(one, 7)
    assert judge.flags(blank) == ["collapsed", "blank", "duplicates 100 %"]
    assert judge.flags(squares(240, 9)) == []
    some = squares(200, 9)
    some[:24] = some[100]
    assert judge.flags(some) == ["duplicates 12 %"]
    found = by_name(judge.score(blank, 0))
    assert found["fid"].value > 10 * found["fid"].floor
    assert found["recall"].value == 0
    assert found["diversity"].value == 0
    assert found["statistical_fidelity"].value < 0.5


def test_the_cache_serves_another_process_and_survives_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, first, second, third = squares(240, 9), Loader(), Loader(), Loader()
    expected = scorer(loader=first, cache=tmp_path).score(images, 0)
    files = sorted(tmp_path.iterdir())
    assert len(files) >= 5
    assert all(file.suffix == ".npz" for file in files)
    assert first.net.seen > 1000
    assert scorer(loader=second, cache=tmp_path).score(images, 0) == expected
    assert second.net.seen == len(images)

    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        assert scorer(loader=third, cache=tmp_path).score(images, 0) == expected
    assert "damaged" in caplog.text
    assert third.net.seen == first.net.seen
    assert [file.read_bytes() for file in files] == contents


def test_a_flipped_bit_in_the_cache_is_noticed(tmp_path: Path) -> None:
    key, value = {"a": 1}, np.arange(3.0)
    Kept(tmp_path).get(key, lambda: {"x": value})
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    for place in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 4
        file.write_bytes(damaged)
        found = Kept(tmp_path).get(key, lambda: {"x": value, "anew": value})
        if "anew" not in found:  # a bit that says nothing, such as a date
            np.testing.assert_array_equal(found["x"], value)
            assert list(found) == ["x"]


def test_the_cache_never_serves_another_datasets_numbers(tmp_path: Path) -> None:
    images = squares(200, 9)
    scorer(dataset(), cache=tmp_path).score(images, 0)
    # the same name, other pixels
    other = dataset(train=500, test=300)
    assert scorer(other, cache=tmp_path).score(images, 0) == scorer(other).score(images, 0)
    other_loader = Loader()
    other_loader.net.digest = "89"
    other_loader.net.filters = other_loader.net.filters.flip(0) * 2
    assert scorer(loader=other_loader, cache=tmp_path).fid(images) == pytest.approx(scorer(loader=other_loader).fid(images))
    assert scorer(loader=other_loader, cache=tmp_path).fid(images) != pytest.approx(scorer(cache=tmp_path).fid(images))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert Kept(tmp_path / "file" / "sub").get({}, lambda: {"x": np.ones(2)})["x"].sum() == 2
    assert "can't be written" in caplog.text


def test_equal_seeds_give_equal_scores() -> None:
    images = squares(240, 9)
    first = scorer().score(images, 3)
    assert scorer().score(images, 3) == first
    other = by_name(scorer().score(images, 4))
    base = by_name(first)
    assert other["kid"].value != base["kid"].value
    assert other["fid"].value == base["fid"].value
    assert other["kid"].floor == base["kid"].floor


def test_it_tells_how_far_it_is_also_for_a_curve() -> None:
    told: list[tuple[str, int, int]] = []
    judge = scorer(show=lambda *step: told.append(step))
    judge.score(squares(300, 4), 0)
    assert [step for step in told if step[0] == "features of samples"] == [("features of samples", n, 300) for n in (250, 300)]
    assert [done for step, done, _ in told if step == "metrics"] == list(range(len(SAMPLES_ALONE) + 1))
    told.clear()
    judge.fid(squares(600, 5))
    assert told == [("features of the curve", n, 600) for n in (250, 500, 600)]


def test_images_of_the_wrong_kind_are_refused() -> None:
    judge = scorer()
    for wrong in (squares(4, 0, 3), squares(4, 0).astype(np.float32), squares(4, 0)[:0], squares(4, 0)[0]):
        with pytest.raises(GenbenchError, match="needs uint8 N × 1 × 8 × 8"):
            judge.score(wrong, 0)


def test_missing_weights_are_told_before_any_compute() -> None:
    def require(weights: Path | None) -> None:
        raise GenbenchError("weights of 'far' are missing")

    def load(device: torch.device, weights: Path | None) -> Tiny:
        raise AssertionError("loaded")

    with pytest.raises(GenbenchError, match="missing"):
        Scorer(split_of(dataset()), ExtractorSpec("far", load, require, 8, ""), builtin_metrics(), device=CPU)


def test_a_plugins_metric_with_values_that_are_not_finite() -> None:
    odd = MetricSpec("odd", lambda evidence: [Measurement("odd", float("nan"), "lower", interval=(0.0, float("inf")))], "", "")
    (score,) = scorer(metrics=[odd]).score(squares(10, 0), 0)
    assert (score.value, score.interval, score.floor) == (None, None, None)
    assert "nan" in score.note
