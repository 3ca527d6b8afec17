"""A sweep's file: what is refused and how it says so, grids, draws, and the runs they come to."""

import contextlib
import math

import pytest

from genbench.cli import running
from genbench.descriptions import HparamDescription, ModelDescription
from genbench.errors import GenbenchError
from genbench.jobs import Checked
from genbench.records import RunRecord, Store
from genbench.run import Place
from genbench.sweep import night
from genbench.sweep.cell import Cell, attempt
from genbench.sweep.plan import Range, load_sweep, only, runs_of
from genbench.track import Track

TRACK = Track(name="tiny", dataset="digits", size=8, budget="5steps", num_samples=50, extractor="digits-cnn")
HPARAMS = {
    "lr": HparamDescription(default=1e-3, type="float"),
    "width": HparamDescription(default=8, type="int"),
    "loss": HparamDescription(default="mse", type="str", choices=("mse", "bce")),
}


def model(name, **more):
    return ModelDescription(
        name=name, distribution="d", version="1", digest=name, source=f"{name}_plugin", family="gan", hparams=HPARAMS, **more
    )  # fmt: skip


MODELS = {"a": model("a"), "b": model("b", presets={"tiny": {"lr": 0.5}}, trials=3)}


@pytest.fixture
def place(tmp_path):
    checked = Checked(
        device="cpu", device_class="cpu-1", device_name="x", num_devices=1, channels=1, num_train=1, num_holdout=1, num_test=1,
        num_classes=10, torch="2", packages={},
    )  # fmt: skip
    return Place(Store(tmp_path), checked, 1)


@pytest.fixture
def sweep(tmp_path):
    def write(text):
        file = tmp_path / "sweep.toml"
        file.write_text(text)
        return load_sweep(file)

    return write


HEAD = 'models = ["a", "b"]\ntracks = ["tiny"]\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('models = ["a"]\ntracks = [\n  "t",,\n]\n', "not TOML: .*line 3, column"),
        (HEAD + "seeds = 1\nseeds = 2\n", "overwrite"),
        (HEAD + "sedes = 1\n", "did you mean 'seeds'"),
        ("models = []\ntracks = ['t']\n", "models: .*at least 1"),
        ('models = ["a"]\n', "tracks: Field required"),
        (HEAD + "seeds = 0\n", "seeds must be"),
        (HEAD + "seeds = [1, 1]\n", "different numbers"),
        (HEAD + "seeds = [-1]\n", "from 0"),
        (HEAD + 'budget = "-5s"\n', "above 0"),
        (HEAD + 'budget = "nan s"\n', "finite"),
        (HEAD + "[grid.c]\nlr = [1]\n", "unknown model 'c'"),
        (HEAD + "[grid.a]\nlr = 1e-3\n", r"grid\.a\.lr"),
        (HEAD + "[grid.a]\nwidth = [4]\nlr = []\n", r"grid\.a\.lr = \[\] leaves no run"),
        (HEAD + "[grid.a]\nlr = [1e-3]\n[random.a]\nconfigurations = 1\n", "a has a grid and random draws"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(sweep, text, says):
    with pytest.raises(GenbenchError, match=says) as error:
        sweep(text)
    assert "sweep.toml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[grid.a]\nlrr = [1]\n", "did you mean 'lr'"),
        ("[grid.a]\nlr = [nan]\n", "finite"),
        ('[grid.a]\nloss = ["l1"]\n', "one of mse, bce"),
        ("[random.a]\nlr = [1]\n", "how many configurations"),
        ("[random.a]\nconfigurations = 2\nlr = 3\n", "a list of choices, or a range"),
        ("[random.a]\nconfigurations = 2\nlr = { low = 2, high = 1 }\n", "must lie below"),
        ("[random.a]\nconfigurations = 2\nlr = { low = 0, high = 1, log = true }\n", "above 0"),
        ("[random.a]\nconfigurations = 2\nlr = { low = 0, hihg = 1 }\n", r"random\.a\.lr\.h"),
    ],
)
def test_so_is_what_is_wrong_with_hparams(sweep, place, text, says):
    with pytest.raises(GenbenchError, match=says):
        runs_of(sweep(HEAD + text), MODELS, TRACK, place)


