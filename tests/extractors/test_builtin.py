import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genbench.datasets import DatasetSpec, Split
from genbench.datasets.encoded import encoded, labels_of, open_source
from genbench.datasets.prepare import digest, prepare
from genbench.errors import GenbenchError
from genbench.extractors import builtin
from genbench.extractors.builtin import builtin_extractors
from genbench.extractors.cnn import file_digest
from genbench.extractors.recipe import accuracy

CIFAR10_EVERY_SEVENTH = 0.87194
"""Accuracy on test images 0, 7, 14, ..., as measured when the weights were made."""
CPU = torch.device("cpu")
SPECS = {spec.name: spec for spec in builtin_extractors()}
WEIGHTS = Path(builtin.__file__).parent / "weights"
BUNDLED = {"digits-cnn": 2**19, "mnist-cnn": 2**20, "cifar10-cnn": 3 * 10**6}
"""Most bytes of each."""


def root_with(path):
    roots = [Path(root) for root in (os.environ.get("GENBENCH_DATA"), Path(__file__).parents[2].parent / "shared" / "data") if root]
    return next((root for root in roots if (root / path).is_file()), None)


MNIST = root_with("MNIST/raw/train-images-idx3-ubyte")
CIFAR10 = root_with("cifar10-jpeg/test.zip")


def sidecar(name):
    return json.loads((WEIGHTS / f"{name}.json").read_text())


def test_listing_extractors_imports_neither_torch_nor_scipy():
    code = "import sys; from genbench.extractors.builtin import builtin_extractors as b; b();"
    code += "print('torch' in sys.modules, 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False False\n"


@pytest.mark.parametrize("name", BUNDLED)
def test_the_shipped_weights_are_small_and_are_those_of_their_sidecar(name):
    path = WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size < BUNDLED[name]
    assert sidecar(name)["digest"] == file_digest(path) == SPECS[name].load(CPU, None).digest
    assert SPECS[name].accuracy == sidecar(name)["test_accuracy"]
    assert f"{SPECS[name].accuracy:.2%}" in SPECS[name].description


def check_accuracy(name, data):
    said = sidecar(name)
    assert said["train_digest"] == digest([data.train])
    extractor = SPECS[name].load(CPU, None)
    # one image may fall either way between machines
    assert accuracy(extractor, data.test) == pytest.approx(said["test_accuracy"], abs=1.5 / len(data.test))
    assert accuracy(extractor, data.holdout) == pytest.approx(said["holdout_accuracy"], abs=1.5 / len(data.holdout))
    features, logits = extractor(torch.from_numpy(data.train.images[:500]))
    assert features.shape == (500, SPECS[name].dim)
    assert logits.shape == (500, SPECS[name].num_classes)
    assert features.dtype == logits.dtype == torch.float32
    return features


def test_digits_cnn_reaches_its_accuracy_on_images_it_never_saw():
    assert SPECS["digits-cnn"].accuracy >= 0.98
    check_accuracy("digits-cnn", prepare("digits", 8))


@pytest.mark.skipif(MNIST is None, reason="MNIST is not here: neither under GENBENCH_DATA nor in ../shared/data")
def test_mnist_cnn_reaches_its_accuracy_on_images_it_never_saw():
    assert SPECS["mnist-cnn"].accuracy >= 0.993
    check_accuracy("mnist-cnn", prepare("mnist", 32, MNIST))


@pytest.mark.skipif(CIFAR10 is None, reason="cifar10-jpeg is not here: neither under GENBENCH_DATA nor in ../shared/data")
def test_cifar10_cnn_reaches_its_accuracy_on_images_it_never_saw():
    said = sidecar("cifar10-cnn")
    assert said["test_accuracy"] >= 0.85
    assert said["recipe"]["dataset"] == "folder:cifar10-jpeg"
    assert "JPEG" in SPECS["cifar10-cnn"].description
    assert "JPEG-compressed" in said["images"]
    source = open_source(CIFAR10 / "cifar10-jpeg" / "test.zip")
    labels, names = labels_of(source)
    assert names == SPECS["cifar10-cnn"].class_names
    some = np.arange(0, 10_000, 7)
    split = Split(encoded(source)[some], labels[some])
    extractor = SPECS["cifar10-cnn"].load(CPU, None)
    assert accuracy(extractor, split) == pytest.approx(CIFAR10_EVERY_SEVENTH, abs=1.5 / len(split))
    features, logits = extractor(torch.from_numpy(split.images[:500]))
    assert features.shape == (500, SPECS["cifar10-cnn"].dim)
    assert logits.shape == (500, SPECS["cifar10-cnn"].num_classes)
    assert features.double().var(dim=0).mean().item() == pytest.approx(1, abs=0.1)  # 1 over the train split


def test_logits_name_the_labels_of_a_dataset_by_its_name_or_by_its_words():
    def data(name, *names):
        return DatasetSpec(name, lambda root: {}, 3, 32, len(names), class_names=names)

    spec, words = SPECS["cifar10-cnn"], SPECS["cifar10-cnn"].class_names
    assert words[0] == "airplane"
    assert words[9] == "truck"
    assert spec.names_labels_of(data("folder:anywhere", *words))
    assert spec.names_labels_of(data("cifar10"))
    assert not spec.names_labels_of(data("folder:anywhere", *reversed(words)))
    assert not spec.names_labels_of(data("folder:anywhere", *words[:9]))
    assert not spec.names_labels_of(data("folder:anywhere"))
    digits = SPECS["mnist-cnn"].class_names
    assert digits == tuple("0123456789")
    assert SPECS["mnist-cnn"].names_labels_of(data("mnist", *digits))
    assert not SPECS["mnist-cnn"].names_labels_of(data("folder:anywhere", *digits))  # any ten folders may be called so
    assert not SPECS["vgg16"].names_labels_of(data(""))
    assert not replace(spec, num_classes=0).names_labels_of(data("cifar10", *words))


def test_features_have_mean_variance_one_over_the_train_split():
    train = torch.from_numpy(np.array(prepare("digits", 8).train.images))
    features, _ = SPECS["digits-cnn"].load(CPU, None)(train)
    assert features.double().var(dim=0).mean().item() == pytest.approx(1, abs=1e-4)


def test_a_named_cnn_takes_no_other_weights():
    SPECS["digits-cnn"].require(None)
    for call in (SPECS["digits-cnn"].require, lambda weights: SPECS["digits-cnn"].load(CPU, weights)):
        with pytest.raises(GenbenchError, match=r"digits-cnn is its own weights; .* 'cnn' with --weights"):
            call(WEIGHTS / "mnist-cnn.safetensors")


def test_weights_of_ones_own_go_with_the_extractor_cnn_and_are_checked_first(tmp_path):
    spec = SPECS["cnn"]
    with pytest.raises(GenbenchError, match="needs --weights FILE"):
        spec.require(None)
    with pytest.raises(GenbenchError, match="extractor cnn: no weights file"):
        spec.require(tmp_path / "none.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(GenbenchError, match="cannot be read"):
        spec.require(tmp_path / "junk.safetensors")
    spec.require(WEIGHTS / "mnist-cnn.safetensors")
    assert spec.load(CPU, WEIGHTS / "mnist-cnn.safetensors").digest == sidecar("mnist-cnn")["digest"]


def test_tampered_weights_are_refused(monkeypatch):
    monkeypatch.setattr(builtin, "_sidecar", lambda name: {"digest": "0" * 64})
    with pytest.raises(GenbenchError, match="not those that were published"):
        builtin._load_cnn(CPU, None, name="digits-cnn")
