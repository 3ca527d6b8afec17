"""Votes travel between machines as CSV: whole, once, and nothing that people could not have done."""

from __future__ import annotations

import csv
import io

import pytest

from genbench.errors import GenbenchError
from genbench.judge import exchange, report
from genbench.judge.study import REAL
from genbench.judge.votes import Vote, Votes, database

TRACK = "digits-20s"


@pytest.fixture
def lab(tmp_path, make):
    """Machine a with two people, one half way through and with an undo; returns its folder, its open votes and the study."""
    study = make.study()
    votes = Votes(database(tmp_path / "a", TRACK), create=True)
    rates = {make.rows[0]: 0.4, make.rows[1]: 0.2, REAL: 0.1}
    make.answer_all(votes, study, "whole", make.fooled_by(rates))
    half = make.answer_all(votes, study, "half", make.fooled_by(rates), upto=21)
    votes.undo(half, 20, 0)
    yield tmp_path, votes, study, half
    votes.close()


def named(study):
    return f"{study.title}, study {study.id}"


def sheets(folder, study):
    votes = Votes(database(folder, TRACK))
    try:
        return votes.sheets(study.id)
    finally:
        votes.close()


def test_an_import_gives_what_was_exported_and_a_second_one_adds_nothing(lab):
    folder, votes, study, _ = lab
    path, beside, people = exchange.export(folder / "a", TRACK, folder / "votes.csv")
    assert (path.name, beside.name, people) == ("votes.csv", "votes.studies.json", 2)
    assert exchange.merge(folder / "b", path) == {named(study): (2, 65)}
    assert sheets(folder / "b", study) == votes.sheets(study.id)
    assert exchange.merge(folder / "b", path) == {named(study): (0, 0)}
    assert exchange.merge(folder / "a", path) == {named(study): (0, 0)}
    ours, theirs = (report.judgements(folder / name)[0] for name in "ab")
    assert ours.model_copy(update={"made": theirs.made}) == theirs


def test_what_was_added_since_is_added_and_machines_merge_in_any_order(lab, make):
    folder, votes, study, half = lab
    first = exchange.export(folder / "a", TRACK, folder / "first.csv")[0]
    exchange.merge(folder / "b", first)
    votes.vote(study, half, Vote(20, 1, "real", 800))
    votes.vote(study, half, Vote(21, 0, "fake", 800))
    other = Votes(database(folder / "c", TRACK), create=True)
    make.answer_all(other, study, "elsewhere", make.fooled_by({make.rows[0]: 0, make.rows[1]: 0, REAL: 0}))
    other.close()
    second = exchange.export(folder / "a", TRACK, folder / "second.csv")[0]
    third = exchange.export(folder / "c", TRACK, folder / "third.csv")[0]
    assert exchange.merge(folder / "b", second) == {named(study): (0, 2)}
    assert exchange.merge(folder / "b", third) == {named(study): (1, 44)}
    assert exchange.merge(folder / "b", first) == {named(study): (0, 0)}  # an older state takes nothing back
    for path in (third, first, second):
        exchange.merge(folder / "d", path)
    assert sheets(folder / "d", study) == sheets(folder / "b", study)


def test_a_line_a_vote_for_other_programs(lab, make):
    folder, _, _, half = lab
    path = exchange.export(folder / "a", TRACK, folder / "votes.csv")[0]
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert set(rows[0]) == set(exchange.COLUMNS)
    answered = [row for row in rows if row["answer"]]
    assert len(answered) == 65
    assert [row["trial"] for row in answered if row["undone"] == "1"] == ["20"]
    assert {row["left"].partition("/")[0] for row in rows} == {REAL, *make.rows[:2]}
    assert len([row for row in rows if row["person"] == half]) == 44  # trials without an answer too


def test_another_answer_to_the_same_trial_is_refused_as_a_whole(lab):
    folder, votes, study, _ = lab
    path = exchange.export(folder / "a", TRACK, folder / "votes.csv")[0]
    before = votes.sheets(study.id)
    lines = path.read_text().splitlines()
    at = next(at for at, line in enumerate(lines) if ",real,900" in line)
    lines[at] = lines[at].replace(",real,900", ",fake,900")
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(GenbenchError, match=f"other trials or answers; no vote of study {study.id} was added"):
        exchange.merge(folder / "a", path)
    assert votes.sheets(study.id) == before


