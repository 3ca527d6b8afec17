"""From votes to records: people of known ability are recovered, rules leave out whom they say, the record is what the tables show."""

from __future__ import annotations

import json
import random

import pytest

from genbench.errors import GenbenchError
from genbench.judge import report
from genbench.judge.console import report as shown
from genbench.judge.exclusion import RULES, consistency, excluded_by
from genbench.judge.study import REAL
from genbench.judge.trials import owner
from genbench.judge.votes import Votes, database
from genbench.judgements import counting, judgement_paths, read_judgement, write_judgement


@pytest.fixture
def votes(tmp_path):
    opened = Votes(database(tmp_path, "digits-20s"), create=True)
    yield opened
    opened.close()


def scores_of(judgement):
    return {model.label: {score.name: score for score in model.scores} for model in judgement.models}


def better_of(truth, rng, ties=0.2):
    """Whoever prefers by these log strengths; repeats are answered anew."""

    def decide(trial):
        if rng.random() < ties:
            return "tie"
        odds = 2.718281828 ** (truth[owner(trial.left)] - truth[owner(trial.right)])
        return "left" if rng.random() < odds / (1 + odds) else "right"

    return decide


def test_error_rates_of_known_people_are_recovered_within_intervals(votes, make):
    study = make.study(models=3, trials=60, pool=150)
    for at in range(12):
        person = 0.2 if at % 2 else -0.1  # people differ about 0.4, 0.2, 0.1 and 0.3
        rates = {make.rows[0]: 0.4 + person, make.rows[1]: 0.2 + person / 2, make.rows[2]: 0.1, REAL: 0.3}
        make.answer_all(votes, study, str(at), make.fooled_by(rates))
    found = report.judge(study, votes.sheets(study.id))
    scores = scores_of(found)
    for label, truth in (("dcgan", 0.45), ("vae", 0.225), ("noise", 0.1)):  # mean over people who were fooled by 50 and 30 %, …
        fakes = scores[label]["fakes_error"]
        assert fakes.value == pytest.approx(truth, abs=0.03)
        assert fakes.interval[0] < truth < fakes.interval[1]
        assert fakes.n_fake == 120
        assert scores[label]["hype"].value == pytest.approx((fakes.value + 0.3) / 2)
    (reals,) = found.overall
    assert (reals.name, reals.n_real) == ("reals_error", 360)
    assert reals.value == pytest.approx(0.3)
    assert scores["dcgan"]["d_prime"].value < scores["vae"]["d_prime"].value < scores["noise"]["d_prime"].value
    assert scores["noise"]["hype"].interval[1] < scores["dcgan"]["hype"].interval[0]
    assert (found.people, found.votes, found.preliminary) == (12, 720, False)
    assert (found.repeats, found.repeats_alike) == (72, 72)


def test_the_order_of_models_is_recovered_from_pairs(votes, make):
    study = make.study("which-is-better", 4, trials=60, pool=80)
    truth = dict(zip(make.rows, (0.9, 0.3, -0.3, -0.9), strict=True))
    for at in range(14):
        make.answer_all(votes, study, str(at), better_of(truth, random.Random(at)))
    found = report.judge(study, votes.sheets(study.id))
    scores = scores_of(found)
    order = sorted(scores, key=lambda label: -scores[label]["preferred"].value)
    assert order == list(make.labels)
    assert scores["dcgan"]["preferred"].interval[0] > scores["noise"]["preferred"].interval[1]
    assert sum(score["strength"].value for score in scores.values()) == pytest.approx(0)
    assert sum(one.a_won + one.b_won + one.ties for one in found.meetings) == found.votes == 14 * 60
    best_and_worst = next(one for one in found.meetings if (one.a, one.b) == (make.rows[0], make.rows[3]))
    assert best_and_worst.a_won > 3 * best_and_worst.b_won
    assert [model.votes for model in found.models] == [14 * 30] * 4


def test_undone_answers_and_repeats_move_no_rate(votes, make):
    from genbench.judge.votes import Vote

    study = make.study(models=1, trials=20, pool=20)
    votes.enter_study(study)
    person = votes.enter(study, "t", "Ada").id
    for trial in votes.trials(person):
        right = "real" if owner(trial.left) == REAL else "fake"
        wrong = "fake" if right == "real" else "real"
        if trial.number % 3 == 0 and trial.repeats is None:
            votes.vote(study, person, Vote(trial.number, 0, wrong, 900))
            votes.undo(person, trial.number, 0)
            votes.vote(study, person, Vote(trial.number, 1, right, 900))
        else:
            votes.vote(study, person, Vote(trial.number, 0, right if trial.repeats is None else wrong, 900))
    found = report.judge(study, votes.sheets(study.id))
    assert scores_of(found)["dcgan"]["hype"].value == 0
    assert found.votes == 20
    assert (found.repeats, found.repeats_alike) == (2, 0)


