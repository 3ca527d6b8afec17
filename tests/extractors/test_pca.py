import hashlib

import numpy as np
import pytest
import torch

from genbench.datasets import DatasetSpec, Split
from genbench.errors import GenbenchError
from genbench.extractors import pca
from genbench.extractors.builtin import builtin_extractors
from genbench.reference import Reference
from genbench.score import Scorer

CPU = torch.device("cpu")
SPEC = next(spec for spec in builtin_extractors() if spec.name == "pixels-pca")


def images(n=400, shape=(1, 6, 6), seed=0):
    """uint8 images that vary in a few directions much more than in others."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    mixed = rng.normal(size=(n, size)) * np.linspace(30, 1, size) @ np.linalg.qr(np.random.default_rng(9).normal(size=(size, size)))[0]
    return np.clip(mixed + 120, 0, 255).astype(np.uint8).reshape(n, *shape)


def test_features_are_the_principal_components_numpy_finds():
    train, new = images(), images(50, seed=1)
    x = train.reshape(400, -1).astype(float)
    _, singular, basis = np.linalg.svd(x - x.mean(0), full_matrices=False)
    variances = singular**2 / 399
    expected = (new.reshape(50, -1) - x.mean(0)) @ basis.T / np.sqrt(variances.mean())
    features, logits = pca.fit(CPU, train)(torch.from_numpy(new))
    assert logits is None
    assert features.dtype == torch.float32
    np.testing.assert_allclose(np.abs(features.numpy()), np.abs(expected), atol=1e-5)
    seen = pca.fit(CPU, train)(torch.from_numpy(train))[0].double()
    covariance = np.cov(seen.numpy().T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6)
    assert (np.diff(np.diag(covariance)) < 0).all()  # the leading one first
    assert seen.var(dim=0).mean().item() == pytest.approx(1, abs=1e-6)


def test_only_the_leading_64_and_none_that_is_constant():
    assert pca.fit(CPU, images(300, (3, 6, 6))).components.shape == (108, 64)
    bordered = np.zeros((300, 1, 8, 8), np.uint8)
    bordered[:, :, 1:7, 1:7] = images(300)
    extractor = pca.fit(CPU, bordered)
    assert extractor.components.shape == (64, 36)
    assert pca.fit(CPU, images(20)).components.shape == (36, 19)
    with pytest.raises(GenbenchError, match="all the same"):
        pca.fit(CPU, np.full((5, 1, 4, 4), 9, np.uint8))
    with pytest.raises(GenbenchError, match="2 images or more, not on 1"):
        pca.fit(CPU, images(1))


def test_the_digest_is_of_exact_sums_whatever_the_order_and_changes_with_one_pixel(monkeypatch):
    train = images()
    x = train.reshape(400, -1).astype(np.int64)
    digest = hashlib.sha256(
        b"pixels-pca 400 (1, 6, 6) 36;" + x.sum(0).astype("<i8").tobytes() + (x.T @ x).astype("<i8").tobytes()
    ).hexdigest()
    assert pca.fit(CPU, train).digest == digest == pca.fit(CPU, train[::-1]).digest
    monkeypatch.setattr(pca, "_CHUNK", 7)
    assert pca.fit(CPU, train).digest == digest
    train[399, 0, 5, 5] ^= 1
    assert pca.fit(CPU, train).digest != digest


def test_large_images_are_area_reduced_and_others_are_refused():
    small = images(60, (1, 32, 32))
    large = np.repeat(np.repeat(small, 2, axis=2), 2, axis=3)
    extractor = pca.fit(CPU, large)
    assert extractor.components.shape[0] == 32 * 32
    found, expected = extractor(torch.from_numpy(large))[0], pca.fit(CPU, small)(torch.from_numpy(small))[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for wrong in (small, large.astype(np.float32)):
        with pytest.raises(GenbenchError, match=r"fitted on uint8 images of \(1, 64, 64\), not"):
            extractor(torch.from_numpy(wrong))


def test_the_scorer_fits_it_on_train_or_on_the_reference_where_there_is_no_train():
    train, test = images(200, seed=1), images(90, seed=2)
    splits = {"train": Split(train, None), "test": Split(test, None)}
    spec = DatasetSpec("made", lambda root: {}, 1, 6)
    for parts, fitted_on in ((splits, train), ({"test": splits["test"]}, test)):
        scorer = Scorer(Reference("made", spec, "test", parts, f"digest {len(parts)}"), SPEC, [], device=CPU)
        assert scorer.extractor.digest == pca.fit(CPU, fitted_on).digest
        assert scorer.extractor is scorer.extractor
        assert not scorer.labels_named
        np.testing.assert_array_equal(scorer._splits["test"].features, pca.fit(CPU, fitted_on)(torch.from_numpy(test))[0].numpy())


def test_it_takes_no_weights(tmp_path):
    SPEC.require(None)
    with pytest.raises(GenbenchError, match="takes no --weights"):
        SPEC.require(tmp_path / "any")
    with pytest.raises(GenbenchError, match="fitted on the images of a reference"):
        SPEC.load(CPU, None)
