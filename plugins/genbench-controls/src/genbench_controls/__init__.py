"""Controls for genbench, one file each: rows whose place in a table is known beforehand, so that a metric that misplaces them is wrong."""

from __future__ import annotations

from genbench import ModelSpec, hookimpl
from genbench_controls.noise import Noise
from genbench_controls.pca_gaussian import PCAGaussian
from genbench_controls.real_holdout import RealHoldout


@hookimpl
def genbench_models() -> list[ModelSpec]:
    """The models of this distribution."""
    return [
        ModelSpec("real-holdout", RealHoldout, family="control", holdout=True, description="real images that no model trains on"),
        ModelSpec("pca-gaussian", PCAGaussian, family="control", description="Gaussian of the training images' mean and covariance"),
        ModelSpec("noise", Noise, family="control", description="uniform noise"),
    ]
