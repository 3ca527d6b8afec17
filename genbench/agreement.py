"""When a score computed anew agrees with the recorded one: tolerances and where they come from, and the test of a retrained model.

The same pixels give the same numbers but for the order of float32 sums in an extractor, which depends on the processor. Another draw
from the same model differs by chance. So does a second training, by as much as a row's seeds do.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from genbench.records import Score

SHARE_OF_SAME_DRAWS = 0.99
"""Share of pixels within one level of the recorded ones above which regenerated samples are the same draws, computed elsewhere."""
SLACK = 10.0
"""Factor on tolerances where the model itself ran on another machine, not just the extractor."""
ANOTHER_DRAW = math.sqrt(2) * 4.4370 / 2.2010
"""Half-widths of a 95 % interval that two independent draws of one model stay within in 999 of 1 000 cases, by Student's t with the 11
degrees of freedom of FID's intervals; other scores have more."""
LEVEL = 0.01
"""Share of honest runs that the test of a retrained model takes for better than they are."""
WIDEST = 0.1
"""Standard deviation of the logarithms of a row's other seeds beyond which they say nothing of how far retrained values may lie apart:
whoever submits the row chose them, and their spread is what the recorded value may gain."""


class Tolerance(NamedTuple):
    """Largest difference: `relative` times the recorded value, or `absolute` where that is more, or `images` of all generated ones."""

    relative: float
    absolute: float
    images: float = 0.0


PIXELS = Tolerance(1e-6, 1e-9)
"""Counts and float64 sums over pixels: exact up to the order of summation."""
FEATURES = Tolerance(1e-3, 1e-4)
"""What follows smoothly from an extractor's float32 features, which agree to about 1e-5 between processors."""
_FRECHET = Tolerance(1e-3, 1e-2)
"""Fréchet distances: differences of sums thousands of times as large."""
_COUNTED = Tolerance(0.0, 1e-3, images=2)
"""Shares of images: a feature at the edge of a ball, or at equal logits, falls on one side or the other."""
_MODEL = Tolerance(1e-3, 1e-4)
"""What the model itself says of held-out images, in float32."""
_NEIGHBOURS = Tolerance(1e-2, 5e-2)
"""Ratios and ranks of distances to nearest neighbours, which jump where two are equally near."""
TOLERANCES = {
    **dict.fromkeys(("fid", "fid_train", "fid_infinity", "fid_gap"), _FRECHET),
    **dict.fromkeys(("precision", "recall", "density", "coverage", "class_tv", "recognised", "label_agreement", "exact_copies"), _COUNTED),
    **dict.fromkeys(("nn_ratio", "nn_excess", "ct"), _NEIGHBOURS),
    **dict.fromkeys(("elbo_bpd", "elbo_nats", "iwae_bpd", "iwae_nats", "reconstruction_mse", "psnr", "ssim"), _MODEL),
    "active_units": Tolerance(0.0, 0.5),  # a whole number
    "auth_pct": Tolerance(0.0, 0.1, images=200),  # in per cent
    "intra_fid": Tolerance(1e-3, 5e-2),  # a mean over classes of few images each
}
"""By name; another score is held to `PIXELS` where no extractor saw it, to `FEATURES` where one did."""


class Verdict(NamedTuple):
    """Whether two values agree (None: not judged) and the largest difference that counts as none."""

    ok: bool | None
    tolerance: float | None
    note: str = ""


def of_same_pixels(recorded: Score, found: Score, slack: float = 1.0) -> Verdict:
    """A score of the same images, or (with `slack`) of the same draws computed elsewhere -> whether it is the recorded one."""
    allowed = slack * tolerance(found)  # what is recorded, its number of images too, may be anything
    if recorded.value is None or found.value is None:
        same = recorded.value is None and found.value is None
        return Verdict(same, None, "" if same else f"recorded {recorded.note or 'a value'}, found {found.note or 'a value'}")
    if other := _another_measure(recorded, found):
        return Verdict(False, None, other)
    parts = [(recorded.value, found.value, 1.0), (recorded.floor, found.floor, 1.0)]
    if recorded.interval and found.interval:
        parts += [(end, other, 10.0) for end, other in zip(recorded.interval, found.interval, strict=True)]  # of resampled values
    elif bool(recorded.interval) != bool(found.interval):
        return Verdict(False, allowed, "only one of the two has an interval")
    for what, (left, right, factor) in zip(("", "its floor", "its interval", "its interval"), parts, strict=False):
        if left is None and right is None:
            continue
        if left is None or right is None or abs(left - right) > factor * allowed:
            return Verdict(False, allowed, f"{what} differs" if what else "")
    return Verdict(True, allowed)


