"""Agreement and intra-FID by hand, and on digits with a model that listens and one that does not."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from genbench.catalogue import load_catalogue
from genbench.datasets import Split
from genbench.datasets.prepare import prepare
from genbench.datasets.resident import to_unit
from genbench.metrics import conditional, fid
from genbench.metrics.builtin import builtin_metrics
from genbench.model import Batch, ImageSpec, is_conditional
from genbench.reference import split_of
from genbench.sample import balanced_labels, draw
from genbench.score import Scorer
from genbench.seeds import stream
from tests.toys import Autoencoder, Dealer

METRICS = [metric for metric in builtin_metrics() if metric.name == "conditional"]


def test_agreement_by_hand():
    logits = np.array([[3.0, 1, 0], [0, 5, 1], [2, 1, 0], [9, 0, -1]])
    assert conditional.label_agreement(logits, np.array([0, 1, 2, 1])) == 0.5
    assert conditional.label_agreement(logits, np.array([0, 0, 0, 0])) == 0.75


@pytest.mark.parametrize(("hits", "n"), [(8, 10), (0, 7), (300, 300), (31, 300)])
def test_the_interval_is_wilsons(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert conditional.wilson(hits / n, n) == pytest.approx((expected.low, expected.high))


def features(n, d=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_intra_fid_of_shifted_classes_is_the_squared_shift():
    real = np.concatenate([features(40, seed=1), features(60, seed=2)])
    labels = np.repeat([4, 9], [40, 60])
    shift = np.where(labels == 4, 1.0, 3.0)[:, None]
    order = np.random.default_rng(0).permutation(100)
    found = conditional.intra_fid((real + shift)[order], labels[order], real, labels, seed=0)
    assert {label: n for label, (_, n) in found.items()} == {4: 40, 9: 60}
    assert found[4][0] == pytest.approx(5, abs=1e-9)
    assert found[9][0] == pytest.approx(45, abs=1e-9)


def test_intra_fid_compares_equal_numbers():
    real, fake = features(30, seed=1), features(80, seed=2)
    zeros = np.zeros(80, np.int64)
    ((value, n),) = conditional.intra_fid(fake, zeros, real, zeros[:30], seed=5).values()
    assert n == 30
    whole = fid.frechet(*fid.moments([fake])[:2], *fid.moments([real])[:2])
    first = fid.frechet(*fid.moments([fake[:30]])[:2], *fid.moments([real])[:2])
    assert value > whole  # FID falls with the number of images
    assert value != pytest.approx(first)  # a random subset, not the first ones
    assert conditional.intra_fid(fake, zeros, real, zeros[:30], seed=5)[0][0] == value
    assert conditional.intra_fid(real, zeros[:30], fake, zeros, seed=5)[0][0] == pytest.approx(value)


def test_a_class_without_images_is_left_out():
    labels = np.repeat([0, 1], 20)
    found = conditional.intra_fid(features(21), np.repeat([0, 1], [20, 1]), features(40), labels, seed=0)
    assert list(found) == [0]


@pytest.fixture(scope="module")
def digits():
    return prepare("digits", 8)


@pytest.fixture(scope="module")
def scorer(digits):
    extractor = load_catalogue(kinds=("extractor",)).extractor("digits-cnn").spec
    return Scorer(split_of(digits), extractor, METRICS, device=torch.device("cpu"))


def ask(digits, scorer, listens, seed=0):
    """Scores of a dealer of training images, by name."""
    image = ImageSpec(1, 8, 10, len(digits.train))
    model = Dealer(image, listens)
    assert is_conditional(model)
    assert not is_conditional(Autoencoder)
    model.training_step(iter([Batch(to_unit(torch.from_numpy(digits.train.images)), torch.from_numpy(digits.train.labels))]), {})
    asked = draw(model, 300, seed, image, labels=balanced_labels(10, 300, seed), stream_name="asked")
    assert np.bincount(asked.labels).tolist() == [30] * 10
    return {score.name: score for score in scorer.score(asked.images, seed, asked=Split(asked.images, asked.labels))}


def test_a_model_that_listens(digits, scorer):
    found = ask(digits, scorer, listens=True)
    agreement, intra = found["label_agreement"], found["intra_fid"]
    assert agreement.value > 0.97
    assert agreement.interval[0] < agreement.value <= agreement.interval[1]
    held = scorer._view(digits.holdout.images)  # what the classifier has not learned from, with its own labels
    assert agreement.floor == (held.logits.argmax(1) == digits.holdout.labels).mean()
    real = scorer._view(digits.test.images).features
    classes = conditional.intra_fid(held.features, digits.holdout.labels, real, digits.test.labels, seed=stream(0, "conditional"))
    assert intra.floor == pytest.approx(np.mean([value for value, _ in classes.values()]), rel=1e-3)
    assert (agreement.better, intra.better) == ("higher", "lower")
    assert intra.value == pytest.approx(intra.floor, rel=0.25)
    assert intra.n_real == intra.n_fake <= 300
    assert "images a class, worst: class" in intra.note


def test_a_model_that_does_not(digits, scorer):
    heard, deaf = (ask(digits, scorer, listens, seed=1) for listens in (True, False))
    assert deaf["label_agreement"].value == pytest.approx(0.1, abs=0.06)
    assert deaf["intra_fid"].value > 4 * heard["intra_fid"].value


def test_swapped_labels_are_noticed(digits, scorer):
    """Images of the class after the one asked for: perfect images, wrong classes."""
    image = ImageSpec(1, 8, 10, len(digits.train))
    model = Dealer(image)
    model.training_step(iter([Batch(to_unit(torch.from_numpy(digits.train.images)), torch.from_numpy(digits.train.labels))]), {})
    asked = draw(model, 300, 0, image, labels=balanced_labels(10, 300, 0))
    found = {score.name: score for score in scorer.score(asked.images, 0, asked=Split(asked.images, (asked.labels + 9) % 10))}
    assert found["label_agreement"].value < 0.03
    assert found["intra_fid"].value > 4 * found["intra_fid"].floor


def test_without_what_it_needs(digits, scorer):
    images = digits.holdout.images
    assert scorer.score(images, 0) == []  # nobody was asked for anything
    inked = Split(images, np.minimum(digits.holdout.labels, 8))
    few = {score.name: score for score in scorer.score(images, 0, asked=inked)}
    assert few["intra_fid"].value is None
    assert few["intra_fid"].note == "1 of 10 classes have fewer than 2 images"
    assert few["label_agreement"].value < few["label_agreement"].floor