def test_each_rule_leaves_out_whom_it_says_and_nobody_else(votes, make):
    study = make.study(trials=60, pool=100)
    fair = {make.rows[0]: 0.5, make.rows[1]: 0.5, REAL: 0.5}
    right = lambda trial: "real" if owner(trial.left) == REAL else "fake"  # noqa: E731
    flipped = lambda trial: {"real": "fake", "fake": "real"}[right(trial)] if trial.repeats is not None else right(trial)  # noqa: E731
    who = {
        "few": make.answer_all(votes, study, "few", right, upto=20),
        "fast": make.answer_all(votes, study, "fast", right, ms=120),
        "one key": make.answer_all(votes, study, "key", lambda trial: "real"),
        "": make.answer_all(votes, study, "guesses", make.fooled_by(fair)),
    }
    expert = make.answer_all(votes, study, "expert", right)
    always_wrong = make.answer_all(votes, study, "wrong", lambda t: {"real": "fake", "fake": "real"}[right(t)])
    assert {name: excluded_by(votes.sheet(person)) for name, person in who.items()} == {name: name for name in who}
    assert excluded_by(votes.sheet(expert)) == excluded_by(votes.sheet(always_wrong)) == ""  # being wrong is a result, no reason
    long = make.study(trials=100, pool=100)
    contrary = make.answer_all(votes, long, "contrary", flipped)
    assert excluded_by(votes.sheet(contrary)) == "contrary"
    found = report.judge(study, votes.sheets(study.id))
    assert [rule.people for rule in found.excluded] == [1, 1, 1, 0]
    assert [rule.rule for rule in found.excluded] == [rule.text for rule in RULES]
    assert found.people == 3
    assert found.preliminary


def test_somebody_who_sees_no_difference_is_not_left_out(votes, make):
    study = make.study("which-is-better", 2, trials=40, pool=60)
    person = make.answer_all(votes, study, "t", lambda trial: "tie")
    assert excluded_by(votes.sheet(person)) == ""
    assert consistency([votes.sheet(person)]) == (4, 4)
    assert consistency([votes.sheet(person)], ties=False) == (0, 0)
    left = make.answer_all(votes, study, "left", lambda trial: "left")
    assert excluded_by(votes.sheet(left)) == "one key"
    scores = scores_of(report.judge(study, votes.sheets(study.id)))
    assert {label: score["preferred"].value for label, score in scores.items()} == {"dcgan": 0.5, "vae": 0.5}


def test_a_report_is_written_once_for_the_same_votes_and_read_back(tmp_path, votes, make):
    study = make.study(exposure=250)
    make.answer_all(votes, study, "a", make.fooled_by({make.rows[0]: 0.4, make.rows[1]: 0.2, REAL: 0.1}))
    (found,) = report.judgements(tmp_path)
    (path,) = report.write(tmp_path, [found])
    assert read_judgement(path) == found
    assert report.write(tmp_path, report.judgements(tmp_path)) == []
    make.answer_all(votes, study, "b", make.fooled_by({make.rows[0]: 0.4, make.rows[1]: 0.2, REAL: 0.1}))
    (more,) = report.write(tmp_path, report.judgements(tmp_path, "digits-20s"))
    assert set(judgement_paths(tmp_path)) == {path, more}
    assert counting([read_judgement(path), read_judgement(more)]) == [read_judgement(more)]
    assert (found.kind[-1], found.people) == (250, 1)


def test_a_changed_or_damaged_record_is_refused(tmp_path, votes, make):
    study = make.study()
    make.answer_all(votes, study, "a", make.fooled_by({make.rows[0]: 0.4, make.rows[1]: 0.2, REAL: 0.1}))
    (found,) = report.judgements(tmp_path)
    path = write_judgement(tmp_path, found)
    text = path.read_text()
    for spoilt in (text.replace('"people": 1', '"people": 99'), text[:100], ""):
        path.write_text(spoilt)
        with pytest.raises(GenbenchError, match="was changed"):
            read_judgement(path)


def test_of_several_studies_of_a_kind_the_one_with_most_people_counts(votes, make):
    small, large = make.study(trials=40), make.study(trials=42)
    for study, people in ((small, 1), (large, 2)):
        for at in range(people):
            make.answer_all(votes, study, f"{study.id}{at}", make.fooled_by({make.rows[0]: 0.4, make.rows[1]: 0.2, REAL: 0.1}))
    dated = ((small, "2026-02-01T00:00:00+00:00"), (large, "2026-01-01T00:00:00+00:00"))
    one, other = (report.judge(study, votes.sheets(study.id), made=made) for study, made in dated)
    assert counting([one, other]) == counting([other, one]) == [other]


def test_the_terminal_says_what_a_reader_needs(votes, make):
    from rich.console import Console

    study = make.study()
    for at in range(3):
        make.answer_all(votes, study, str(at), make.fooled_by({make.rows[0]: 0.4, make.rows[1]: 0.2, REAL: 0.1}))
    pairs = make.study("which-is-better", 3, trials=60, pool=80)
    make.answer_all(votes, pairs, "p", better_of(dict(zip(make.rows, (1, 0, -1, 0), strict=True)), random.Random(0)))
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(shown([report.judge(one, votes.sheets(one.id)) for one in (study, pairs)]))
    text = console.export_text()
    console.file.close()
    words = ("Preliminary: fewer than 10 people", "HYPE∞", "40.0 % [", "Real images taken for fakes: 10.0 %", "Left out", "strength", "+")
    for word in words:
        assert word in text
    assert text.index("dcgan") < text.index("vae")
    assert max(map(len, text.splitlines())) <= 100


def test_no_votes_is_said_so(tmp_path, votes, make):
    with pytest.raises(GenbenchError, match="judge serve"):
        report.judgements(tmp_path / "nowhere")
    votes.enter_study(make.study())
    assert report.judgements(tmp_path) == []
    with pytest.raises(GenbenchError, match="mnist-60s"):
        report.judgements(tmp_path, "mnist-60s")
    assert json.loads(make.study().model_dump_json())["track"] == "digits-20s"
