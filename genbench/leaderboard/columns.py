"""What a column is called, which way is better, what it means in one sentence, and how its numbers are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from genbench.harmless import clean

Better = Literal["lower", "higher", "neither"]
Group = Literal["quality", "speed", "people", "conditional", "memorisation", "likelihood", "statistics", "ledger", "other"]
Form = Literal["score", "ratio", "rate", "count", "bytes", "seconds"]
ARROWS: dict[Better, str] = {"lower": "↓", "higher": "↑", "neither": ""}
VITAL = ("fid", "kid", "precision", "recall", "statistical_fidelity", "train_throughput", "sample_throughput", "parameters")
"""Keys of the measures that stand where there is room for few."""
_NARROW = "\u202f"  # thin no-break space between thousands


@dataclass(frozen=True)
class Section:
    """A table of further measures, below the ranking: its title, what to know before reading it, what its floor row is."""

    group: Group
    title: str
    caption: str = ""
    floor: str = "train, equal N"


SECTIONS = (
    Section("people", "Judged by people", "From votes of people who looked at samples, not knowing whose they are (genbench judge)."),
    Section(
        "conditional", "Images on request", "Models that were asked for images of a given class, equally many of each.", "holdout, equal N"
    ),
    Section(
        "memorisation", "Memorisation",
        "Shown, never ranked: whether images are copies of training images. Held-out real images are the standard.", "holdout, equal N",
    ),
    Section(
        "likelihood", "Likelihood and reconstruction",
        "Held-out images, model-reported: computed from what the model says of itself, not from its samples.",
    ),
    Section("statistics", "Statistics of the pixels", "The measures that statistical fidelity summarises."),
    Section("ledger", "Budget and memory"),
    Section("other", "Measures of plugins"),
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A measure the harness knows: title, group, way of writing, explanation."""

    title: str
    group: Group
    form: Form
    explanation: str


