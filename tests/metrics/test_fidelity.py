from __future__ import annotations

import math
from types import ModuleType

import pytest

from genbench.metrics.fidelity import FAMILIES

NAMES = [name for names in FAMILIES.values() for name in names]
FLOORS = dict.fromkeys(NAMES, 0.01) | {"diversity": 0.99, "duplicates": 0.0}
NOISE = dict.fromkeys(NAMES, 1.0) | {"diversity": 1.5, "duplicates": 0.0}


def test_real_scores_1_and_noise_0(fidelity: ModuleType) -> None:
    assert fidelity.statistical_fidelity(FLOORS, FLOORS, NOISE) == (1.0, dict.fromkeys(FAMILIES, 1.0))
    assert fidelity.statistical_fidelity(NOISE, FLOORS, NOISE) == (0.0, dict.fromkeys(FAMILIES, 0.0))


def test_halfway_on_the_log_scale(fidelity: ModuleType) -> None:
    assert fidelity.place("w1", 0.1, 0.01, 1.0) == pytest.approx(0.5)
    assert fidelity.place("w1", 0.02, 0.01, 1.0) == pytest.approx(math.log(50) / math.log(100))
    assert fidelity.place("w1", 0.001, 0.01, 1.0) == 1
    assert fidelity.place("w1", 7.0, 0.01, 1.0) == 0


def test_right_marginals_alone_do_not_score_high(fidelity: ModuleType) -> None:
    values = NOISE | {name: FLOORS[name] for name in FAMILIES["marginal"]}
    assert fidelity.statistical_fidelity(values, FLOORS, NOISE)[0] == pytest.approx(0.2)


def test_families_count_equally_whatever_their_number_of_measures(fidelity: ModuleType) -> None:
    values = FLOORS | {"w1": 0.1}
    assert fidelity.statistical_fidelity(values, FLOORS, NOISE)[0] == pytest.approx(1 - 0.5 / 6 / 5)
    values = FLOORS | {"spectrum_db": 0.1}
    assert fidelity.statistical_fidelity(values, FLOORS, NOISE)[0] == pytest.approx(1 - 0.5 / 5)


def test_diversity_is_right_at_1_from_both_sides(fidelity: ModuleType) -> None:
    assert fidelity.place("diversity", 1.1, 0.99, 1.5) == pytest.approx(fidelity.place("diversity", 1 / 1.1, 0.99, 1.5))
    assert fidelity.place("diversity", 0.0, 0.99, 1.5) == 0
    assert fidelity.place("diversity", math.inf, 0.99, 1.5) == 0


def test_the_floor_of_a_ratio_is_how_far_real_samples_are_from_1(fidelity: ModuleType) -> None:
    assert fidelity.typical("w1", [0.1, 0.4, 0.2]) == 0.2
    assert fidelity.typical("diversity", [1.1, 1 / 1.2, 1.0]) == pytest.approx(1.1)
    # a real sample as far from 1 as others are scores 1, on whichever side it lies
    floor = fidelity.typical("diversity", [0.97, 1.0, 1.03, 1 / 1.03, 1 / 0.97])
    assert fidelity.place("diversity", 1.02, floor, 1.5) == fidelity.place("diversity", 1 / 1.02, floor, 1.5) == 1


def test_duplicates_beyond_those_of_real_images_cost(fidelity: ModuleType) -> None:
    floors = FLOORS | {"duplicates": 0.05}
    assert fidelity.statistical_fidelity(FLOORS | {"duplicates": 0.25}, floors, NOISE)[1]["diversity"] == pytest.approx(0.8)
    assert fidelity.statistical_fidelity(FLOORS | {"duplicates": 0.01}, floors, NOISE)[1]["diversity"] == 1
    assert fidelity.statistical_fidelity(FLOORS | {"duplicates": 1.0}, FLOORS, NOISE)[1]["diversity"] == 0


def test_a_measure_that_noise_passes_is_left_out(fidelity: ModuleType) -> None:
    assert fidelity.place("ks", 0.5, 0.3, 0.3) is None
    noise = NOISE | {"spectrum_db": 0.005}
    score, families = fidelity.statistical_fidelity(FLOORS | {"spectrum_db": 9.0}, FLOORS, noise)
    assert "spectrum" not in families
    assert score == 1


def test_without_classes_there_are_four_families(fidelity: ModuleType) -> None:
    values = {name: value for name, value in FLOORS.items() if not name.startswith("class_")}
    assert set(fidelity.statistical_fidelity(values, FLOORS, NOISE)[1]) == set(FAMILIES) - {"class"}


def test_a_floor_of_zero_is_no_trap(fidelity: ModuleType) -> None:
    assert fidelity.place("w1", 0.0, 0.0, 1.0) == 1
    assert 0 < fidelity.place("w1", 1e-3, 0.0, 1.0) < 1


def test_nothing_to_score(fidelity: ModuleType) -> None:
    with pytest.raises(ValueError, match="no measure"):
        fidelity.statistical_fidelity({}, {}, {})