def test_models_times_seeds_seeds_outermost(sweep, place):
    found = runs_of(sweep(HEAD + "seeds = [3, 0]\n"), MODELS, TRACK, place)
    assert [(one.spec.seed, one.spec.model.name) for one in found] == [(3, "a"), (3, "b"), (0, "a"), (0, "b")]
    assert found[1].spec.model.changed == {"lr": 0.5}  # its preset
    assert (found[0].spec.model.trials, found[1].spec.model.trials) == (0, 3)
    assert len({one.spec.folder for one in found}) == 4


def test_a_grid_is_every_combination_and_counts_as_trials(sweep, place):
    found = runs_of(sweep(HEAD + "seeds = 2\n[grid.b]\nlr = [0.5, 0.1]\nwidth = [4, 8, 16]\n"), MODELS, TRACK, place)
    of_b = [one.spec.model for one in found if one.spec.model.name == "b"]
    assert len(of_b) == 12
    assert {(m.hparams["lr"], m.hparams["width"]) for m in of_b} == {(lr, w) for lr in (0.5, 0.1) for w in (4, 8, 16)}
    assert {m.trials for m in of_b} == {3 + 6}
    elsewhere = TRACK.model_copy(update={"name": "other"})  # where that preset, which took 3, is not in force
    found = runs_of(sweep(HEAD + "[grid.b]\nlr = [0.5, 0.1]\n"), MODELS, elsewhere, place)
    assert {m.trials for one in found if (m := one.spec.model).name == "b"} == {2}


def test_random_draws_are_declared_seeded_and_in_range(sweep, place):
    text = HEAD + "[random.a]\nconfigurations = 200\nlr = { low = 1e-4, high = 1e-2, log = true }\nwidth = { low = 4, high = 9 }\n"
    found = [one.spec.model for one in runs_of(sweep(text + 'loss = ["mse", "bce"]\n'), MODELS, TRACK, place) if one.spec.model.name == "a"]
    rates = [m.hparams["lr"] for m in found]
    assert len(found) == 200
    assert {m.trials for m in found} == {200}
    assert 1e-4 <= min(rates) < 2e-4
    assert 8e-3 < max(rates) <= 1e-2
    assert abs(sum(map(math.log10, rates)) / 200 + 3) < 0.15  # uniform in the logarithm
    assert {m.hparams["width"] for m in found} == set(range(4, 10))
    assert {type(m.hparams["width"]) for m in found} == {int}
    assert {m.hparams["loss"] for m in found} == {"mse", "bce"}
    again = [one.spec.model for one in runs_of(sweep(text + 'loss = ["mse", "bce"]\n'), MODELS, TRACK, place) if one.spec.model.name == "a"]
    assert [m.hparams for m in found] == [m.hparams for m in again]
    fewer = [
        one.spec.model.hparams
        for one in runs_of(sweep(text.replace("200", "5") + 'loss = ["mse", "bce"]\n'), MODELS, TRACK, place)
        if one.spec.model.name == "a"
    ]
    assert fewer == [m.hparams for m in found[:5]]  # more draws add to those there were


def test_equal_configurations_are_one_run(sweep, place):
    found = runs_of(sweep(HEAD + "[grid.a]\nlr = [1e-3, 0.001]\n"), MODELS, TRACK, place)
    assert [one.spec.model.name for one in found] == ["a", "b"]


def test_only(sweep, place):
    found = runs_of(sweep(HEAD + "seeds = 12\n"), MODELS, TRACK, place)
    assert len(only(found, [])) == len(only(found, ["tiny"])) == 24
    assert {one.spec.model.name for one in only(found, ["b"])} == {"b"}
    assert [one.spec.seed for one in only(found, ["tiny/a/1"])] == [1]
    assert len(only(found, ["tiny/a/1", "tiny/b"])) == 13
    with pytest.raises(GenbenchError, match="leaves no run; it takes a model"):
        only(found, ["c"])


def test_a_range_is_uniform():
    import random

    chance = random.Random(0)
    drawn = [Range(low=-1, high=3).draw(chance) for _ in range(4000)]
    assert min(drawn) >= -1
    assert max(drawn) <= 3
    assert sum(drawn) / 4000 == pytest.approx(1, abs=0.07)


def test_every_word_of_only_must_mean_a_run(sweep, place):
    found = runs_of(sweep('models = ["a", "b"]\ntracks = ["tiny"]\nseeds = 2'), MODELS, TRACK, place)
    with pytest.raises(GenbenchError, match=r"--only bb, tiny/b/7 leaves no run"):
        only(found, ["a", "bb", "tiny/b/7"])


