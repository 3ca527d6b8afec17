import subprocess
import sys

import pytest

from genbench.errors import GenbenchError
from genbench.track import Track, load_track, parse_track, shipped_tracks, with_budget

VALUES = {"name": "t", "dataset": "digits", "size": 8, "budget": "5steps", "num_samples": 50, "extractor": "digits-cnn"}


def test_shipped_tracks_are_the_promised_ones():
    assert [track.name for track in shipped_tracks()] == [
        "digits-20s", "mnist-60s", "mnist-3m", "mnist-10m", "cifar10-30m", "cifar10-2h", "celeba64-8h",
        "reproduce-mimicry-cifar10", "reproduce-pythae-mnist", "reproduce-pythae-mnist-iwae",
    ]  # fmt: skip


def test_protocols_follow_the_number_of_samples():
    tracks = {track.name: track.protocol for track in shipped_tracks()}
    assert tracks["digits-20s"] == "toy"
    assert tracks["mnist-3m"] == "lite"
    assert tracks["cifar10-2h"] == "official"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bugdet": "5s"}, "'budget'"),
        ({"budget": "0s"}, "above 0"),
        ({"budget": "5 parsecs"}, "like 60s"),
        ({"num_samples": -3}, "greater than or equal"),
        ({"size": "big"}, "size"),
        ({"precision": "fp8"}, "fp32"),
        ({"name": "../../x"}, "name"),
    ],
)
def test_a_wrong_key_or_value_is_named(change, says):
    with pytest.raises(GenbenchError, match=says) as error:
        parse_track({**VALUES, **change}, "mine.toml")
    assert "mine.toml" in str(error.value)


def test_a_track_of_ones_own(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('dataset = "digits"\nsize = 8\nbudget = "3s"\nnum_samples = 20\nextractor = "digits-cnn"\n')
    assert load_track(file).name == "mine"
    file.write_text("dataset = [\n")
    with pytest.raises(GenbenchError, match=r"mine\.toml"):
        load_track(file)
    with pytest.raises(GenbenchError, match="No such file"):
        load_track(tmp_path / "absent.toml")


def test_hash_follows_what_results_depend_on_and_nothing_else():
    track = Track(**VALUES)
    beside = {"name": "other", "description": "x", "seeds": 3, "grace": 5, "rank_by": "kid", "target": 9}
    beside["published"] = {"a": {"fid": (1, 2)}}
    assert track.hash == Track(**{**VALUES, **beside}).hash
    changes = (
        {"budget": "6steps"}, {"precision": "bf16"}, {"flip": True}, {"num_samples": 51}, {"size": 16}, {"reference": "train"},
        {"reference": "holdout"}, {"held_out_images": 501}, {"importance_samples": 51},
    )  # fmt: skip
    for change in changes:
        assert track.hash != Track(**{**VALUES, **change}).hash


def test_keys_that_came_later_left_the_hashes_of_earlier_records_alone():
    by_name = {track.name: track.hash for track in shipped_tracks()}
    assert by_name["mnist-3m"] == "b689db92"


def test_another_budget_makes_another_track():
    track = with_budget(Track(**VALUES), "9steps")
    assert track.name == "t-at-9steps"
    assert track.base == "t"
    assert with_budget(track, "3s").name == "t-at-3s"
    assert with_budget(Track(**VALUES, published={"a": {"fid": (1, 2)}}), "3s").published == {}
    assert track.hash != Track(**VALUES).hash


def test_tracks_and_records_import_no_torch():
    code = "import sys, genbench.track, genbench.records, genbench.cli; genbench.track.shipped_tracks(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("curve", [(10, 50, 100), (0.5, 1.5), (0.0, 1.0), (-0.1,), (float("nan"),), (float("inf"),)])
def test_a_curve_of_no_shares_is_refused(curve):
    with pytest.raises(GenbenchError, match=r"track here: curve: its points are shares of the budget, above 0 and up to 1"):
        parse_track({**VALUES, "curve": curve}, "here")
    Track(**VALUES, curve=curve)  # as records of other times may have it


def test_a_curve_of_single_images_is_refused():
    with pytest.raises(GenbenchError, match="curve_samples: FID needs at least 2 images"):
        parse_track({**VALUES, "curve_samples": 1}, "here")
    assert parse_track({**VALUES, "curve_samples": 0}, "here").curve_samples == 0


def test_another_budgets_name_is_a_name():
    track = with_budget(Track(**VALUES), "1e+3img")
    assert track.name == "t-at-1e3img"
    assert Track.model_validate(track.model_dump()) == track
