"""Likelihood panel: what a model says of held-out images: bounds of log p(x), reconstructions, latents in use.

ELBO: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, eq. 2. Importance-weighted bound and
active units: Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519, eq. 8 and section 5.3.
Dequantisation: Theis, van den Oord & Bethge, "A note on the evaluation of generative models", ICLR 2016, arXiv:1511.01844,
section 3.1. SSIM: Wang, Bovik, Sheikh & Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
TIP 2004, doi:10.1109/TIP.2003.819861, eq. 13.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import logsumexp, stdtrit

from genbench.metrics import Evidence, Measurement, ModelEvidence

Array = NDArray[np.float64]
LEVELS = 256
USUAL_K = 50
"""k of the importance-weighted bound that the metric's version stands for; a track may ask for another."""
ACTIVE = 0.01
"""Variance over images above which the posterior mean of a latent unit is said to follow them."""
ROUNDING = 1 / 12
"""Variance of rounding to a level: the least squared error that 8 bits can tell, hence the largest PSNR, 58.9 dB."""


def elbo(log_weights: NDArray[np.floating]) -> Array:
    """(k, N) log p(x, z) / q(z|x) in nats -> (N,) estimates of the evidence lower bound: the mean over k; higher is better."""
    return np.asarray(log_weights.mean(axis=0, dtype=np.float64))


def iwae(log_weights: NDArray[np.floating]) -> Array:
    """(k, N) log weights in nats -> (N,) bounds L_k: log of the mean weight, between ELBO and log p; higher is better."""
    return np.asarray(logsumexp(log_weights.astype(np.float64), axis=0) - math.log(len(log_weights)))


def of_levels(nats: Array, dims: int) -> Array:
    """Log densities of dequantised images on [-1, 1], `dims` pixel-channels -> bounds of the log probability of their 8-bit levels.

    P(level) = integral of p over its cell of width 2/256, and log E p >= E log p over the uniform noise (Theis et al.).
    """
    return nats + dims * math.log(2 / LEVELS)


def bits_per_dim(nats: Array, dims: int) -> Array:
    """(N,) log probabilities of images of `dims` pixel-channels -> code lengths in bits per dimension; lower is better, 8 for no model."""
    return -nats / (dims * math.log(2))


def mse(images: NDArray[np.uint8], reconstructions: NDArray[np.uint8]) -> Array:
    """Two (N, C, H, W) uint8 -> (N,) mean squared errors of pixels in [0, 1]; lower is better."""
    difference = images.astype(np.float64) - reconstructions
    return np.asarray(np.square(difference / (LEVELS - 1)).reshape(len(images), -1).mean(axis=1))


def psnr(images: NDArray[np.uint8], reconstructions: NDArray[np.uint8]) -> Array:
    """Two (N, C, H, W) uint8 -> (N,) peak signal-to-noise ratios in dB, 255 the peak; higher is better, 58.9 at most."""
    return -10 * np.log10(np.maximum(mse(images, reconstructions), ROUNDING / (LEVELS - 1) ** 2))


def ssim(images: NDArray[np.uint8], reconstructions: NDArray[np.uint8]) -> Array:
    """Two (N, C, H, W) uint8 -> (N,) structural similarities in [-1, 1], 1 for equal images; higher is better. Wang et al. 2004, eq. 13.

    Gaussian window of 11 x 11 and sigma 1.5, or of the largest odd size that fits; its whole positions only, averaged over them
    and the channels; C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2.
    """
    x, y = images.astype(np.float64), reconstructions.astype(np.float64)
    mu_x, mu_y = _window(x), _window(y)
    var_x, var_y, cov = _window(x * x) - mu_x**2, _window(y * y) - mu_y**2, _window(x * y) - mu_x * mu_y
    C1, C2 = (0.01 * (LEVELS - 1)) ** 2, (0.03 * (LEVELS - 1)) ** 2
    similarity = (2 * mu_x * mu_y + C1) * (2 * cov + C2) / ((mu_x**2 + mu_y**2 + C1) * (var_x + var_y + C2))
    return np.asarray(similarity.reshape(len(x), -1).mean(axis=1))


