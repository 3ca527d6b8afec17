"""What people said, as columns of the tables; and the commands from a results folder to there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from genbench.errors import GenbenchError
from genbench.judge import report
from genbench.judge.serve import Choice, prepare_study
from genbench.judge.study import REAL
from genbench.judge.votes import Votes, database
from genbench.judgements import judgement_paths
from genbench.leaderboard import build
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.check import check


@pytest.fixture
def results(tmp_path, make) -> Path:
    return make.results(tmp_path / "results")


def judged(results, make, people, choice=None, rates=(0.4, 0.2)):
    """A study of dcgan and vae in the results folder, judged by people whose error rates are known, and its record written."""
    study, _ = prepare_study(results, "digits-20s", ["dcgan", "vae"], choice or Choice(trials=40, pool=80))
    votes = Votes(database(results, study.track), create=True)
    by_label = {entrant.label: entrant.row for entrant in study.entrants}
    for at in range(people):
        known = {by_label["dcgan"]: rates[0], by_label["vae"]: rates[1], REAL: 0.1}
        make.answer_all(votes, study, f"{study.id}{at}", make.fooled_by(known))
    votes.close()
    report.write(results, report.judgements(results))
    return study


def test_a_study_takes_rows_by_name_with_all_their_seeds_and_the_test_split(results):
    study, pictures = prepare_study(results, "digits-20s", ["dcgan", "noise"], Choice(trials=40, pool=80))
    assert {entrant.label for entrant in study.entrants} == {"dcgan", "noise"}
    assert [run.seed for run in study.entrants[0].runs] == [0, 1]
    assert (study.size, study.channels, study.num_samples) == (8, 1, 300)
    everything, _ = prepare_study(results, "digits-20s", [], Choice(trials=40, pool=80))
    assert {entrant.label for entrant in everything.entrants} == {"dcgan", "vae"}  # controls take part where they are named
    from genbench.datasets.prepare import prepare

    real = study.pictures[REAL][7]
    assert np.array_equal(pictures._images[real], prepare("digits", 8).test.images[int(real.split("/")[1])])
    fake = study.pictures[study.entrants[0].row][70]
    _, seed, index = fake.split("/")
    label = study.entrants[0].label
    (folder,) = (results / "runs" / "digits-20s" / label).glob(f"{seed}-*")
    assert np.array_equal(pictures._images[fake], np.load(folder / "samples.npz")["images"][int(index)])


def test_real_images_are_no_fakes(results):
    for path in (results / "runs" / "digits-20s" / "noise").glob("*/record.json"):
        path.write_text(path.read_text().replace('"flags": []', '"flags": ["memorised: all of it"]'))
    with pytest.raises(GenbenchError, match="noise shows real images, which nobody can call generated"):
        prepare_study(results, "digits-20s", ["dcgan", "noise"], Choice(trials=40, pool=80))
    study, _ = prepare_study(results, "digits-20s", ["dcgan", "noise"], Choice("which-is-better", trials=40, pool=80))
    assert len(study.entrants) == 2


def test_samples_that_are_not_those_of_the_record_are_refused(results):
    (folder,) = (results / "runs" / "digits-20s" / "dcgan").glob("1-*")
    np.savez(folder / "samples.npz", images=np.zeros((300, 1, 8, 8), np.uint8))
    with pytest.raises(GenbenchError, match="not the samples that were scored"):
        prepare_study(results, "digits-20s", ["dcgan"], Choice(trials=40, pool=80))
    (folder / "samples.npz").unlink()
    with pytest.raises(GenbenchError, match="is not there"):
        prepare_study(results, "digits-20s", ["dcgan"], Choice(trials=40, pool=80))


@pytest.mark.parametrize(
    ("models", "choice", "told"),
    [
        (["dcgna"], Choice(), "dcgan"),
        (["dcgan", "dcgan"], Choice(), "more than once"),
        (["dcgan"], Choice("which-is-better"), "two or more"),
        (["dcgan"], Choice(exposure_ms=50), "100 to 1000"),
        (["dcgan"], Choice(trials=6), "--trials"),
    ],
)
def test_mistakes_are_told_before_a_page_opens(results, models, choice, told):
    with pytest.raises(GenbenchError, match=told):
        prepare_study(results, "digits-20s", models, choice)


def test_columns_stand_in_the_table_of_the_judged_runs_with_people_and_votes(results, make):
    judged(results, make, 12)
    (table,) = read(results).tables
    rows = {row.label: row for row in table.all_rows}
    assert rows["dcgan"].cells["human_fakes_error"].mean == pytest.approx(0.4)
    assert rows["vae"].cells["human_hype"].mean == pytest.approx(0.15)
    assert rows["dcgan"].cells["human_hype"].best
    assert not rows["vae"].cells["human_hype"].best
    assert rows["vae"].cells["human_hype"].half > 0
    assert rows["vae"].cells["human_hype_votes"].mean == 120
    assert "human_hype" not in rows["noise"].cells
    (section,) = [some for some in table.sections() if some[0].group == "people"]
    assert [column.title for column in section[1]] == ["HYPE∞", "taken for real", "d′", "people's votes on images"]
    (note,) = [note for note in table.notes if "people" in note]
    assert "12 people, 480 votes" in note
    assert "10 % of real images" in note
    assert "Preliminary" not in note


def test_few_people_are_marked_preliminary_and_nothing_is_bold(results, make):
    judged(results, make, 3)
    (table,) = read(results).tables
    assert not any(row.cells[key].best for row in table.rows for key in row.cells if key.startswith("human_"))
    assert any("Preliminary: fewer than 10 people" in note for note in table.notes)
    assert "preliminary" in next(column for column in table.columns if column.key == "human_hype").help


def test_timed_and_untimed_stand_in_columns_of_their_own(results, make):
    judged(results, make, 2)
    judged(results, make, 2, Choice(trials=40, pool=80, exposure_ms=250), rates=(0.5, 0.3))
    (table,) = read(results).tables
    row = next(row for row in table.rows if row.label == "dcgan")
    assert row.cells["human_fakes_error"].mean == pytest.approx(0.4)
    assert row.cells["human_fakes_error-250ms"].mean == pytest.approx(0.5)
    assert "HYPE at 250 ms" in [column.title for column in table.columns]


def test_what_was_judged_of_other_runs_stays_out(results, make):
    judged(results, make, 2)
    (path,) = judgement_paths(results)
    other = json.loads(path.read_text()) | {"device_class": "cpu-64"}
    path.unlink()
    from genbench.judgements import Judgement, write_judgement

    write_judgement(results, Judgement.model_validate(other))
    (table,) = read(results).tables
    assert not [column for column in table.columns if column.group == "people"]


def test_published_judgements_are_built_and_checked_with_the_records(tmp_path, results, make):
    judged(results, make, 11)
    out = tmp_path / "leaderboards"
    records = out / "records"
    for path in (*results.glob("runs/*/*/*/record.json"), *judgement_paths(results)):
        place = records / path.relative_to(results / "runs" if path.name == "record.json" else results)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    build(records, out)
    assert "HYPE∞" in (out / "digits-20s.md").read_text()
    assert "Judged by people" in (out / "site" / "digits-20s.html").read_text()
    assert "human_hype" in (out / "digits-20s.csv").read_text().splitlines()[0]
    # the synthetic records contradict themselves elsewhere: what is asked here is what is said of the judgement
    assert not [fault for fault in check(out).faults if "judge" in fault or "not what the records give" in fault]
    (path,) = judgement_paths(records)
    path.write_text(path.read_text().replace("0.4", "0.9"))
    assert [fault for fault in check(out, tables=False).faults if "was changed" in fault]
    assert [one.path for one in read(records).damaged] == [path.relative_to(records).as_posix()]


def genbench(*arguments, **kwargs):
    return subprocess.run([sys.executable, "-m", "genbench", *map(str, arguments)], capture_output=True, text=True, timeout=120, **kwargs)


def test_the_commands_from_a_results_folder_to_a_leaderboard(tmp_path, results, make):
    command = [sys.executable, "-m", "genbench", "judge", "serve", "dcgan", "vae", "--track", "digits-20s"]
    command += ["--results", str(results), "--port", "0", "--trials", "20", "--images", "40"]
    unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=unbuffered)
    try:
        lines = [server.stdout.readline(), server.stdout.readline()]
        url = re.search(r"http://127\.0\.0\.1:\d+", lines[1])[0]
        assert lines[0].startswith("real-or-fake on digits-20s: ")
        with httpx.Client(timeout=30) as client:
            browser = make.Browser(client, url)
            browser.join("Ada")
            state = browser.state()
            for at in range(20):
                state = browser.vote(state, "real" if at % 2 else "fake").json()
    finally:
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=30)
    assert server.returncode == 130
    assert "Traceback" not in said
    plain = genbench("judge", "report", "--results", results)
    assert plain.returncode == 0, plain.stderr
    assert "1 person, " in plain.stdout
    assert "Preliminary" in plain.stdout
    (found,) = json.loads(genbench("judge", "report", "--results", results, "--json", "--dry-run").stdout)
    assert found["people"] == 1
    assert len(judgement_paths(results)) == 1
    out = tmp_path / "votes.csv"
    assert "votes of 1 person" in genbench("judge", "export", "--track", "digits-20s", "--results", results, "--out", out).stdout
    assert "1 new people, 20 new votes" in genbench("judge", "import", out, "--results", tmp_path / "b").stdout
    refused = genbench("judge", "serve", "--track", "digits-20s", "--results", results, "--port", "0", "--address", "0.0.0.0")
    assert refused.returncode == 2
    assert "--token" in refused.stderr
    plan = json.loads(genbench("judge", "plan", "--people", 4, "--studies", 3, "--json").stdout)
    assert plan[0]["people"] == 4
    assert 0 < plan[0]["half_width"] < 0.5
