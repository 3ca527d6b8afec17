"""Votes as CSV, a line a vote, with the studies they belong to beside it: for other programs, and for merging those of several machines."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from genbench.errors import GenbenchError
from genbench.judge import study as studies
from genbench.judge.study import ANSWERS, Study
from genbench.judge.trials import Trial, owner
from genbench.judge.votes import LONGEST_MS, NICKNAME, Person, Sheet, Vote, Votes, database
from genbench.records import strict_json, write_atomic

COLUMNS = (
    "study", "person", "nickname", "finished", "trial", "repeats", "left", "right", "attempt", "answer", "ms", "shown_ms", "undone",
)  # fmt: skip
"""`left` and `right` are ``real/INDEX`` of the test split or ``ROW/SEED/INDEX`` of a run's samples; `attempt`: how often the trial had been
undone before; a trial without an answer has none in `attempt` to `undone`."""
_MOST_BYTES = 256 << 20
_PERSON = re.compile(r"[0-9a-f]{16}")


def to_csv(found: Sequence[tuple[Study, Sequence[Sheet]]]) -> str:
    """Studies with their sheets -> CSV: every trial of everybody, a line an answer, in a stable order."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for study, sheets in found:
        for sheet in sheets:
            head = [study.id, sheet.person.id, sheet.person.nickname, int(sheet.person.finished)]
            for trial in sheet.trials:
                asked = [trial.number, "" if trial.repeats is None else trial.repeats, trial.left, trial.right]
                answers = [vote for vote in sheet.votes if vote.trial == trial.number]
                for vote in answers:
                    shown = "" if vote.shown_ms is None else vote.shown_ms
                    undone = int((vote.trial, vote.attempt) in sheet.undone)
                    table.writerow([*head, *asked, vote.attempt, vote.answer, vote.ms, shown, undone])
                if not answers:
                    table.writerow([*head, *asked, "", "", "", "", ""])
    return text.getvalue()


def export(results: Path, track: str, out: Path) -> tuple[Path, Path, int]:
    """Write all votes on a track to `out`, and the studies to ``.studies.json`` beside it -> both paths and the number of people."""
    votes = Votes(database(results, track))
    try:
        found = [(study, votes.sheets(study.id)) for study in votes.studies()]
    finally:
        votes.close()
    beside = _beside(out)
    try:
        write_atomic(out, to_csv(found).encode())
        write_atomic(beside, json.dumps([json.loads(study.model_dump_json()) for study, _ in found], indent=1).encode() + b"\n")
    except OSError as error:
        raise GenbenchError(f"votes can't be written to {out}: {error.strerror or error}") from None
    return out, beside, sum(len(sheets) for _, sheets in found)


def merge(results: Path, path: Path) -> dict[str, tuple[int, int]]:
    """Add the votes that `export` wrote -> title and id of each study: new people, new votes. What is here already is counted once.

    Raises GenbenchError where the files are not what `export` writes, before anything is added, or where a study's votes contradict
    what is here: none of its votes are added then, those of the other studies are.
    """
    known = _read_studies(_beside(path))
    sheets: dict[str, list[Sheet]] = {}
    for study, sheet in _read_sheets(path, known):
        sheets.setdefault(study, []).append(sheet)
    found, problems = {}, []
    for identity, one in known.items():
        votes = Votes(database(results, one.track), create=True)
        try:
            found[f"{one.title}, study {identity}"] = votes.merge(one, sheets.get(identity, []))
        except GenbenchError as error:
            problems.append(str(error))
        finally:
            votes.close()
    if problems:
        raise GenbenchError("; ".join(problems))
    return found


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.studies.json")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise GenbenchError(f"{path} is larger than votes are")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise GenbenchError(f"{path} can't be read: {error.strerror or error}; genbench judge export writes it") from None
    except UnicodeDecodeError as error:
        raise GenbenchError(f"{path} is no text: {error}") from None


def _read_studies(path: Path) -> dict[str, Study]:
    try:
        listed = strict_json(_text(path))
    except (ValueError, RecursionError) as error:
        raise GenbenchError(f"{path}: {error}") from None
    if not isinstance(listed, list):
        raise GenbenchError(f"{path} is no list of studies")
    found = [studies.check(studies.parse(json.dumps(one))) for one in listed]
    return {study.id: study for study in found}


