"""Votes -> the record of a judgement: who counts, what they say of every model, how sure that is."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from genbench import __version__
from genbench.errors import GenbenchError, unknown
from genbench.judge import exchange, preferences, realism, require
from genbench.judge.exclusion import RULES, consistency, excluded_by
from genbench.judge.realism import Answers, Estimate
from genbench.judge.study import REAL, Study
from genbench.judge.trials import Trial, owner
from genbench.judge.votes import Sheet, Vote, Votes
from genbench.judgements import FOLDER, Excluded, JudgedModel, Judgement, Meeting, judgement_folder, read_judgement, write_judgement
from genbench.records import Score


def judgements(results: Path, track: str = "") -> list[Judgement]:
    """A results folder -> a judgement of every study with a person that counts (on one track where named). Raises GenbenchError."""
    files = sorted((results / FOLDER).glob("*.sqlite"))
    if not files:
        raise GenbenchError(f"no votes in {results / FOLDER}; genbench judge serve --track TRACK collects some")
    found, tracks = [], set()
    for path in files:
        votes = Votes(path)
        try:
            for study in votes.studies():
                tracks.add(study.track)
                if track in ("", study.track):
                    found.append((study, votes.sheets(study.id)))
        finally:
            votes.close()
    if track and track not in tracks:
        raise GenbenchError(f"{unknown('track', track, tracks)}".replace("installed:", "votes are on:"))
    return [judge(study, sheets) for study, sheets in found if any(sheet.votes for sheet in sheets)]


def judge(study: Study, sheets: Sequence[Sheet], made: str = "") -> Judgement:
    """A study and everybody's sheets -> its judgement."""
    present = [sheet for sheet in sheets if sheet.votes]
    left_out = Counter(excluded_by(sheet) for sheet in present)
    counted = [sheet for sheet in present if not excluded_by(sheet)]
    firsts = [
        (person, trial, sheet.counted[trial.number])
        for person, sheet in enumerate(counted)
        for trial in sheet.trials
        if trial.repeats is None and trial.number in sheet.counted
    ]
    models, overall, meetings = (_realism if study.mode == "real-or-fake" else _preferences)(study, firsts, len(counted))
    repeats, same = consistency(counted)
    return Judgement(
        made=made or datetime.now(UTC).isoformat(timespec="seconds"), genbench=__version__, study=study.id, mode=study.mode,
        exposure_ms=study.exposure_ms, track=study.track, track_hash=study.track_hash, device_class=study.device_class,
        dataset_digest=study.dataset_digest, trials=study.trials, people=len(counted), votes=len(firsts),
        excluded=tuple(Excluded(rule=rule.text, people=left_out[rule.name]) for rule in RULES), repeats=repeats, repeats_alike=same,
        models=models, overall=overall, meetings=meetings,
        votes_sha256=hashlib.sha256(exchange.to_csv([(study, present)]).encode()).hexdigest(),
    )  # fmt: skip


def write(results: Path, found: Sequence[Judgement]) -> list[Path]:
    """Write what is new -> its files; a judgement of the very same votes is written once."""
    written = []
    for one in found:
        folder = judgement_folder(results, one.track)
        known = set()
        for path in folder.glob("judgement-*.json"):
            try:
                held = read_judgement(path)
            except GenbenchError:
                continue
            known.add((held.study, held.votes_sha256, held.genbench))
        if (one.study, one.votes_sha256, one.genbench) not in known:
            written.append(write_judgement(results, one))
    return written


_Found = tuple[tuple[JudgedModel, ...], tuple[Score, ...], tuple[Meeting, ...]]
_Firsts = Sequence[tuple[int, Trial, Vote]]


def _realism(study: Study, firsts: _Firsts, people: int) -> _Found:
    pictures = {key: at for at, key in enumerate(sorted({trial.left for _, trial, _ in firsts}))}
    owners = np.array([owner(trial.left) for _, trial, _ in firsts], dtype=object)
    fake = np.array([name != REAL for name in owners], dtype=bool)
    said_fake = np.array([vote.answer == "fake" for *_, vote in firsts], dtype=bool)
    whole = Answers(
        np.array([person for person, *_ in firsts], dtype=np.int64),
        np.array([pictures[trial.left] for _, trial, _ in firsts], dtype=np.int64), fake, fake != said_fake,
    )  # fmt: skip
    models = []
    for entrant in study.entrants:
        own = owners == entrant.row
        scores: tuple[Score, ...] = ()
        if own.any() and (~fake).any():
            answers = realism.of_model(whole, own | ~fake)
            fakes = realism.of_model(whole, own)
            numbers = {"n_fake": int(own.sum()), "n_real": int((~fake).sum())}
            scores = (
                _score("hype", realism.rate(answers, realism.hype), "higher", **numbers),
                _score("fakes_error", realism.rate(fakes, realism.fakes_error), "higher", n_fake=numbers["n_fake"]),
                _score("d_prime", realism.real_number(answers, realism.d_prime), "lower", **numbers),
            )
        models.append(_judged(study, entrant.row, int(own.sum()), scores))
    overall: tuple[Score, ...] = ()
    if (~fake).any():
        reals = realism.of_model(whole, ~fake)
        overall = (_score("reals_error", realism.rate(reals, realism.reals_error), "neither", n_real=len(reals.fake)),)
    return tuple(models), overall, ()


def _preferences(study: Study, firsts: _Firsts, people: int) -> _Found:
    require("evalica")
    at = {entrant.row: position for position, entrant in enumerate(study.entrants)}
    votes = [(person, at[owner(trial.left)], at[owner(trial.right)], vote.answer) for person, trial, vote in firsts]
    cast = preferences.ballots(votes, people, len(at))
    won, tied = cast.won.sum(0), cast.tied.sum(0)
    found = preferences.strengths(cast) if votes else []
    models = []
    for row, position in at.items():
        scores: tuple[Score, ...] = ()
        if found:
            strength = found[position]
            scores = (_score("preferred", strength.preferred, "higher"), _score("strength", strength.strength, "higher"))
        count = sum(position in (left, right) for _, left, right, _ in votes)
        models.append(_judged(study, row, count, scores))
    rows = list(at)
    meetings = tuple(
        Meeting(a=rows[a], b=rows[b], a_won=int(won[a, b]), b_won=int(won[b, a]), ties=int(tied[a, b]))
        for a in range(len(rows))
        for b in range(a + 1, len(rows))
    )
    return tuple(models), (), meetings


def _judged(study: Study, row: str, votes: int, scores: tuple[Score, ...]) -> JudgedModel:
    entrant = next(one for one in study.entrants if one.row == row)
    return JudgedModel(row=row, label=entrant.label, seeds=tuple(run.seed for run in entrant.runs), votes=votes, scores=scores)


def _score(name: str, estimate: Estimate, better: str, **numbers: int) -> Score:
    return Score(name=name, value=estimate.value, better=better, interval=(estimate.low, estimate.high), split="test", **numbers)
