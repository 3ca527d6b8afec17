"""The votes, in one SQLite file a track: what is told to be counted is on disk, and one answer a trial counts.

Votes and undos are only ever added. Of a person is stored: a nickname, a random number that the order of their trials comes from, and
a digest of the token in their browser; no address, no time of day.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import sqlite3
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench.errors import GenbenchError
from genbench.judge import study as studies
from genbench.judge.study import ANSWERS, Study
from genbench.judge.trials import Trial, plan
from genbench.judgements import FOLDER
from genbench.records import safe_name

_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (id TEXT PRIMARY KEY, about TEXT NOT NULL, secret BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS people (
  id TEXT PRIMARY KEY, study TEXT NOT NULL REFERENCES studies(id), nickname TEXT NOT NULL, seed INTEGER, token TEXT,
  finished INTEGER NOT NULL DEFAULT 0, UNIQUE (study, token)) STRICT;
CREATE TABLE IF NOT EXISTS trials (
  person TEXT NOT NULL REFERENCES people(id), number INTEGER NOT NULL, left_picture TEXT NOT NULL,
  right_picture TEXT NOT NULL, repeats INTEGER,
  PRIMARY KEY (person, number)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS votes (
  person TEXT NOT NULL, trial INTEGER NOT NULL, attempt INTEGER NOT NULL, answer TEXT NOT NULL, ms INTEGER NOT NULL, shown_ms INTEGER,
  PRIMARY KEY (person, trial, attempt), FOREIGN KEY (person, trial) REFERENCES trials(person, number)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS undos (
  person TEXT NOT NULL, trial INTEGER NOT NULL, attempt INTEGER NOT NULL, PRIMARY KEY (person, trial, attempt),
  FOREIGN KEY (person, trial, attempt) REFERENCES votes(person, trial, attempt)) STRICT, WITHOUT ROWID;
"""
_VERSION = 1
LONGEST_MS = 3_600_000
"""An answer that took longer is stored as this."""
NICKNAME = re.compile(r"[^\W_][\w .'-]{0,29}")


class ConflictError(Exception):
    """What is asked does not fit what is stored: another answer to an answered trial, a trial out of turn."""


@dataclass(frozen=True)
class Person:
    """Somebody who judges."""

    id: str
    nickname: str
    finished: bool


@dataclass(frozen=True)
class Vote:
    """An answer to a trial. `attempt`: how often the trial had been undone before."""

    trial: int
    attempt: int
    answer: str
    ms: int
    shown_ms: int | None = None
    """How long the picture could be seen, where that was limited, as the browser measured it."""


@dataclass(frozen=True)
class Place:
    """Where a person stands."""

    done: int
    """Trials with an answer that counts; they are asked in order, so this is the number of the next."""
    total: int
    attempt: int
    """How often the next trial was undone."""
    undo: Vote | None
    """The answer that may be undone."""


@dataclass(frozen=True)
class Sheet:
    """All of a person: trials, and the answer to each that counts."""

    person: Person
    trials: tuple[Trial, ...]
    votes: tuple[Vote, ...]
    """Every one, undone ones too, by trial and attempt."""
    undone: frozenset[tuple[int, int]]

    @property
    def counted(self) -> dict[int, Vote]:
        """Trial -> the answer that counts: the one that was not undone."""
        return {vote.trial: vote for vote in self.votes if (vote.trial, vote.attempt) not in self.undone}


def database(results: Path, track: str) -> Path:
    """Where a results folder holds the votes on a track."""
    return results / FOLDER / f"{safe_name(track)}.sqlite"


