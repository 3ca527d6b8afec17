"""The metrics that come with the package, as specs around the pure functions beside this module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from genbench.metrics import Evidence, ImageSet, Measurement, MetricSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from genbench.metrics.statistics import Summary

FLOOR_SPLITS = 20
"""Seeded real samples whose median makes a measure's floor."""


def builtin_metrics() -> list[MetricSpec]:
    """FID, KID, IS, precision / recall / density / coverage, statistical fidelity."""
    return [
        MetricSpec("fid", _fid, "arXiv:1706.08500", "Fréchet distance of features, against both splits and at infinite N"),
        MetricSpec("kid", _kid, "arXiv:1801.01401", "kernel distance of features, unbiased"),
        MetricSpec("is", _inception_score, "arXiv:1606.03498", "Inception Score of the extractor's classifier"),
        MetricSpec("prdc", _prdc, "arXiv:1904.06991, arXiv:2002.09797", "precision, recall, density and coverage of features"),
        MetricSpec("statistical_fidelity", _statistics, "", "pixel statistics against real images and noise: one score and its measures"),
    ]


def _fid(evidence: Evidence) -> Iterator[Measurement]:
    from scipy.special import stdtrit

    from genbench.metrics import fid

    other: Literal["test", "train"] = "train" if evidence.reference == "test" else "test"
    rest = evidence.train if other == "train" else evidence.test
    n = len(evidence.fake.images)
    if n < 2:
        for name in ("fid", f"fid_{other}", "fid_infinity"):
            yield Measurement(name, None, "lower", note="needs at least 2 images")
        return
    mu, S, _ = evidence.fake.moments
    fake = fid.Gaussian.of(mu, S)
    reference = fid.Gaussian.of(*evidence.real.moments[:2])
    more = fid.extrapolate(evidence.fake.features, reference, seed=evidence.seed) if n >= 72 else None
    value, interval = fake.distance(reference), None
    if more is not None:
        half = float(stdtrit(more.groups - 1, 0.975)) * more.fid_se
        interval = (value - half, value + half)
    note = "" if n > len(mu) else f"{n} images in {len(mu)} dimensions: singular covariance"
    yield Measurement("fid", value, "lower", interval=interval, note=note)
    if rest is not None:
        mu, S, n_rest = rest.moments
        yield Measurement(f"fid_{other}", fake.distance(fid.Gaussian.of(mu, S)), "lower", split=other, n_real=n_rest)
    if more is None or n < 3 * (len(mu) + 1):
        # Below full rank in a third of the images FID does not go as 1/N
        yield Measurement("fid_infinity", None, "lower", note=f"needs at least {max(72, 3 * (len(mu) + 1))} images")
        return
    half = float(stdtrit(more.groups - 1, 0.975)) * more.infinity_se
    yield Measurement("fid_infinity", more.infinity, "lower", interval=(more.infinity - half, more.infinity + half))


def _kid(evidence: Evidence) -> Iterator[Measurement]:
    from genbench.metrics import kid

    size = kid.subset_size(len(evidence.real.images), len(evidence.fake.images))
    if size < 2:
        yield Measurement("kid", None, "lower", note="needs at least 4 images")
        return
    mean, spread = kid.kid(evidence.real.features, evidence.fake.features, seed=evidence.seed)
    yield Measurement("kid", mean, "lower", note=f"± {spread:.3g} over 100 subsets of {size}")


def _inception_score(evidence: Evidence) -> Iterator[Measurement]:
    from genbench.metrics import inception_score

    logits = evidence.fake.logits
    if logits is None:
        yield Measurement("is", None, "higher", note="the extractor is no classifier")
    elif len(logits) < 100:
        yield Measurement("is", None, "higher", note="needs at least 100 images")
    else:
        mean, spread = inception_score.inception_score(logits, seed=evidence.seed)
        yield Measurement("is", mean, "higher", note=f"± {spread:.3g} over 10 splits")