KNOWN: dict[str, Known] = {
    "fid": Known("FID", "quality", "score", "Fréchet distance between Gaussians fitted to features of generated and reference images."),
    "fid_infinity": Known("FID∞", "quality", "score", "FID extrapolated to infinitely many images, free of the bias of a finite sample."),
    "fid_train": Known(
        "FID train", "quality", "score", "FID against the training images; far below the one against test images it hints at memorisation."
    ),
    "fid_test": Known("FID test", "quality", "score", "FID against the held-out test images."),
    "kid": Known("KID", "quality", "score", "Kernel distance (degree 3) between features; unbiased: a perfect model scatters around 0."),
    "is": Known(
        "IS", "quality", "score", "Inception score with the named classifier: confident, varied predictions; never sees real images."
    ),
    "recognised": Known(
        "recognised",
        "quality",
        "ratio",
        "Share of images that the in-domain classifier gives one class with more than 95 % confidence; it can be sure of noise too.",
    ),
    "precision": Known("precision", "quality", "ratio", "Share of generated images inside the manifold of real ones (k = 3): realism."),
    "recall": Known("recall", "quality", "ratio", "Share of real images inside the manifold of generated ones (k = 3): variety."),
    "density": Known(
        "density", "quality", "ratio", "Real neighbourhoods a generated image lies in (k = 5); identical distributions give 1."
    ),
    "coverage": Known(
        "coverage", "quality", "ratio", "Share of real neighbourhoods with a generated image (k = 5); identical distributions give 0.969."
    ),
    "statistical_fidelity": Known(
        "fidelity",
        "quality",
        "ratio",
        "Agreement of pixel marginals, dependence, spectrum, classes and diversity; 1 = a second real sample, 0 = noise or worse.",
    ),
    "train_throughput": Known("train images/s", "speed", "rate", "Training images per second in steady state."),
    "sample_throughput": Known("sample images/s", "speed", "rate", "Generated images per second at the best batch size measured."),
    "parameters": Known("parameters", "speed", "count", "Number of trained parameters."),
    "steps": Known("steps", "speed", "count", "Training steps that fitted into the budget."),
    "mean_gap": Known("mean gap", "statistics", "score", "Mean absolute difference of per-pixel means, in units of the full range."),
    "variance_gap": Known("variance gap", "statistics", "score", "Mean absolute log ratio of per-pixel variances."),
    "quantile_gap": Known(
        "quantile gap", "statistics", "score", "Mean absolute difference of seven per-pixel quantiles, of the full range."
    ),
    "w1": Known("W1", "statistics", "score", "Per-pixel Wasserstein-1 distance of intensities, in units of the full range."),
    "w1_pooled": Known("pooled W1", "statistics", "score", "Wasserstein-1 distance of all intensities pooled over pixels."),
    "ks": Known("KS", "statistics", "score", "Kolmogorov–Smirnov distance of per-pixel intensities, averaged."),
    "covariance": Known("covariance", "statistics", "score", "Relative Frobenius distance of pixel covariances (area-pooled luminance)."),
    "correlation": Known("correlation", "statistics", "score", "Root mean square difference of pixel correlations."),
    "spectrum_db": Known("spectrum", "statistics", "score", "Root mean square difference of the azimuthal power spectra, in dB."),
    "class_tv": Known("class TV", "statistics", "score", "Total variation between the class histograms of generated and real images."),
    "class_kl": Known("class KL", "statistics", "score", "Kullback–Leibler divergence of the class histograms, in nats."),
    "diversity": Known(
        "diversity", "statistics", "score", "Mean distance between generated images relative to real ones; real data gives 1."
    ),
    "duplicates": Known("duplicates", "statistics", "ratio", "Share of generated images that are exact duplicates of another."),
    "label_agreement": Known(
        "label agreement", "conditional", "ratio", "Share of images that the in-domain classifier gives the class asked for."
    ),
    "intra_fid": Known("intra-class FID", "conditional", "score", "FID between generated and real images of one class, mean over classes."),
    "exact_copies": Known(
        "exact copies", "memorisation", "ratio", "Share of generated images that equal a training image, pixel by pixel."
    ),
    "nn_ratio": Known(
        "NN ratio",
        "memorisation",
        "score",
        "Median of the distance to the nearest training image over that to the nearest held-out one, of equally many: 1 without copying.",
    ),
    "nn_excess": Known(
        "NN excess",
        "memorisation",
        "score",
        "Training over test images among those nearest to generated ones, in standard deviations; compare with the floor.",
    ),
    "ct": Known(
        "C_T", "memorisation", "score", "Test of data-copying: far below 0 where generated images lie closer to train than test images do."
    ),
    "auth_pct": Known(
        "AuthPct",
        "memorisation",
        "score",
        "Per cent of images farther from their training neighbour than that is from its own; compare with the floor.",
    ),
    "fid_gap": Known(
        "FID gap", "memorisation", "score", "FID against test less FID against as many training images; above 0: closer to train."
    ),
    "elbo_bpd": Known("ELBO", "likelihood", "score", "Evidence lower bound as an upper bound on the code length, bits per dimension."),
    "iwae_bpd": Known("IWAE", "likelihood", "score", "Importance-weighted bound, tighter than the ELBO, bits per dimension."),
    "elbo_nats": Known("ELBO", "likelihood", "score", "Evidence lower bound on the log-likelihood of a binary image, nats."),
    "iwae_nats": Known("IWAE", "likelihood", "score", "Importance-weighted bound on the log-likelihood of a binary image, nats."),
    "reconstruction_mse": Known("MSE", "likelihood", "score", "Mean squared error of reconstructions."),
    "psnr": Known("PSNR", "likelihood", "score", "Peak signal-to-noise ratio of reconstructions, dB."),
    "ssim": Known("SSIM", "likelihood", "ratio", "Structural similarity of reconstructions; 1 for equal images."),
    "active_units": Known(
        "active units", "likelihood", "count", "Latent dimensions whose posterior mean varies over images (variance above 0.01)."
    ),
    "images": Known("images seen", "ledger", "count", "Training images drawn within the budget."),
    "seconds": Known("trained", "ledger", "seconds", "Device-seconds of training charged."),
    "train_peak_bytes": Known("peak, training", "ledger", "bytes", "Peak memory while training."),
    "sample_peak_bytes": Known("peak, sampling", "ledger", "bytes", "Peak memory while sampling."),
    "flops_per_image": Known("FLOPs/image", "ledger", "count", "Floating-point operations to generate one image."),
    "energy_joules": Known("energy", "ledger", "count", "Energy drawn by the device while training, in joules, where it can be read."),
    "waited": Known("waited", "ledger", "ratio", "Share of the clock spent waiting for a core; above 0.1 others contended for it."),
}
_ORDER = {name: position for position, name in enumerate(KNOWN)}


