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
    import torch

_FEATURES = 128


def builtin_extractors() -> list[ExtractorSpec]:
    """The bundled in-domain CNNs, and torch-fidelity's networks."""
    return [
        _bundled("digits-cnn", "digits"),
        _bundled("mnist-cnn", "mnist"),
        ExtractorSpec(
            "cnn", _load_own, _require_own, _FEATURES, "the same CNN trained on data of one's own: genbench extractor train, --weights FILE"
        ),
        _fidelity("inception-v3-compat", 2048, "InceptionV3 of the FID paper as torch-fidelity ships it; ImageNet logits", 1008),
        _fidelity("vgg16", 4096, "VGG-16's second fully connected layer, after its ReLU, through torch-fidelity"),
        _fidelity("clip-vit-b-32", 512, "CLIP ViT-B/32 image embedding through torch-fidelity"),
        _fidelity("dinov2-vit-b-14", 768, "DINOv2 ViT-B/14 class token through torch-fidelity"),
    ]


def _bundled(name: str, dataset: str) -> ExtractorSpec:
    said = _sidecar(name)
    accuracy = float(said["test_accuracy"])
    return ExtractorSpec(
        name,
        partial(_load_cnn, name=name),
        partial(_require_cnn, name=name),
        _FEATURES,
        f"CNN trained on {dataset}'s train split, {said['recipe']['channels']}×{said['recipe']['size']}×{said['recipe']['size']} images;"
        f" test accuracy {accuracy:.2%}",
        num_classes=int(said["recipe"]["num_classes"]),
        labels_of=dataset,
        accuracy=accuracy,
    )


def _fidelity(name: str, dim: int, description: str, num_classes: int = 0) -> ExtractorSpec:
    from genbench.extractors import fidelity

    return ExtractorSpec(
        name, partial(fidelity.load, name=name), partial(fidelity.require, name=name), dim, description, num_classes=num_classes
    )


def _sidecar(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resources.files("genbench.extractors").joinpath(f"weights/{name}.json").read_text(encoding="utf-8"))
    return found


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
