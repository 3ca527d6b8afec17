"""Controls for genbench, one file each: rows whose place in a table is known beforehand, so that a metric that misplaces them is wrong."""

from __future__ import annotations

from genbench import ModelSpec, hookimpl
from genbench_controls.mean_image import MeanImage
from genbench_controls.noise import Noise
from genbench_controls.one_sample import OneSample
from genbench_controls.pca_gaussian import PCAGaussian
from genbench_controls.per_pixel_histogram import PerPixelHistogram
from genbench_controls.real_holdout import RealHoldout
from genbench_controls.train_copy import TrainCopy

FITTED = "it is no network, and what it keeps of the training images would be of one device's part"


@hookimpl
def genbench_models() -> list[ModelSpec]:
    """The models of this distribution."""
    return [
        ModelSpec("real-holdout", RealHoldout, family="control", holdout=True, description="real images that no model trains on"),
        ModelSpec("train-copy", TrainCopy, family="control", description="the training images themselves", single_device=FITTED),
        ModelSpec(
            "pca-gaussian", PCAGaussian, family="control", description="Gaussian of the training images' mean and covariance",
            single_device=FITTED,
        ),
        ModelSpec(
            "per-pixel-histogram", PerPixelHistogram, family="control", description="independent pixels, each as in training images",
            single_device=FITTED,
        ),
        ModelSpec(
            "mean-image", MeanImage, family="control", description="the mean of the training images, over and over", single_device=FITTED
        ),
        ModelSpec("one-sample", OneSample, family="control", description="one training image, over and over", single_device=FITTED),
        ModelSpec("noise", Noise, family="control", description="uniform noise"),
    ]  # fmt: skip