@dataclass(frozen=True)
class Column:
    """One column of a table. `key` is the score's name, with ``@extractor`` where it is not the track's."""

    key: str
    title: str
    group: Group
    form: Form
    better: Better
    explanation: str
    unit: str = ""
    extractor: str = ""
    sizes: str = ""
    """``10 000 generated, 10 000 test`` where that is known."""
    protocols: tuple[str, ...] = ()
    """Protocol hashes of its models' scores, most frequent first; more than one: its values are not comparable."""

    @property
    def mixed(self) -> bool:
        """True where the models' scores were made under several protocols: no bold, no rank."""
        return len(self.protocols) > 1

    @property
    def main(self) -> bool:
        """Whether it belongs to the ranking itself rather than to a section below."""
        return self.group in ("quality", "speed")

    @property
    def name(self) -> str:
        """Title with extractor: ``FID (mnist-cnn)``."""
        return f"{self.title} ({self.extractor})" if self.extractor else self.title

    @property
    def heading(self) -> str:
        """Name with the arrow that says which way is better."""
        return f"{self.name} {ARROWS[self.better]}".strip()

    @property
    def help(self) -> str:
        """The explanation shown on hover and in the legend."""
        way = {"lower": "Lower is better.", "higher": "Higher is better.", "neither": ""}[self.better]
        return " ".join(filter(None, (self.explanation, way, f"({self.sizes}.)" if self.sizes else "")))


def column(
    key: str, better: Better, *, unit: str = "", extractor: str | None = None, sizes: str = "", protocols: tuple[str, ...] = ()
) -> Column:
    """A score's key and what its records say -> Column; a measure the harness does not know goes to those of plugins."""
    name = key.partition("@")[0]
    known = KNOWN.get(name) or Known(clean(name, 40), "other", "score", "Reported by a plugin's metric.")
    return Column(
        key, known.title, known.group, known.form, better, known.explanation, clean(unit, 20), clean(extractor or "", 40), sizes, protocols
    )


def sort_key(col: Column) -> tuple[float, str]:
    """The order of columns: quality, the same by other extractors, speed, further measures, then what plugins add, by name."""
    name, _, other = col.key.partition("@")
    if other and col.group == "quality":
        return (_ORDER["statistical_fidelity"] + 0.5, col.key)
    return (_ORDER.get(name, len(_ORDER)), col.key)


def group_thousands(value: float) -> str:
    """12345.6 -> ``12 346`` with thin no-break spaces."""
    return f"{value:,.0f}".replace(",", _NARROW)


def write(value: float, form: Form, half: float | None = None) -> tuple[str, str]:
    """A mean and the half-width of its interval -> both as text in one unit, with one number of decimals; the second is empty
    where there is none.

    Scores get four significant digits, and no more decimals than two digits of the half-width justify.
    """
    if form in ("count", "bytes"):
        half = half or None  # the same number of parameters in every run has no spread to report
        scale, suffix = _scale(value, 1024.0 if form == "bytes" else 1000.0)
        if scale == 1 and value == int(value) and half is None:
            return group_thousands(value) + suffix, ""
        return _digits(value / scale, None if half is None else half / scale, 3, suffix)
    if form == "ratio":
        return f"{value:.3f}", "" if half is None else f"{half:.3f}"
    if form == "rate":
        return _digits(value, half, 3, "")
    if form == "seconds":
        return f"{value:.1f} s", "" if half is None else f"{half:.1f} s"
    return _digits(value, half, 4, "")


def _digits(value: float, half: float | None, significant: int, suffix: str) -> tuple[str, str]:
    if value and abs(value) < 1e-3 and not (half and half >= 1e-3):
        return f"{value:.2e}{suffix}", "" if half is None else f"{half:.1e}{suffix}"
    decimals = _decimals(value, significant)
    if half:
        decimals = min(max(decimals, 0), max(_decimals(half, 2), 0)) if value else max(_decimals(half, 2), 0)
    decimals = min(max(decimals, 0), 6)
    texts = [f"{number:,.{decimals}f}".replace(",", _NARROW) for number in (value, half) if number is not None]
    return texts[0] + suffix, texts[1] + suffix if half is not None else ""


def _decimals(value: float, significant: int) -> int:
    return significant - 1 - math.floor(math.log10(abs(value))) if value else significant - 1


def _scale(value: float, base: float) -> tuple[float, str]:
    """The largest unit that leaves at least one: 1.2e6 -> (1e6, ' M')."""
    units = ("", " k", " M", " G", " T") if base == 1000.0 else (" B", " KiB", " MiB", " GiB", " TiB")
    power = 0
    while power < 4 and abs(value) / base**power >= (base if power or base == 1024.0 else 1e4):
        power += 1
    return base**power, units[power].replace(" ", _NARROW)
