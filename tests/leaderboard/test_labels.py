from __future__ import annotations

import unicodedata

import pytest

from genbench.harmless import clean
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.labels import distinct, labels_of
from genbench.leaderboard.table import identity


def labels(make, *models):
    """(name, changed hparams) -> labels in that order."""
    refs = [make.record(name, 0, 1.0, changed=changed).spec.model for name, changed in models]
    found = labels_of({identity(ref): ref for ref in refs})
    return [found[identity(ref)] for ref in refs]


def test_no_more_is_said_than_tells_a_row_from_its_namesakes(make):
    assert labels(make, ("dcgan", {"width": 8}), ("vae", None)) == ["dcgan", "vae"]
    assert labels(make, ("m", {"width": 8, "lr": 0.1}), ("m", {"width": 9, "lr": 0.1})) == ["m width=8", "m width=9"]


@pytest.mark.parametrize(
    "models",
    [
        [("dcgan", None), ("dcgan\u200b", None), ("dcgan ", None)],
        [("dcgan", {"width": 8}), ("dcgan\u200b", {"width": 8})],
        [("x" * 59 + "ab", None), ("x" * 59 + "cd", None)],
        [("m", {"mode": "y" * 60 + "a"}), ("m", {"mode": "y" * 60 + "b"})],
        [("m", {f"hparam{n}": f"{'z' * 20}{n}{k}" for n in range(12)}) for k in range(3)],
        [("m", {"width": 8}), ("m width=8", None), ("m", None)],
        [("\ufb01d", None), ("fid", None)],
        [("\u200b", None), ("_", None)],
    ],
)
def test_no_two_rows_are_called_the_same_wherever_labels_are_shown(make, models):
    found = {unicodedata.normalize("NFKC", clean(label)) for label in labels(make, *models)}
    assert len(found) == len(models)  # as cut to 200 characters, as most places do


def test_a_name_that_is_the_label_of_another_is_told_apart_too():
    assert distinct({"1": "m", "2": "n"}) == {"1": "m", "2": "n"}
    assert distinct({"1": "m", "2": "m", "3": "n"}) == {"1": "m #1", "2": "m #2", "3": "n"}
    assert len(set(distinct({"1": "m", "2": "m", "3": "m #1", "4": "m #1 #3"}).values())) == 4


def test_rows_that_look_the_same_stay_rows_of_their_own(tmp_path, make):
    names = ["dcgan", "dcgan\u200b"]
    (table,) = read(make.write(tmp_path, *(make.record(name, 0, 1.0 + n) for n, name in enumerate(names)))).tables
    assert [row.model.name for row in table.rows] == names
    assert all(row.label.startswith("dcgan ") and row.id in row.label for row in table.rows)
