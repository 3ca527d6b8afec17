"""The extractors that come with the harness; listing them imports no torch."""

from __future__ import annotations

import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.errors import GenbenchError
from genbench.extractors import Extractor, ExtractorSpec

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

_FEATURES, _PHOTO_FEATURES = 128, 256


def builtin_extractors() -> list[ExtractorSpec]:
    """The bundled in-domain CNNs, the reference's own principal components, and torch-fidelity's networks."""
    from genbench.extractors import fidelity

    return [
        _bundled("digits-cnn", "digits"),
        _bundled("mnist-cnn", "mnist"),
        _bundled("cifar10-cnn", "cifar10", "CIFAR-10 as compressed by JPEG"),
        ExtractorSpec(
            "cnn", _load_own, _require_own, _FEATURES,
            "the same CNNs trained on data of one's own: genbench extractor train, --weights FILE; 256 features of images in colour",
            version="2",
        ),
        ExtractorSpec(
            "pixels-pca", _load_pca, _require_pca, 64,
            "64 leading principal components of the pixels of the reference's train split; needs no weights", fit=_fit_pca,
        ),
        *(
            ExtractorSpec(
                name, partial(fidelity.load, name=name), partial(fidelity.require, name=name), network.dim, network.description,
                num_classes=network.num_classes,
            )
            for name, network in fidelity.NETWORKS.items()
        ),
    ]  # fmt: skip


def _bundled(name: str, dataset: str, images: str = "") -> ExtractorSpec:
    from genbench.datasets.builtin import builtin_datasets

    said = _sidecar(name)
    recipe, accuracy = said["recipe"], float(said["test_accuracy"])
    return ExtractorSpec(
        name,
        partial(_load_cnn, name=name),
        partial(_require_cnn, name=name),
        _PHOTO_FEATURES if recipe.get("photos") else _FEATURES,
        f"CNN trained on the train split of {images or dataset}, {recipe['channels']}×{recipe['size']}×{recipe['size']} images;"
        f" test accuracy {accuracy:.2%}",
        num_classes=int(recipe["num_classes"]),
        labels_of=dataset,
        accuracy=accuracy,
        version="2",
        class_names=next(spec.class_names for spec in builtin_datasets() if spec.name == dataset),
    )


def _sidecar(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resources.files("genbench.extractors").joinpath(f"weights/{name}.json").read_text(encoding="utf-8"))
    return found


def _fit_pca(device: torch.device, images: NDArray[np.uint8]) -> Extractor:
    from genbench.extractors.pca import fit

    return fit(device, images)


def _load_pca(device: torch.device, weights: Path | None) -> Extractor:
    raise GenbenchError("extractor pixels-pca has no weights: it is fitted on the images of a reference")


def _require_pca(weights: Path | None) -> None:
    if weights is not None:
        raise GenbenchError("extractor pixels-pca is fitted on the reference's train split: it takes no --weights")


def _load_cnn(device: torch.device, weights: Path | None, name: str) -> Extractor:
    from genbench.extractors.cnn import load_cnn

    _require_cnn(weights, name)
    with resources.as_file(resources.files("genbench.extractors").joinpath(f"weights/{name}.safetensors")) as path:
        extractor = load_cnn(path, device, name)
    if extractor.digest != _sidecar(name)["digest"]:
        raise GenbenchError(f"the weights of {name} in this installation are not those that were published: install genbench again")
    return extractor


def _require_cnn(weights: Path | None, name: str) -> None:
    if weights is not None:
        raise GenbenchError(f"extractor {name} is its own weights; for others of the same network take the extractor 'cnn' with --weights")


def _load_own(device: torch.device, weights: Path | None) -> Extractor:
    from genbench.extractors.cnn import load_cnn

    return load_cnn(_given(weights), device)


def _require_own(weights: Path | None) -> None:
    from genbench.extractors.cnn import read_header

    read_header(_given(weights))


def _given(weights: Path | None) -> Path:
    if weights is None:
        raise GenbenchError("extractor cnn needs --weights FILE, which genbench extractor train DATASET --out FILE writes")
    if not weights.is_file():
        raise GenbenchError(f"extractor cnn: no weights file {weights}")
    return weights
