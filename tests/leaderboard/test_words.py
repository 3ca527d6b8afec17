from __future__ import annotations

import shlex
import tomllib

import pytest

from genbench.leaderboard import text, words
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.columns import KNOWN, column, sort_key, write
from genbench.track import parse_track, shipped_tracks


@pytest.mark.parametrize(
    ("value", "form", "half", "expected"),
    [
        (96.1834, "score", None, ("96.18", "")),
        (96.1834, "score", 11.27, ("96", "11")),
        (8.5219, "score", 0.0624, ("8.522", "0.062")),
        (1234.56, "score", 100.0, ("1\u202f235", "100")),
        (6381.2, "score", None, ("6\u202f381", "")),
        (0.0, "score", None, ("0.000", "")),
        (-0.00021, "score", None, ("-2.10e-04", "")),
        (0.79433, "ratio", 0.0121, ("0.794", "0.012")),
        (0.79433, "ratio", None, ("0.794", "")),
        (64.0, "count", None, ("64", "")),
        (1234567.0, "count", 0.0, ("1.23\u202fM", "")),
        (4321.0, "count", None, ("4\u202f321", "")),
        (812_000_000.0, "bytes", None, ("774\u202fMiB", "")),
        (16_750.0, "count", 7_200.0, ("16.8\u202fk", "7.2\u202fk")),  # not ± 7 steps
        (812_000_000.0, "bytes", 52_000_000.0, ("774\u202fMiB", "50\u202fMiB")),
        (4321.0, "count", 12.0, ("4\u202f321", "12")),
        (12126.4, "rate", 223.4, ("12\u202f126", "223")),
        (180.23, "seconds", None, ("180.2 s", "")),
        (180.23, "seconds", 0.51, ("180.2 s", "0.5 s")),
        (5.0, "score", 0.0, ("5.000", "0.000")),
    ],
)
def test_numbers_are_written_to_the_digits_that_matter(value, form, half, expected):
    assert write(value, form, half) == expected


def test_every_known_column_explains_itself():
    for name, known in KNOWN.items():
        assert len(known.explanation) > 20, name
    fid = column("fid", "lower", extractor="mnist-cnn", sizes="10 000 generated against 10 000 test images")
    assert fid.heading == "FID (mnist-cnn) ↓"
    assert all(column(name, "neither").help.endswith("compare with the floor.") for name in ("nn_excess", "auth_pct"))
    assert fid.help.endswith("Lower is better. (10 000 generated against 10 000 test images.)")
    assert column("x|<y>", "neither").group == "other"


def test_markdown_shows_text_literally():
    assert text.markdown("a|b <i>*c*_d`[e](http://f) @g") == "a\\|b \\<i\\>\\*c\\*\\_d\\`\\[e\\](http:\\//f) &#64;g"
    block = text.code_block("a ``` b")
    assert block.startswith("````sh\n")
    assert block.endswith("\n````")


def test_file_names_stay_in_their_folder_and_apart():
    names = ["mnist-3m", "readme", "index", "protocol", "models", "track-index", "a" * 200, "a" * 199 + "b", "x..y"]
    stems = [text.stem(name) for name in names]
    assert stems[0] == "mnist-3m"
    assert len({stem.lower() for stem in stems}) == len(names)
    assert not {"readme", "index", "protocol", "models"} & set(stems)
    assert all(len(stem) < 80 and "/" not in stem for stem in stems)


def test_a_track_survives_its_toml(make):
    track = make.track(
        name="mine", description='say "hi" \\ \n now \u202e \x80 \U000e0001 日', metrics=("fid", "is"), curve=(0.5, 1e-05), flip=True,
        target=12.5, beside=("pixels-pca",), published={'a "b".c': {"fid": (1.0, 2.5), "is": (3, 4)}, "none": {}},
    )  # fmt: skip
    written = text.track_toml(track)
    again = parse_track(tomllib.loads(written), "test")
    assert (again, again.hash) == (track, track.hash)
    assert "\u202e" not in written
    assert not text.is_shipped(track)
    assert all(map(text.is_shipped, shipped_tracks()))


def test_the_command_repeats_the_row(make, tmp_path):
    shipped = next(track for track in shipped_tracks() if track.name == "mnist-3m")
    odd = make.record("wgan-gp", 0, 1.0, changed={"width": 48, "mode": "a b; rm -rf /"}, the_track=shipped)
    command = text.command(odd.spec.model, shipped, 3, "cpu-2")
    assert shlex.split(command) == [
        "genbench",
        "run",
        "wgan-gp",
        "--track",
        "mnist-3m",
        "--seeds",
        "3",
        "--device",
        "cpu",
        "--threads",
        "2",
        "--hp",
        "wgan-gp.mode=a b; rm -rf /",
        "--hp",
        "wgan-gp.width=48",
    ]
    own = make.record("MyGAN", 0, 1.0, source="./mygan.py:MyGAN").spec.model
    assert shlex.split(text.command(own, make.track(budget="9m"), 1, "NVIDIA H100"))[2:] == [
        "./mygan.py:MyGAN",
        "--track",
        f"mnist-3m-{make.track(budget='9m').hash}.toml",
        "--seeds",
        "1",
        "--device",
        "cuda",
    ]


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("2x cpu-1", "--device cpu --devices 2 --threads 2"),
        ("3x cpu-4", "--device cpu --devices 3 --threads 12"),
        ("2x NVIDIA H100 80GB HBM3", "--device cuda --devices 2"),
        ("cpu", "--device cpu"),
    ],
)
def test_the_command_asks_for_as_many_devices(make, device, words):
    command = text.command(make.record("a", 0, 1.0).spec.model, make.track(), 1, device)
    assert command.partition("--seeds 1 ")[2] == words


def test_headline_names_leader_floor_and_the_fastest(make, tmp_path):
    records = [make.record("a", s, 10.0 + s, speed=100.0) for s in range(3)] + [make.record("b", 0, 99.0, speed=5000.0)]
    (table,) = read(make.write(tmp_path, *records)).tables
    assert words.headline(table) == (
        "a leads with FID 11.00 (median of 3 seeds, preliminary); real images reach 2.900. Fastest to train: b, 5\u202f000 images/s."
    )


def test_headline_is_silent_without_a_ranking(make, tmp_path):
    (table,) = read(make.write(tmp_path, make.record("a", 0, status="error", reason="x"))).tables
    assert words.headline(table) == ""


def test_the_grid_shown_is_the_median_run(make, tmp_path):
    records = [make.record("a", s, fid) for s, fid in enumerate([30.0, 10.0, 20.0, 5.0])]
    (table,) = read(make.write(tmp_path, *records)).tables
    assert words.median_run(table.rows[0], "fid").seed == 1  # of 5, 10, 20, 30 the lower middle


def test_flags_say_in_how_many_runs(make, tmp_path):
    records = [make.record("a", 0, 1.0, flags=["collapsed"]), make.record("a", 1, 1.0)]
    (table,) = read(make.write(tmp_path, *records)).tables
    assert table.rows[0].flags == ("collapsed (in 1 of 2)",)


def test_columns_of_other_extractors_follow_the_tracks_own():
    keys = ["train_throughput", "fid@pixels-pca", "theirs", "w1", "fid", "statistical_fidelity", "fid_infinity"]
    ordered = [col.key for col in sorted((column(key, "lower") for key in keys), key=sort_key)]
    assert ordered == ["fid", "fid_infinity", "statistical_fidelity", "fid@pixels-pca", "train_throughput", "w1", "theirs"]