def _prdc(evidence: Evidence) -> Iterator[Measurement]:
    import numpy as np

    from genbench.metrics import prdc

    n = min(len(evidence.real.images), len(evidence.fake.images))
    if n < 6:
        for name in prdc.PRDC._fields:
            yield Measurement(name, None, "higher", note="needs at least 6 images")
        return
    rng = np.random.default_rng(evidence.seed)
    values = prdc.prdc(_some(evidence.real.features, n, rng), _some(evidence.fake.features, n, rng))
    notes = {"density": "1 for a second real sample", "coverage": "0.969 for a second real sample"}
    for name, value in values._asdict().items():
        yield Measurement(name, value, "higher", n_real=n, n_fake=n, note=notes.get(name, ""))


def _some(features: NDArray[np.float32], n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(N, d) -> (n, d), all of them or a random subset."""
    return features if len(features) == n else features[rng.choice(len(features), n, replace=False)]


def _statistics(evidence: Evidence) -> Iterator[Measurement]:
    from genbench.metrics import fidelity, statistics

    n = len(evidence.fake.images)
    if n < 2:
        yield Measurement("statistical_fidelity", None, "higher", note="needs at least 2 images")
        return
    real, fake = _summary(evidence, evidence.real), _summary(evidence, evidence.fake)
    values = statistics.measure(fake, real)
    known = evidence.remember(f"floors of {n} images", lambda: _floors(evidence, real))
    floors, noise = ({name: float(known[f"{kind} {name}"]) for name in values if f"{kind} {name}" in known} for kind in ("floor", "noise"))
    score, families = fidelity.statistical_fidelity({name: v for name, v in values.items() if name in noise}, floors, noise)
    note = ", ".join(f"{family} {value:.2f}" for family, value in families.items())
    yield Measurement("statistical_fidelity", score, "higher", pixels_only="class" not in families, note=note)
    units = {"spectrum_db": "dB", "class_kl": "nats", "diversity": "× real"}
    masked = statistics.correlation(fake, real)[1]
    for name, value in values.items():
        yield Measurement(
            name, value, "neither" if name == "diversity" else "lower", units.get(name, ""), pixels_only=not name.startswith("class_"),
            note=f"{masked} constant pixels masked" if name == "correlation" and masked else "",
        )  # fmt: skip


def _summary(evidence: Evidence, images: ImageSet) -> Summary:
    from genbench.metrics import statistics

    return statistics.summarise(images.images, _classes(images.logits if evidence.labels_named else None))


def _classes(logits: NDArray[np.float32] | None) -> NDArray[np.int64] | None:
    """(N, K) logits -> (K,) images in each class."""
    import numpy as np

    return None if logits is None else np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])


def _floors(evidence: Evidence, real: Summary) -> dict[str, NDArray[np.generic]]:
    """Every measure of real images (median over seeded samples of train, as many as generated) and of noise, against the reference."""
    import numpy as np

    from genbench.metrics import statistics

    train, n = evidence.train, len(evidence.fake.images)
    logits = train.logits if evidence.labels_named else None
    draws: list[dict[str, float]] = []
    for seed in range(FLOOR_SPLITS):
        some = np.sort(np.random.default_rng(seed).permutation(len(train.images))[:n])
        sample = statistics.summarise(train.images[some], _classes(None if logits is None else logits[some]))
        draws.append(statistics.measure(sample, real))
    if evidence.noise is not None:
        noise = _summary(evidence, evidence.noise())
    else:  # nobody to classify it: the class measures get no noise value and stay out of the score
        noise = statistics.summarise(np.random.default_rng(0).integers(0, 256, (n, *train.images.shape[1:]), dtype=np.uint8))
    floors = {f"floor {name}": np.asarray(np.median([draw[name] for draw in draws])) for name in draws[0]}
    return floors | {f"noise {name}": np.asarray(value) for name, value in statistics.measure(noise, real).items()}
