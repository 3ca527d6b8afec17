"""Whose votes count: rules that are fixed here, before any data, and are listed in every report with how many people each left out.

No rule asks whether somebody was right: leaving out those who can't tell real from generated would answer the question beforehand.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from genbench.judge.trials import alike
from genbench.judge.votes import Sheet

SHARE = 0.5
FASTEST_MS = 200
ONE_ANSWER = 0.95
ENOUGH = 20
BY_CHANCE = 0.01


@dataclass(frozen=True)
class Rule:
    """A rule, in words."""

    name: str
    text: str


RULES = (
    Rule("few", f"answered fewer than {SHARE:.0%} of the planned trials".replace("%", " %")),
    Rule("fast", f"median answer time under {FASTEST_MS} ms: nobody sees and decides that fast"),
    Rule("one key", f"the same key in more than {ONE_ANSWER:.0%} of at least {ENOUGH} answers".replace("%", " %") + " (ties apart)"),
    Rule("contrary", f"answered repeats otherwise than at first so often that coins do in less than {BY_CHANCE:.0%}".replace("%", " %")),
)


def excluded_by(sheet: Sheet) -> str:
    """The name of the first rule that leaves this person out; empty where none does."""
    counted = sheet.counted
    planned = sum(one.repeats is None for one in sheet.trials)
    first = [counted[one.number] for one in sheet.trials if one.repeats is None and one.number in counted]
    if len(first) < SHARE * planned or not first:
        return "few"
    answers = list(counted.values())
    if statistics.median(vote.ms for vote in answers) < FASTEST_MS:
        return "fast"
    keys = [vote.answer for vote in answers if vote.answer != "tie"]
    if len(keys) >= ENOUGH and max(keys.count(key) for key in set(keys)) > ONE_ANSWER * len(keys):
        return "one key"
    repeats, same = consistency([sheet], ties=False)
    if repeats and _at_most(same, repeats) < BY_CHANCE:
        return "contrary"
    return ""


def consistency(sheets: Sequence[Sheet], *, ties: bool = True) -> tuple[int, int]:
    """Sheets -> how many repeats were answered, and how many as the first time; without `ties`, those where neither answer is one."""
    repeats = same = 0
    for sheet in sheets:
        counted = sheet.counted
        for one in sheet.trials:
            if one.repeats is None or one.number not in counted or one.repeats not in counted:
                continue
            before, after = counted[one.repeats].answer, counted[one.number].answer
            if ties or "tie" not in (before, after):
                repeats += 1
                same += alike(before, after, pair=bool(one.right))
    return repeats, same


def _at_most(successes: int, throws: int) -> float:
    """The probability of at most so many heads."""
    from math import comb

    return float(sum(comb(throws, k) for k in range(successes + 1)) / 2**throws)