def _window(images: Array) -> Array:
    """(N, C, H, W) -> Gaussian means over the window's whole positions, (N, C, H - s + 1, W - s + 1)."""
    smallest = min(images.shape[2:])
    radius = (min(11, smallest - 1 + smallest % 2) - 1) // 2
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / 1.5) ** 2)
    weights /= weights.sum()
    for axis in (2, 3):
        images = correlate1d(images, weights, axis=axis)
    inside = slice(radius, -radius or None)
    return images[:, :, inside, inside]


def active_units(means: NDArray[np.floating]) -> int:
    """(N, d) posterior means of N images -> how many of the d latent units have a variance over images above 0.01. Burda et al., 5.3."""
    return int((means.astype(np.float64).var(axis=0, ddof=1) > ACTIVE).sum())


def mean_interval(values: Array) -> tuple[float, tuple[float, float] | None]:
    """(N,) values of images -> their mean and its 95 % t interval, None below two."""
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, None
    with np.errstate(invalid="ignore"):  # a bound of -inf has no interval
        half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / math.sqrt(n))
    return mean, (mean - half, mean + half)


def compute(evidence: Evidence) -> Iterator[Measurement]:
    """The hook of this module's metric."""
    said = evidence.model
    assert said is not None
    n = len(said.images)
    for measurement in (*bounds(said), *_reconstruction(said), *_latents(said)):
        note = ", ".join(filter(None, ("model-reported", measurement.note, f"{n} images")))
        yield replace(measurement, split="test", n_real=n, n_fake=0, pixels_only=True, note=note)


def bounds(said: ModelEvidence) -> Iterator[Measurement]:
    """What the model said -> its ELBO and importance-weighted bound over the images; without values where they are refused."""
    binary, dims = said.density == "bernoulli", int(np.prod(said.images.shape[1:]))
    better: Literal["higher", "lower"] = "higher" if binary else "lower"
    unit = "nats" if binary else "bits/dim"
    names = [f"{bound}_{'nats' if binary else 'bpd'}" for bound in ("elbo", "iwae")]
    refused = said.problems.get("log_weights", "")
    if said.log_weights is not None and said.density is None:
        refused = "the model does not say what its density is of"
    elif said.log_weights is not None and binary and not np.isin(said.images, (0, LEVELS - 1)).all():
        refused = "cross-entropy on grey pixels is a loss, not a likelihood"
    if refused:
        yield from (Measurement(name, None, better, unit, note=refused) for name in names)
    elif said.log_weights is not None:
        about = [f"k = {len(said.log_weights)}", f"prior {said.prior}" if said.prior else "prior not named"]
        about += ["uniform dequantisation"] if said.density == "continuous" else []
        about += ["given the label"] if said.labelled else []
        for name, bound in zip(names, (elbo, iwae), strict=True):
            nats = bound(said.log_weights)
            nats = of_levels(nats, dims) if said.density == "continuous" else nats
            value, interval = mean_interval(nats if binary else bits_per_dim(nats, dims))
            k = len(said.log_weights)
            yield Measurement(name, value, better, unit, interval, note=", ".join(about), under="" if k == USUAL_K else f"k = {k}")


def _reconstruction(said: ModelEvidence) -> Iterator[Measurement]:
    for name, measure, unit in (("reconstruction_mse", mse, ""), ("psnr", psnr, "dB"), ("ssim", ssim, "")):
        better: Literal["lower", "higher"] = "lower" if measure is mse else "higher"
        if said.reconstructions is not None:
            value, interval = mean_interval(measure(said.images, said.reconstructions))
            yield Measurement(name, value, better, unit, interval)
        elif "reconstruct" in said.problems:
            yield Measurement(name, None, better, unit, note=said.problems["reconstruct"])


def _latents(said: ModelEvidence) -> Iterator[Measurement]:
    if said.means is not None and len(said.images) > 1:
        yield Measurement("active_units", active_units(said.means), "neither", note=f"of {said.means.shape[1]}")
    elif "encode" in said.problems:
        yield Measurement("active_units", None, "neither", note=said.problems["encode"])