@pytest.mark.parametrize("value", ["8.4", "nan", "inf"])
def test_a_listed_number_is_not_rounded(sweep, place, value):
    with pytest.raises(GenbenchError, match=r"width=.* is not a whole number"):
        runs_of(sweep(f'models = ["a"]\ntracks = ["tiny"]\n[grid.a]\nwidth = [{value}]'), MODELS, TRACK, place)


def test_a_drawn_one_is(sweep, place):
    text = 'models = ["a"]\ntracks = ["tiny"]\n[random.a]\nconfigurations = 6\nwidth = { low = 2, high = 9 }'
    assert {type(one.spec.model.hparams["width"]) for one in runs_of(sweep(text), MODELS, TRACK, place)} == {int}


def test_a_track_named_in_two_ways_is_one(sweep, place):
    class Executor:
        def places(self, tracks, models):
            return [place] * len(tracks)

        def gather(self, cells):
            pass

    asked = sweep('models = ["a"]\ntracks = ["tiny", "./tiny"]\nseeds = 2')
    cells = night.cells_of(asked, {"a": MODELS["a"]}, [TRACK, TRACK], Executor())
    assert [cell.planned.spec.seed for cell in cells] == [0, 1]


def test_a_dry_run_says_what_a_retry_would_do(sweep, place):
    found = runs_of(sweep('models = ["a"]\ntracks = ["tiny"]\nseeds = 3'), MODELS | {"b": MODELS["a"]}, TRACK, place)[:3]
    cells = [Cell(one, place) for one in found]
    for cell, status in zip(cells, ("done", "error"), strict=False):
        place.store.commit(RunRecord(spec=cell.planned.spec, status=status, started="now"))
    assert [row["state"] for row in night.outlook(cells)] == ["done", "error", "to run"]
    assert [row["state"] for row in night.outlook(cells, retry_failed=True)] == ["done", "to run", "to run"]


def test_a_file_in_the_place_of_a_runs_folder_is_one_line(sweep, place):
    (one,) = runs_of(sweep('models = ["a"]\ntracks = ["tiny"]'), {"a": MODELS["a"]}, TRACK, place)
    cell = Cell(one, place)
    cell.folder.parent.mkdir(parents=True)
    cell.folder.write_text("")
    assert cell.record is None
    with pytest.raises(GenbenchError, match=r"is a file, where a run needs a folder; move it away$"):
        attempt(cell, None, print, None)


def test_a_sweep_whose_runs_are_all_skipped_on_a_track_ends_with_the_other_tracks_table(tmp_path, place, monkeypatch, capsys):
    """The skipped track has no table; the summary and exit code 1 come all the same."""
    other = TRACK.model_copy(update={"name": "other"})
    tracks, models = {"tiny": TRACK, "other": other}, {"a": MODELS["a"]}

    class Scripted:
        slots = 1

        def places(self, tracks, models):
            return [place for _ in tracks]

        def gather(self, cells):
            pass

        def execute(self, cells, on_event, on_record):
            for cell in cells:
                if cell.planned.spec.track == TRACK:
                    on_event(cell, {"kind": "elsewhere", "reason": "a seed 0 was begun with torch 0.1"})
                    continue
                record = RunRecord(spec=cell.planned.spec, status="error", reason="x", started="2026-01-01T00:00:00+00:00")
                place.store.commit(record)
                on_record(cell, record)

    monkeypatch.setattr(night, "started", lambda executor, wishes: contextlib.nullcontext(Scripted()))
    monkeypatch.setattr("genbench.inventory.inventory", lambda: None)
    monkeypatch.setattr(running, "model_named", lambda name, found: models[name])
    monkeypatch.setattr(running, "track_named", lambda name, budget: tracks[name])
    for names, shown in ((["tiny"], set()), (["tiny", "other"], {"other"})):
        file = tmp_path / "night.toml"
        file.write_text(f'models = ["a"]\ntracks = {names}\n')
        with pytest.raises(SystemExit) as end:
            running.sweep_command(file, results=place.store.root)
        said = capsys.readouterr().out
        assert end.value.code == 1
        assert "skipped: a seed 0 was begun with torch 0.1" in said
        assert {name for name in tracks if f"{name}  ·  " in said} == shown
        assert "; 1 skipped" in said