def test_a_study_that_contradicts_leaves_the_others_of_the_file(lab, make):
    folder, votes, study, _ = lab
    other = make.study(models=1)
    make.answer_all(votes, other, "other", make.fooled_by({make.rows[0]: 0.3, REAL: 0.1}))
    path = exchange.export(folder / "a", TRACK, folder / "votes.csv")[0]
    here = Votes(database(folder / "b", TRACK), create=True)
    with here._writing() as db:  # somebody else has that number here
        db.execute("INSERT INTO studies VALUES (?, ?, ?)", (study.id, study.model_dump_json(), b"s"))
        person = votes.sheets(study.id)[0].person.id
        db.execute("INSERT INTO people VALUES (?, ?, 'Somebody', NULL, NULL, 0)", (person, study.id))
    here.close()
    with pytest.raises(GenbenchError, match=f"no vote of study {study.id} was added"):
        exchange.merge(folder / "b", path)
    assert sheets(folder / "b", other) == votes.sheets(other.id)
    assert not any(sheet.votes for sheet in sheets(folder / "b", study))


def test_two_studies_of_one_title_are_both_told(lab, make):
    folder, votes, study, _ = lab
    other = make.study(models=1)
    make.answer_all(votes, other, "other", make.fooled_by({make.rows[0]: 0.3, REAL: 0.1}))
    path = exchange.export(folder / "a", TRACK, folder / "votes.csv")[0]
    assert other.title == study.title
    assert exchange.merge(folder / "b", path) == {named(study): (2, 65), named(other): (1, 44)}


def spoil(rows, **changes):
    """The first answered line with other cells."""
    at = next(at for at, row in enumerate(rows) if row["answer"] and row["repeats"] == "")
    rows[at] = {**rows[at], **changes}
    return rows


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: spoil(rows, answer="maybe"), "maybe"),
        (lambda rows: spoil(rows, left="real/199999"), "shows what the study does not"),
        (lambda rows: spoil(rows, attempt="1"), "attempts"),
        (lambda rows: spoil(rows, undone="1"), "answers that count"),
        (lambda rows: spoil(rows, ms="-5"), "no number"),
        (lambda rows: spoil(rows, ms="1e3"), "no number"),
        (lambda rows: spoil(rows, study="00000000"), "not described"),
        (lambda rows: [{**row, "nickname": "=HYPERLINK(1)"} for row in rows], "nickname"),
        (lambda rows: [{**row, "person": "../../etc"} for row in rows], "no person"),
        (lambda rows: [row for row in rows if row["trial"] != "3"], "trials"),
        (lambda rows: [{**row, "repeats": ""} for row in rows], "number of repeats"),
        (lambda rows: [*rows, rows[0]], "attempts"),
    ],
)
def test_what_nobody_could_have_done_is_refused(lab, change, told):
    folder, _, study, _ = lab
    path = exchange.export(folder / "a", TRACK, folder / "votes.csv")[0]
    rows = change(list(csv.DictReader(io.StringIO(path.read_text()))))
    text = io.StringIO()
    table = csv.DictWriter(text, exchange.COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    path.write_text(text.getvalue())
    with pytest.raises(GenbenchError, match=told):
        exchange.merge(folder / "b", path)
    assert not (folder / "b" / "judge" / f"{TRACK}.sqlite").exists() or not sheets(folder / "b", study)


def test_files_that_are_none_are_told_in_one_line(lab):
    folder, *_ = lab
    path, beside, _ = exchange.export(folder / "a", TRACK, folder / "votes.csv")
    for broken, told in (("a,b\n1,2\n", "does not begin"), (path.read_text() + "x\n", "cells"), ("\0", "votes.csv")):
        path.write_text(broken)
        with pytest.raises(GenbenchError, match=told):
            exchange.merge(folder / "b", path)
    beside.write_text("{}")
    with pytest.raises(GenbenchError, match="no list"):
        exchange.merge(folder / "b", path)
    beside.unlink()
    with pytest.raises(GenbenchError, match="judge export"):
        exchange.merge(folder / "b", path)
