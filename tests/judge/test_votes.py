"""Votes survive whatever happens to the server, and each counts once."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time

import httpx
import psutil
import pytest

from genbench.errors import GenbenchError
from genbench.judge.votes import LONGEST_MS, ConflictError, Vote, Votes, database, nickname_of


@pytest.fixture
def votes(tmp_path):
    opened = Votes(database(tmp_path, "digits-20s"), create=True)
    yield opened
    opened.close()


def test_a_commit_waits_for_the_disk(votes):
    assert votes._all("PRAGMA synchronous") == [(2,)]  # FULL
    assert votes._all("PRAGMA journal_mode") == [("wal",)]
    assert votes._all("PRAGMA foreign_keys") == [(1,)]


def test_the_same_token_is_the_same_person_with_the_same_trials(votes, make):
    study = make.study()
    votes.enter_study(study)
    one, again, other = votes.enter(study, "t1", "Ada"), votes.enter(study, "t1", "Eve"), votes.enter(study, "t2", "Ada")
    assert one == again
    assert one.id != other.id
    assert votes.trials(one.id) != votes.trials(other.id)
    assert votes.person(study, "t3") is None
    assert "t1" not in str(votes._all("SELECT * FROM people"))


def test_a_study_keeps_its_secret_and_two_studies_live_in_one_file(votes, make):
    one, other = make.study(), make.study("which-is-better", 3)
    assert votes.enter_study(one) == votes.enter_study(one) != votes.enter_study(other)
    person = votes.enter(one, "t", "Ada")
    votes.enter(other, "t", "Ada")
    votes.vote(one, person.id, Vote(0, 0, "real", 700))
    assert [len(votes.sheets(study.id)) for study in (one, other)] == [1, 1]
    assert [sum(len(sheet.votes) for sheet in votes.sheets(study.id)) for study in (one, other)] == [1, 0]
    assert {study.id for study in votes.studies()} == {one.id, other.id}


def test_times_are_stored_within_bounds_that_an_import_takes(votes, make):
    study = make.study(exposure=250)
    votes.enter_study(study)
    person = votes.enter(study, "t", "Ada").id
    votes.vote(study, person, Vote(0, 0, "real", 2**31 - 1, 2**31 - 1))
    assert votes.sheet(person).votes == (Vote(0, 0, "real", LONGEST_MS, LONGEST_MS),)


def test_answers_come_in_turn_and_the_first_stays(votes, make):
    study = make.study()
    votes.enter_study(study)
    person = votes.enter(study, "t", "Ada").id
    assert votes.vote(study, person, Vote(0, 0, "real", 700))
    assert not votes.vote(study, person, Vote(0, 0, "real", 1))
    for wrong in (Vote(0, 0, "fake", 1), Vote(2, 0, "real", 1), Vote(0, 1, "real", 1), Vote(1, 0, "left", 1)):
        with pytest.raises(ConflictError):
            votes.vote(study, person, wrong)
    assert votes.sheet(person).votes == (Vote(0, 0, "real", 700),)


def test_of_twenty_threads_with_one_trial_one_is_counted(votes, make):
    study = make.study()
    votes.enter_study(study)
    person = votes.enter(study, "t", "Ada").id
    new, start = [], threading.Barrier(20)

    def answer(which):
        start.wait()
        with contextlib.suppress(ConflictError):
            new.append(votes.vote(study, person, Vote(0, 0, which, 700)))

    threads = [threading.Thread(target=answer, args=("real" if at % 2 else "fake",)) for at in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert new.count(True) == 1
    assert len(votes.sheet(person).votes) == 1


def test_what_is_no_file_of_votes_is_told_in_one_line(tmp_path):
    with pytest.raises(GenbenchError, match="genbench judge serve"):
        Votes(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be looked at as one " * 20)
    with pytest.raises(GenbenchError, match="can't be opened"):
        Votes(tmp_path / "text.sqlite")
    newer = sqlite3.connect(tmp_path / "newer.sqlite")
    newer.execute("PRAGMA user_version=9")
    newer.close()
    with pytest.raises(GenbenchError, match="version 9"):
        Votes(tmp_path / "newer.sqlite")
    assert not [file.path for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))]


@pytest.mark.parametrize("text", ["<b>", "=A1()", "-1", "@x", "a\nb" + "c" * 40, "x\u202ey", "", "_a", "a,b", 'a"b'])
def test_no_nickname_is_markup_or_a_formula(text):
    assert nickname_of(text) == ""


def test_nicknames_in_any_script():
    assert nickname_of("  Zoë   2 ") == "Zoë 2"
    assert nickname_of("李 雷") == "李 雷"
    assert nickname_of("O'Neil-X.") == "O'Neil-X."


class Judge(threading.Thread):
    """A person who answers everything, repeats what was not acknowledged, sometimes undoes, and remembers what was acknowledged."""

    def __init__(self, make, url, seed):
        super().__init__()
        self.make, self.url, self.rng = make, url, random.Random(seed)
        self.acknowledged: dict[int, str] = {}
        self.told = 0
        self.error: Exception | None = None

    def insist(self, ask):
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            try:
                answer = ask()
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            assert answer.status_code < 500, answer.text
            return answer
        raise AssertionError("the server did not come back")

    def run(self):
        try:
            with httpx.Client(timeout=60) as client:
                browser = self.make.Browser(client, self.url)
                for _ in range(400):
                    try:
                        browser.join()
                        break
                    except (httpx.TransportError, AssertionError, TypeError):  # an earlier attempt was taken: / leads on, without a form
                        with contextlib.suppress(httpx.TransportError):
                            if client.get(self.url + "/").status_code == 303:
                                break
                        time.sleep(0.05)
                state = self.insist(lambda: client.get(self.url + "/state")).json()
                while state["next"]:
                    trial, answer = state["next"][0]["trial"], self.rng.choice(["real", "fake"])
                    before = state
                    state = self.insist(lambda: browser.vote(before, answer)).json()  # noqa: B023
                    assert state["done"] == trial + 1, state
                    self.acknowledged[trial] = answer
                    self.told += 1
                    if self.rng.random() < 0.1:
                        self.insist(lambda: browser.vote(before, answer))  # noqa: B023 - a replay
                    if self.rng.random() < 0.05:
                        undo = state["undo"]
                        state = self.insist(lambda: browser.post("/undo", undo)).json()  # noqa: B023
                        del self.acknowledged[trial]
        except Exception as error:
            self.error = error


@pytest.mark.timeout(900)
def test_twenty_people_and_a_server_killed_five_times_lose_no_vote_and_double_none(serving, make):
    study = make.study(trials=100, pool=200)
    server = serving(study)
    people = [Judge(make, server.url, seed) for seed in range(20)]
    for person in people:
        person.start()
    for killed in range(1, 6):  # at about 330, 660, … of 2 200
        make.wait_for(lambda: sum(person.told for person in people) > 330 * killed or any(p.error for p in people), 240)  # noqa: B023
        server.kill()
        server.start()
    for person in people:
        person.join(240)
        assert person.error is None
    server.kill()
    votes = Votes(database(server.results, study.track))
    try:
        sheets = votes.sheets(study.id)
        found = sorted(sorted((trial, vote.answer) for trial, vote in sheet.counted.items()) for sheet in sheets)
        (intact,) = votes._all("PRAGMA integrity_check")
    finally:
        votes.close()
    assert intact == ("ok",)
    assert found == sorted(sorted(person.acknowledged.items()) for person in people)
    assert sum(len(one) for one in found) == 20 * 110  # 2 000 first showings, 200 repeats