def _read_sheets(path: Path, known: Mapping[str, Study]) -> Iterator[tuple[str, Sheet]]:
    """The people of a file, each with all of theirs. Raises GenbenchError naming the line."""
    table = csv.reader(io.StringIO(_text(path), newline=""))
    lines: dict[tuple[str, str], list[tuple[int, dict[str, str]]]] = {}
    try:
        if tuple(next(table, ())) != COLUMNS:
            raise GenbenchError(f"{path} does not begin with the line {','.join(COLUMNS)}")
        for number, cells in enumerate(table, 2):
            if len(cells) != len(COLUMNS):
                raise GenbenchError(f"{path} line {number} has {len(cells)} cells, not {len(COLUMNS)}")
            line = dict(zip(COLUMNS, cells, strict=True))
            lines.setdefault((line["study"], line["person"]), []).append((number, line))
    except csv.Error as error:
        raise GenbenchError(f"{path}: {error}") from None
    for (study, person), own in lines.items():
        number = own[0][0]
        if study not in known:
            raise GenbenchError(f"{path} line {number}: study {study!r} is not described in {_beside(path).name}")
        try:
            yield study, _sheet(known[study], person, [line for _, line in own])
        except ValueError as error:
            raise GenbenchError(f"{path}, person {person!r} (line {number} on): {error}") from None


def _sheet(study: Study, person: str, lines: Sequence[Mapping[str, str]]) -> Sheet:
    """The lines of one person -> their sheet. Raises ValueError where that is not what people can do in this study."""
    names = {(line["nickname"], line["finished"]) for line in lines}
    if not _PERSON.fullmatch(person) or len(names) != 1:
        raise ValueError("is no person, or several")
    ((nickname, finished),) = names
    if not NICKNAME.fullmatch(nickname) or finished not in ("0", "1"):
        raise ValueError("has no nickname that is allowed")
    trials: dict[int, Trial] = {}
    votes, undone = [], set()
    for line in lines:
        trial = Trial(_whole(line["trial"]), line["left"], line["right"], _whole(line["repeats"]) if line["repeats"] else None)
        if trials.setdefault(trial.number, trial) != trial:
            raise ValueError(f"trial {trial.number} is told in two ways")
        if line["attempt"] == "":
            continue
        if line["answer"] not in ANSWERS[study.mode] or line["undone"] not in ("0", "1"):
            raise ValueError(f"trial {trial.number} has the answer {line['answer'][:20]!r}; {', '.join(ANSWERS[study.mode])} are known")
        shown = _whole(line["shown_ms"]) if line["shown_ms"] else None
        votes.append(Vote(trial.number, _whole(line["attempt"]), line["answer"], _whole(line["ms"]), shown))
        if line["undone"] == "1":
            undone.add((trial.number, votes[-1].attempt))
    sheet = Sheet(
        Person(person, nickname, finished == "1"), tuple(trials[number] for number in sorted(trials)),
        tuple(sorted(votes, key=lambda vote: (vote.trial, vote.attempt))), frozenset(undone),
    )  # fmt: skip
    _check(study, sheet)
    return sheet


def _check(study: Study, sheet: Sheet) -> None:
    """What the page would never have let happen raises ValueError."""
    if [trial.number for trial in sheet.trials] != list(range(study.trials + study.repeats)):
        raise ValueError(f"has {len(sheet.trials)} trials, the study {study.trials + study.repeats}")
    if sum(trial.repeats is not None for trial in sheet.trials) != study.repeats:
        raise ValueError("has another number of repeats than the study")
    pairs = study.mode == "which-is-better"
    for trial in sheet.trials:
        if any(picture not in study.every_picture for picture in trial.pictures) or bool(trial.right) != pairs:
            raise ValueError(f"trial {trial.number} shows what the study does not")
        if pairs and owner(trial.left) == owner(trial.right):
            raise ValueError(f"trial {trial.number} compares a model with itself")
        if trial.repeats is not None:
            before = sheet.trials[trial.repeats] if trial.repeats < trial.number else None
            if before is None or before.repeats is not None or before.pictures[::-1] != trial.pictures:
                raise ValueError(f"trial {trial.number} does not repeat trial {trial.repeats}")
    attempts: dict[int, list[int]] = {}
    for vote in sheet.votes:
        attempts.setdefault(vote.trial, []).append(vote.attempt)
    if sorted(attempts) != list(range(len(attempts))):
        raise ValueError("answered trials out of turn")
    for number, made in attempts.items():
        if made != list(range(len(made))):
            raise ValueError(f"trial {number} has attempts {made}")
        live = [attempt for attempt in made if (number, attempt) not in sheet.undone]
        if live not in ([made[-1]], []) or (not live and number != len(attempts) - 1):
            raise ValueError(f"trial {number} has {len(live)} answers that count")


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > max(LONGEST_MS, 10**7):
        raise ValueError(f"{text[:20]!r} is no number")
    return int(text)
