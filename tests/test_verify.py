"""Runs are verified from their files, whoever made them; what was edited, swapped or forged is found and told."""

import hashlib
import itertools
import json
import shutil
import sys

import numpy as np
import pytest

from genbench import cli
from genbench.errors import GenbenchError
from genbench.leaderboard.table import Run
from genbench.records import read_record
from genbench.supervisor import Supervisor
from genbench.track import Track
from genbench.verification import standing, write_verification
from genbench.verify import regenerate, retrain, summary, verify
from tests.tiny_runs import copied, edit, make_runs


@pytest.fixture(scope="module")
def supervisor():
    return Supervisor()


@pytest.fixture(scope="module")
def made(tmp_path_factory, supervisor):
    return make_runs(tmp_path_factory.mktemp("made"), supervisor, seeds=4)


@pytest.fixture(scope="module")
def flat(tmp_path_factory, supervisor):
    return make_runs(tmp_path_factory.mktemp("flat"), supervisor, flat=True)


@pytest.fixture
def run(made, tmp_path):
    return copied(made[1][0], tmp_path)


@pytest.fixture(autouse=True)
def _fresh_seeds_are_fixed(monkeypatch):
    """A test of honest runs must not fail once in a hundred times, as its level allows."""
    numbers = itertools.count(1000)
    for module in (regenerate, retrain):
        monkeypatch.setattr(sys.modules[module.__module__].secrets, "randbits", lambda bits: next(numbers))


def told(found, of):
    return {one.score: one for one in found.scores if one.of == of}


def set_row(run, *values):
    """FIDs of the row's other seeds, as their submitter wishes them."""
    others = sorted(folder for folder in run.parent.iterdir() if folder != run)
    for folder, value in zip(others, values, strict=True):
        edit(folder, lambda record, value=value: set_score(record, "fid", value=value))


def test_an_honest_run_passes_all_three_tiers(made, run, supervisor):
    lines = []
    fid = read_record(run / "record.json").score("fid")
    set_row(run, 0.92 * fid, fid, 1.08 * fid)  # as near as seeds of a model that has learnt more
    found = verify(run, supervisor, tier=3, model=made[0], tell=lines.append)
    assert found.ok, found.differs
    assert found.same_machine
    stored, fresh, again = (told(found, of) for of in ("stored samples", "fresh seed", "retrained"))
    assert {"fid", "fid_train", "statistical_fidelity"} <= set(stored)
    assert all(one.ok and not one.difference for one in stored.values())  # bit for bit
    assert fresh["fid"].ok is True
    assert fresh["fid"].found != fresh["fid"].recorded
    assert fresh["statistical_fidelity"].ok is None  # no interval within the run: told, not judged
    assert "every pixel is as recorded" in {finding.detail for finding in found.findings}
    assert (len(again), found.retrained_seeds) == (1, (1001,))  # three other seeds of the row lie beside it
    assert any(line.startswith("training again 1 time for 12steps") for line in lines)
    path = write_verification(run, found)
    assert path.parent == run
    assert standing(run).label == "T3 (self)"
    assert "T3 (self)" in summary(found)
    write_verification(run, found.model_copy(update={"by": "somebody else"}))
    assert standing(run).label == "T3"
    assert Run(read_record(run / "record.json"), run / "record.json").standing.tier == 3


def set_score(record, name, **changes):
    next(score for score in record["scores"] if score["name"] == name).update(changes)


def swap_samples(run, others):
    shutil.copy(others[1] / "samples.npz", run / "samples.npz")


def swap_samples_and_digest(run, others):
    swap_samples(run, others)
    other = json.loads((others[1] / "record.json").read_text())["digests"]["samples"]
    edit(run, lambda record: record["digests"].update(samples=other))


def drop_score(run, others):
    edit(run, lambda record: record["scores"].pop(0))


def invent_score(run, others):
    edit(run, lambda record: record["scores"].append({"name": "beauty", "value": 1.0, "better": "higher", "extractor": "digits-cnn"}))