def nickname_of(text: str) -> str:
    """What somebody typed -> a nickname: at most 30 letters, digits, blanks, ``.``, ``'``, ``-``, the first no sign; else ``""``."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    return name if NICKNAME.fullmatch(name) else ""


class Votes:
    """The file of votes, open. Safe to use from several threads; several processes may have it open."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open it, or make it where `create`. Raises GenbenchError where there is none or it is not what it should be."""
        if not create and not path.exists():
            raise GenbenchError(f"no votes at {path}; genbench judge serve --track TRACK collects some")
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
            with contextlib.ExitStack() as failed:
                failed.callback(self._db.close)
                self._prepare()
                failed.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise GenbenchError(f"votes {path} can't be opened: {error}") from None

    def _prepare(self) -> None:
        """Commits that last, and the tables. Raises GenbenchError where they are of another version."""
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")  # a commit returns after the log is on disk
        self._db.execute("PRAGMA foreign_keys=ON")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise GenbenchError(f"votes {self.path} are of version {version}, this genbench reads {_VERSION}: use a newer one")
        with self._writing() as db:
            for statement in filter(str.strip, _SCHEMA.split(";\n")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={_VERSION}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, all or nothing; on disk when the block is left without an exception."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _all(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def studies(self) -> list[Study]:
        """Every study with votes or without, by id."""
        return [studies.parse(about) for (about,) in self._all("SELECT about FROM studies ORDER BY id")]

    def enter_study(self, study: Study) -> bytes:
        """Put a study in, where it is not -> its secret of 32 bytes, which tokens and the names of pictures are made with."""
        with self._writing() as db:
            about = study.model_dump_json()
            db.execute("INSERT OR IGNORE INTO studies VALUES (?, ?, ?)", (study.id, about, secrets.token_bytes(32)))
            (secret,) = db.execute("SELECT secret FROM studies WHERE id = ?", (study.id,)).fetchone()
        return bytes(secret)

    def enter(self, study: Study, token: str, nickname: str) -> Person:
        """A person begins: their trials are drawn and stored. Whoever holds the token already is the same person."""
        known = self.person(study, token)
        if known is not None:
            return known
        person, seed = secrets.token_hex(8), secrets.randbits(62)
        with self._writing() as db:
            held = db.execute("SELECT id FROM people WHERE study = ? AND token = ?", (study.id, _digest(token))).fetchone()
            if held is None:
                db.execute("INSERT INTO people VALUES (?, ?, ?, ?, ?, 0)", (person, study.id, nickname, seed, _digest(token)))
                rows = [(person, one.number, one.left, one.right, one.repeats) for one in plan(study, seed)]
                db.executemany("INSERT INTO trials VALUES (?, ?, ?, ?, ?)", rows)
        found = self.person(study, token)
        assert found is not None, "just entered"
        return found

    def person(self, study: Study, token: str) -> Person | None:
        """Who holds this token in the study; None: nobody."""
        rows = self._all("SELECT id, nickname, finished FROM people WHERE study = ? AND token = ?", study.id, _digest(token))
        return Person(rows[0][0], rows[0][1], bool(rows[0][2])) if rows else None

    def trials(self, person: str) -> tuple[Trial, ...]:
        """A person's trials in order."""
        rows = self._all("SELECT number, left_picture, right_picture, repeats FROM trials WHERE person = ? ORDER BY number", person)
        return tuple(Trial(*row) for row in rows)

    def place(self, person: str) -> Place:
        """Where a person stands."""
        with self._lock:
            return _place(self._db, person)

    def vote(self, study: Study, person: str, vote: Vote) -> bool:
        """Store an answer -> whether it is new; on disk when this returns.

        The very same answer again changes nothing. Raises ConflictError where the trial is not the next, or was answered otherwise.
        """
        if vote.answer not in ANSWERS[study.mode]:
            raise ConflictError(f"answers are {', '.join(ANSWERS[study.mode])}")
        with self._writing() as db:
            held = db.execute(
                "SELECT answer FROM votes WHERE person = ? AND trial = ? AND attempt = ?", (person, vote.trial, vote.attempt)
            ).fetchone()
            if held is not None:
                if held[0] != vote.answer:
                    raise ConflictError("this trial was answered already; the first answer counts")
                return False
            place = _place(db, person)
            if (vote.trial, vote.attempt) != (place.done, place.attempt) or place.done >= place.total:
                raise ConflictError("this trial is not the next")
            ms, shown_ms = (value if value is None else min(max(value, 0), LONGEST_MS) for value in (vote.ms, vote.shown_ms))
            db.execute("INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?)", (person, vote.trial, vote.attempt, vote.answer, ms, shown_ms))
        return True

    def undo(self, person: str, trial: int, attempt: int) -> bool:
        """Take the last answer back -> whether that is new. Raises ConflictError where it is not the last, or was followed by an undo."""
        with self._writing() as db:
            if db.execute("SELECT 1 FROM undos WHERE person = ? AND trial = ? AND attempt = ?", (person, trial, attempt)).fetchone():
                return False
            last = _place(db, person).undo
            if last is None or (last.trial, last.attempt) != (trial, attempt):
                raise ConflictError("only the last answer can be undone, and once at a time")
            db.execute("INSERT INTO undos VALUES (?, ?, ?)", (person, trial, attempt))
        return True

    def finish(self, person: str) -> None:
        """Close a person's sheet: nothing can be undone from now on. Raises ConflictError where trials are left."""
        with self._writing() as db:
            place = _place(db, person)
            if place.done < place.total:
                raise ConflictError(f"{place.total - place.done} trials are left")
            db.execute("UPDATE people SET finished = 1 WHERE id = ?", (person,))

    def sheet(self, person: str) -> Sheet:
        """All of a person."""
        ((nickname, finished),) = self._all("SELECT nickname, finished FROM people WHERE id = ?", person)
        votes = self._all("SELECT trial, attempt, answer, ms, shown_ms FROM votes WHERE person = ? ORDER BY trial, attempt", person)
        undone = self._all("SELECT trial, attempt FROM undos WHERE person = ?", person)
        known = Person(person, nickname, bool(finished))
        return Sheet(known, self.trials(person), tuple(Vote(*row) for row in votes), frozenset((trial, at) for trial, at in undone))

    def sheets(self, study: str) -> list[Sheet]:
        """Everybody of a study, by id."""
        return [self.sheet(person) for (person,) in self._all("SELECT id FROM people WHERE study = ? ORDER BY id", study)]

    def merge(self, study: Study, sheets: Sequence[Sheet]) -> tuple[int, int]:
        """Add what another machine collected -> number of new people and of new votes; what is here already is counted once.

        Raises GenbenchError, with nothing added, where it contradicts what is here.
        """
        self.enter_study(study)
        try:
            with self._writing() as db:
                people = [_merge_sheet(db, study, sheet) for sheet in sheets]
        except sqlite3.IntegrityError as error:
            raise GenbenchError(f"votes of study {study.id} do not fit together: {error}; none of its votes was added") from None
        return sum(new for new, _ in people), sum(votes for _, votes in people)


def _merge_sheet(db: sqlite3.Connection, study: Study, sheet: Sheet) -> tuple[bool, int]:
    """One person's trials, votes and undos -> whether the person is new, and how many votes are."""
    person = sheet.person
    clash = GenbenchError(
        f"person {person.id} ({person.nickname}) is here with other trials or answers; no vote of study {study.id} was added"
    )
    held = db.execute("SELECT study, nickname FROM people WHERE id = ?", (person.id,)).fetchone()
    if held is None:
        db.execute("INSERT INTO people VALUES (?, ?, ?, NULL, NULL, ?)", (person.id, study.id, person.nickname, person.finished))
        rows = [(person.id, one.number, one.left, one.right, one.repeats) for one in sheet.trials]
        db.executemany("INSERT INTO trials VALUES (?, ?, ?, ?, ?)", rows)
    elif held != (study.id, person.nickname):
        raise clash
    else:
        asked = "SELECT number, left_picture, right_picture, repeats FROM trials WHERE person = ? ORDER BY number"
        there = db.execute(asked, (person.id,)).fetchall()
        if tuple(Trial(*row) for row in there) != sheet.trials:
            raise clash
    new = 0
    for vote in sheet.votes:
        known = db.execute(
            "SELECT answer FROM votes WHERE person = ? AND trial = ? AND attempt = ?", (person.id, vote.trial, vote.attempt)
        ).fetchone()
        if known is not None and known[0] != vote.answer:
            raise clash
        if known is None:
            db.execute(
                "INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?)", (person.id, vote.trial, vote.attempt, vote.answer, vote.ms, vote.shown_ms)
            )
            new += 1
    for trial, attempt in sorted(sheet.undone):
        db.execute("INSERT OR IGNORE INTO undos VALUES (?, ?, ?)", (person.id, trial, attempt))
    if sheet.person.finished:
        db.execute("UPDATE people SET finished = 1 WHERE id = ?", (person.id,))
    return held is None, new


def _place(db: sqlite3.Connection, person: str) -> Place:
    (total,) = db.execute("SELECT COUNT(*) FROM trials WHERE person = ?", (person,)).fetchone()
    (finished,) = db.execute("SELECT finished FROM people WHERE id = ?", (person,)).fetchone()
    live = (
        "FROM votes v WHERE v.person = ? AND NOT EXISTS"
        " (SELECT 1 FROM undos u WHERE u.person = v.person AND u.trial = v.trial AND u.attempt = v.attempt)"
    )
    (done,) = db.execute(f"SELECT COUNT(*) {live}", (person,)).fetchone()
    (attempt,) = db.execute("SELECT COUNT(*) FROM undos WHERE person = ? AND trial = ?", (person, done)).fetchone()
    last = db.execute(
        f"SELECT v.trial, v.attempt, v.answer, v.ms, v.shown_ms {live} AND v.trial = ?", (person, done - 1)
    ).fetchone()
    undo = Vote(*last) if last is not None and not attempt and not finished else None
    return Place(done, total, attempt, undo)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