def of_another_draw(recorded: Score, found: Score) -> Verdict:
    """A score of other samples of the same model -> judged by the interval within the run of what was found here, where it has one.

    What is recorded decides nothing of how it is judged: an interval on one side alone, or another protocol, is a difference.
    """
    if other := _another_measure(recorded, found):
        return Verdict(False, None, other)
    if (recorded.interval is None) is not (found.interval is None):
        return Verdict(False, None, "only one of the two has an interval")
    if found.interval is None:
        return Verdict(None, None)
    if recorded.value is None or found.value is None:
        return Verdict(False, None, "only one of the two has a value")
    low, high = found.interval
    allowed = max(ANOTHER_DRAW * (high - low) / 2, tolerance(found))
    return Verdict(abs(found.value - recorded.value) <= allowed, allowed)


def _another_measure(recorded: Score, found: Score) -> str:
    """Why two scores of one name can't be compared; empty where they can."""
    if recorded.protocol != found.protocol:
        return f"protocol {found.protocol} here, {recorded.protocol or 'none'} recorded: not the same measure"
    return "" if recorded.better == found.better else f"{found.better} is better here, {recorded.better} by the record"


def tolerance(score: Score) -> float:
    """The largest difference between two computations of a score from the same pixels."""
    usual = PIXELS if score.extractor is None else FEATURES
    relative, absolute, images = TOLERANCES.get(score.name, usual)
    return max(relative * abs(score.value or 0.0), absolute, images / max(1, score.n_fake or 1) if images else 0.0)


class Retrained(NamedTuple):
    """Outcome of the one-sided test of a retrained model."""

    ok: bool | None
    """False: the recorded value is better than chance allows; None: too few values to tell."""
    allowed: float | None
    """By how much the recorded value may be better than the mean of the retrained ones; a factor where `log`."""
    p: float | None
    log: bool
    degrees: int


def counted(recorded: float, others: Sequence[float]) -> list[float]:
    """Values of a row's other seeds -> those whose spread the test of a retrained model may use: all, or none beyond `WIDEST`, or where a
    value is not above 0, so that no spread can be called wide."""
    if len(others) < 2 or min(recorded, *others) <= 0:
        return []
    return list(others) if statistics.stdev(map(math.log, others)) <= WIDEST else []


def retrained(recorded: float, others: Sequence[float], again: Sequence[float], better: str) -> Retrained:
    """Is the recorded value better than retrained ones (`again`) by more than seeds differ? One-sided, at `LEVEL`.

    A prediction interval by Student's t: the recorded value is to be one more of what was retrained. The spread is pooled from the
    retrained values and those of the row's other seeds that are `counted`, each about its own mean, so that neither the value in question
    nor a shift of the whole row widens it. Positive scores are compared on the log scale, where the spread of distances is steady.
    """
    from scipy.special import stdtr, stdtrit

    log = min(recorded, *again, 1.0) > 0
    scale = math.log if log else float
    x, row, new = scale(recorded), [scale(v) for v in counted(recorded, others) if log], [scale(v) for v in again]
    degrees = sum(max(0, len(values) - 1) for values in (row, new))
    if not new or degrees == 0:
        return Retrained(None, None, None, log, degrees)
    squares = sum(sum((v - statistics.fmean(values)) ** 2 for v in values) for values in (row, new) if values)
    spread = math.sqrt(squares / degrees * (1 + 1 / len(new)))
    gap = statistics.fmean(new) - x if better == "lower" else x - statistics.fmean(new)
    allowed = float(stdtrit(degrees, 1 - LEVEL)) * spread
    p = float(1 - stdtr(degrees, gap / spread)) if spread > 0 else float(gap <= 0)
    return Retrained(gap <= allowed, math.exp(allowed) if log else allowed, p, log, degrees)