TAMPERED = {
    "an edited FID": (lambda run, others: edit(run, lambda r: set_score(r, "fid", value=3.25)), "fid of stored samples: recorded 3.25"),
    "an edited direction": (lambda run, others: edit(run, lambda r: set_score(r, "fid", better="higher")), "fid of stored samples"),
    "an edited floor": (lambda run, others: edit(run, lambda r: set_score(r, "fid", floor=99.0)), "fid of stored samples"),
    "an edited protocol": (lambda run, others: edit(run, lambda r: set_score(r, "fid_train", protocol="ffffffff")), "not the same measure"),
    "a score left out": (drop_score, "the record leaves it out"),
    "a score made up": (invent_score, "no metric of the track gives it"),
    "another run's samples": (swap_samples, "samples: not what was drawn"),
    "another run's samples with their digest": (swap_samples_and_digest, "fid of stored samples"),
    "another run's grid": (lambda run, others: shutil.copy(others[1] / "grid.png", run / "grid.png"), "grid.png: shows other images"),
    "a larger budget": (lambda run, others: edit(run, lambda r: r["spent"].update(steps=24, images=384)), "trained 24 steps of 12"),
    "another track": (lambda run, others: edit(run, lambda r: r["spec"]["track"].update(flip=True)), "track hash"),
    "an extractor that sees better": (lambda run, others: edit(run, lambda r: r.update(extractor_accuracy=1.0)), "extractor's accuracy"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_tampered_with_is_told(what, run, made, supervisor):
    tamper, says = TAMPERED[what]
    tamper(run, made[1])
    found = verify(run, supervisor, tier=1)
    assert not found.ok
    assert any(says in line for line in found.differs), found.differs
    write_verification(run, found)
    assert standing(run).tier == 0
    assert len(standing(run).differs) == 1


def test_an_alarm_that_the_record_leaves_out_is_told(flat, tmp_path, supervisor):
    run = copied(flat[1][0], tmp_path)
    assert "blank" in read_record(run / "record.json").flags
    edit(run, lambda record: record.update(flags=[]))
    assert any("the record leaves out: blank" in line for line in verify(run, supervisor, tier=1).differs)


def other_checkpoint(run, others, *, forged):
    for name in ("checkpoint.safetensors", "checkpoint.json"):
        shutil.copy(others[1] / name, run / name)
    if forged:
        digest = hashlib.sha256((run / "checkpoint.safetensors").read_bytes()).hexdigest()
        edit(run, lambda record: record["digests"].update(checkpoint=digest))


def test_a_checkpoint_that_was_swapped_is_told_by_its_digest_and_with_that_forged_by_its_samples(run, made, supervisor):
    other_checkpoint(run, made[1], forged=False)
    assert any("checkpoint: not the one that was sealed" in line for line in verify(run, supervisor, model=made[0]).differs)
    other_checkpoint(run, made[1], forged=True)
    found = verify(run, supervisor, model=made[0])
    assert any(line.startswith("recorded seed:") and "pixels are within one level" in line for line in found.differs), found.differs
    assert told(found, "stored samples")["fid"].ok


def test_hparams_family_and_sizes_that_the_plugin_denies_are_told(run, made, supervisor):
    def change(record):
        record["spec"]["model"].update(family="gan", changed={}, hparams={"width": 3, "lr": 0.5})
        record["throughput"]["parameters"] = 7

    edit(run, change)
    differs = " ".join(verify(run, supervisor, model=made[0]).differs)
    for says in ("family 'gan' recorded, 'other' in the plugin", "not the defaults with the changed ones", "another number of parameters"):
        assert says in differs


def test_a_forged_value_is_better_than_training_again_allows(run, made, supervisor):
    """Whatever the row's other seeds are made to say: they scatter by more than the forgery."""
    edit(run, lambda record: set_score(record, "fid", value=read_record(run / "record.json").score("fid") / 1000, interval=None))
    set_row(run, 0.01, 10.0, 1e5)
    found = verify(run, supervisor, tier=3, model=made[0])
    (line,) = [line for line in found.differs if line.startswith("retrained:")]
    assert "it may be better by a factor of" in line
    assert "2 degrees of freedom, 0 other seeds of its row counted" in line
    assert len(found.retrained_seeds) == 3


def test_a_training_that_can_tell_nothing_is_not_begun(run, made):
    nobody = object()  # whoever asks this supervisor for anything fails otherwise
    set_row(run, 0.01, 10.0, 1e5)
    with pytest.raises(GenbenchError, match=r"one training shows no spread.*use --repeats 3"):
        verify(run, nobody, tier=3, model=made[0], repeats=1)
    for folder in set(run.parent.iterdir()) - {run}:
        shutil.rmtree(folder)
    with pytest.raises(GenbenchError, match=r"one training shows no spread.*use --repeats 3"):
        verify(run, nobody, tier=3, model=made[0], repeats=1)
    edit(run, lambda record: set_score(record, "fid", value=None))
    with pytest.raises(GenbenchError, match="the record has no fid, which its track ranks by"):
        verify(run, nobody, tier=3, model=made[0])


LOOSE = {
    "an interval as wide as one likes": {"value": 1.0, "interval": [-1e6, 1e6]},
    "no interval": {"value": 1.0, "interval": None},
    "another protocol": {"protocol": "ffffffff"},
}


@pytest.mark.parametrize("what", LOOSE)
def test_a_record_does_not_say_how_closely_it_is_judged(what, run, made, supervisor):
    """Without stored samples the fresh draw has to find it."""
    (run / "samples.npz").unlink()
    edit(run, lambda record: set_score(record, "fid", **LOOSE[what]))
    found = verify(run, supervisor, model=made[0])
    assert found.tier == 2
    assert not found.ok
    assert told(found, "fresh seed")["fid"].ok is False


def test_there_is_no_second_tier_where_nobody_can_judge_the_score_that_the_track_ranks_by(run, made, supervisor):
    """Statistical fidelity has no interval within the run: on another machine, with other draws, it is shown and not judged."""

    def change(record):
        spec, name = record["spec"], "statistical_fidelity"
        spec["track"].update(metrics=[name], rank_by=name)
        spec["track_hash"] = Track.model_validate(spec["track"]).hash
        record["scores"] = [score for score in record["scores"] if not score["name"].startswith("fid")]
        record["environment"].update(device="another processor")

    edit(run, change)
    found = verify(run, supervisor, model=made[0])  # the same pixels after all, so that the stored samples' score is theirs
    assert found.ok, found.differs
    assert "statistical_fidelity" in found.agreed
    other_checkpoint(run, made[1], forged=True)
    with pytest.raises(GenbenchError, match="tier 2 is out of reach: statistical_fidelity, which the track ranks by, has no interval"):
        verify(run, supervisor, model=made[0])
    assert verify(run, supervisor, tier=1).ok


def test_only_the_source_that_the_record_names_is_executed(run, made, supervisor, tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "tiny.py").write_text(f"open({str(canary)!r}, 'w')\n")
    with pytest.raises(GenbenchError, match="not the source that Tiny was trained from"):
        verify(run, supervisor, tier=2, model=f"{tmp_path / 'tiny.py'}:Tiny")
    edit(run, lambda record: record["spec"]["model"].update(source=f"{tmp_path / 'tiny.py'}:Tiny"))
    with pytest.raises(GenbenchError, match="not packaged: name the file"):
        verify(run, supervisor, tier=2)
    edit(run, lambda record: record["spec"]["model"].update(name="noise", distribution="genbench-controls"))
    with pytest.raises(GenbenchError, match="not the source it was trained from"):
        verify(run, supervisor, tier=2)
    assert not canary.exists()


def test_samples_drawn_on_another_machine_are_judged_by_their_scores(run, made, supervisor):
    """As if the record came from elsewhere: other pixels are no fault there, another FID is."""
    edit(run, lambda record: record["environment"].update(device="another processor"))
    edit(run, lambda record: set_score(record, "fid", interval=[-1e6, 1e6]))
    other_checkpoint(run, made[1], forged=True)
    found = verify(run, supervisor, model=made[0])
    assert not found.same_machine
    again = told(found, "recorded seed")["fid"]
    theirs = next(one for one in read_record(made[1][1] / "record.json").scores if one.name == "fid")  # of the same checkpoint
    usual = np.sqrt(2) * 3.2905 / 1.96 * np.ptp(theirs.interval) / 2
    assert usual / 2 < again.tolerance < 2 * usual  # the recorded interval would allow two millions
    assert again.ok is (abs(again.difference) <= again.tolerance)
    assert any("their scores decide" in line for line in found.unchecked)


def genbench(*arguments, monkeypatch, capsys) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["genbench", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out = capsys.readouterr()
    return int(caught.value.code or 0), out.out, out.err


def test_the_command_tells_and_writes_and_its_exit_code_says_whether_all_is_as_recorded(run, monkeypatch, capsys):
    code, out, _ = genbench("verify", run / "record.json", "--tier", "1", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "T1 (self): scores recomputed from the samples: all as recorded" in out
    assert standing(run).label == "T1 (self)"
    edit(run, lambda record: set_score(record, "fid", value=1.0))
    code, out, _ = genbench("verify", run, "--tier", "1", "--json", "--dry-run", monkeypatch=monkeypatch, capsys=capsys)
    value = json.loads(out)
    assert (code, value["ok"], value["tier"]) == (1, False, 1)
    assert standing(run).tier == 0  # the record was changed after it was verified
    assert len(list(run.glob("verification-*"))) == 1


def test_what_cannot_be_verified_is_one_line(run, monkeypatch, capsys):
    (run / "samples.npz").unlink()
    code, _, err = genbench("verify", run, "--tier", "1", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, "holds no samples.npz" in err) == (2, True)
    edit(run, lambda record: record.update(status="diverged", reason="nan", scores=[]))
    code, _, err = genbench("verify", run, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, "nothing to verify: the run ended as diverged" in err) == (2, True)
