"""What a person is asked: shares, order, repeats; and which pictures there are."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from genbench.errors import GenbenchError
from genbench.judge import study as studies
from genbench.judge.pictures import Pictures, png
from genbench.judge.study import REAL
from genbench.judge.trials import alike, owner, plan


@pytest.mark.parametrize("models", [1, 3])
def test_half_is_real_and_models_share_the_rest(make, models):
    study = make.study(models=models, trials=40)
    for seed in range(20):
        first = [trial for trial in plan(study, seed) if trial.repeats is None]
        shares = Counter(owner(trial.left) for trial in first)
        assert len(first) == 40
        assert shares[REAL] == 20
        fakes = [shares[row] for row in make.rows[:models]]
        assert sum(fakes) == 20
        assert max(fakes) - min(fakes) <= 1
        assert len({trial.left for trial in first}) == 40  # no picture twice
        assert not any(trial.right for trial in first)


def test_each_pair_comes_equally_often_and_each_model_as_often_left(make):
    study = make.study("which-is-better", 4, trials=42)
    lefts = Counter()
    for seed in range(40):
        first = [trial for trial in plan(study, seed) if trial.repeats is None]
        met = Counter(frozenset((owner(trial.left), owner(trial.right))) for trial in first)
        assert met == {frozenset(pair): 7 for pair in combinations(make.rows, 2)}
        assert max(Counter(picture for trial in first for picture in trial.pictures).values()) == 1
        lefts.update(owner(trial.left) for trial in first)
    assert all(abs(lefts[row] - 420) < 5 * 40**0.5 for row in make.rows)  # 21 of a person's 42, give or take a half for each of 3 pairs


@pytest.mark.parametrize("mode", ["real-or-fake", "which-is-better"])
def test_a_tenth_is_asked_again_later_and_pairs_the_other_way_round(make, mode):
    study = make.study(mode, 3, trials=40)
    for seed in range(20):
        trials = plan(study, seed)
        assert [trial.number for trial in trials] == list(range(44))
        again = [trial for trial in trials if trial.repeats is not None]
        assert len(again) == len({trial.repeats for trial in again}) == 4
        for trial in again:
            before = trials[trial.repeats]
            assert before.repeats is None
            assert trial.number - before.number >= 4
            assert trial.pictures == before.pictures[::-1]
        if mode == "real-or-fake":
            assert sum(owner(trial.left) == REAL for trial in again) == 2


def test_the_order_is_the_seeds_and_no_place_in_it_tells_real_from_fake(make):
    study = make.study(trials=20)
    assert plan(study, 7) == plan(study, 7) != plan(study, 8)
    real = np.array([[owner(trial.left) == REAL for trial in plan(study, seed) if trial.repeats is None] for seed in range(600)])
    assert np.abs(real.mean(0) - 0.5).max() < 4.5 * 0.5 / 600**0.5
    both = [plan(study, seed) for seed in range(300)]
    assert {trial.number for trials in both for trial in trials if trial.repeats is not None} >= set(range(14, 22))


def test_seeds_of_a_row_share_its_pictures_and_subsets_are_random_ones(make):
    study = make.study(pool=61, seeds=3)
    shares = Counter(key.split("/")[1] for key in study.pictures["aaaaaaaa"])
    assert sorted(shares.values()) == [20, 20, 21]
    indices = [int(key.split("/")[1]) for key in study.pictures[REAL]]
    assert len(set(indices)) == 61
    assert max(indices) > 150  # not the first ones
    assert make.study(pool=61, seeds=3).pictures == study.pictures


def test_studies_of_equal_ones_are_equal_and_of_others_are_not(make):
    study = make.study()
    assert studies.parse(study.model_dump_json()).id == study.id
    others = [make.study(trials=42), make.study(pool=59), make.study(exposure=250), make.study(seeds=1), make.study(models=1)]
    assert len({one.id for one in (study, *others)}) == 6


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"models": 1, "mode": "which-is-better"}, "name two or more"),
        ({"mode": "which-is-better", "exposure": 250}, "--exposure"),
        ({"trials": 41}, "even"),
        ({"pool": 19}, "--trials 38 works"),
        ({"mode": "which-is-better", "pool": 30}, "--trials 30 works"),
    ],
)
def test_a_study_that_cannot_be_carried_out_is_refused_with_what_would_work(make, change, told):
    with pytest.raises(GenbenchError, match=told):
        make.study(**change)


def test_a_forged_study_costs_no_memory_and_no_traceback(make):
    text = make.study().model_dump_json()
    for old, new in (('"num_real":200', '"num_real":1e15'), ('"trials":40', '"trials":NaN'), ('"size":8', '"size":8,"size":8'), ("{", "[")):
        with pytest.raises(GenbenchError, match="study"):
            studies.parse(text.replace(old, new, 1))


def test_answers_agree_across_swapped_sides():
    assert alike("left", "right", pair=True)
    assert alike("tie", "tie", pair=True)
    assert not alike("left", "left", pair=True)
    assert not alike("tie", "left", pair=True)
    assert alike("real", "real", pair=False)
    assert not alike("real", "fake", pair=False)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (1, 32), (3, 256)])
def test_every_png_of_a_shape_has_one_length_and_is_read_back_exactly(channels, size):
    import io

    from PIL import Image

    rng = np.random.default_rng(0)
    images = [np.zeros((channels, size, size), np.uint8), rng.integers(0, 256, (channels, size, size)).astype(np.uint8)]
    files = [png(image) for image in images]
    assert len(files[0]) == len(files[1])
    for image, file in zip(images, files, strict=True):
        with Image.open(io.BytesIO(file)) as read:
            assert np.array_equal(np.asarray(read).reshape(size, size, channels), image.transpose(1, 2, 0))


def test_pictures_of_another_shape_are_refused(make):
    study = make.study()
    images = make.pixels(study)
    key = sorted(images)[3]
    with pytest.raises(GenbenchError, match=key):
        Pictures(study, images | {key: np.zeros((3, 8, 8), np.uint8)})
