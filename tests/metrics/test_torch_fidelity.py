"""Equal to torch-fidelity on the same features, and on the same images and weights, wherever both define the same thing."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genbench.datasets.prepare import prepare
from genbench.extractors.builtin import builtin_extractors
from genbench.metrics import fid, inception_score, kid, pairs, prdc
from genbench.metrics.builtin import builtin_metrics
from genbench.reference import split_of
from genbench.score import Scorer
from genbench.torchvision_shim import import_torchvision
from genbench.view import View, extract

import_torchvision()
torch_fidelity = pytest.importorskip("torch_fidelity")
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc  # noqa: E402


@pytest.fixture(scope="module")
def features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((24, 24)) / 5
    real = rng.standard_normal((700, 24)) @ mix
    fake = rng.standard_normal((700, 24)) @ mix * 0.9 + 0.1
    return real.astype(np.float32), fake.astype(np.float32)


def test_fid(features: tuple[np.ndarray, np.ndarray]) -> None:
    real, fake = features
    theirs = metric_fid.fid_statistics_to_metric(
        *(metric_fid.fid_features_to_statistics(torch.from_numpy(x.astype(np.float64))) for x in (fake, real)), verbose=False
    )
    ours = fid.frechet(*fid.moments([fake])[:2], *fid.moments([real])[:2])
    assert ours == pytest.approx(theirs["frechet_inception_distance"], abs=1e-9)


def test_kid_on_the_same_subsets(features: tuple[np.ndarray, np.ndarray]) -> None:
    real, fake = features
    theirs = metric_kid.kid_features_to_metric(
        torch.from_numpy(fake).double(), torch.from_numpy(real).double(), kid_subsets=5, kid_subset_size=200, rng_seed=7, verbose=False
    )
    rng = np.random.RandomState(7)
    draws = [(rng.choice(700, 200, replace=False), rng.choice(700, 200, replace=False)) for _ in range(5)]
    ours = [kid.mmd2(fake[f], real[r]) for f, r in draws]
    assert np.mean(ours) == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-12)
    assert np.std(ours) == pytest.approx(theirs["kernel_inception_distance_std"], abs=1e-12)
    # other subsets of the same size: the same quantity within its spread
    mean, spread = kid.kid(real, fake, seed=1, subsets=50, size=200)
    assert abs(mean - np.mean(ours)) < 3 * spread
    assert spread > 0


def test_inception_score(features: tuple[np.ndarray, np.ndarray]) -> None:
    logits = 3 * features[0][:, :10]
    theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=False)
    assert inception_score.score_in_order(logits, 10) == pytest.approx(
        (theirs["inception_score_mean"], theirs["inception_score_std"]), abs=1e-12
    )  # fmt: skip


def test_precision_and_recall(features: tuple[np.ndarray, np.ndarray]) -> None:
    real, fake = features
    theirs = metric_prc.prc_features_to_metric(
        torch.from_numpy(fake).double(), torch.from_numpy(real).double(), prc_neighborhood=3, verbose=False, save_cpu_ram=False
    )
    ours = prdc.prdc(real, fake)
    assert theirs["precision"] != theirs["recall"]
    assert ours.precision == pytest.approx(theirs["precision"], abs=1e-7)  # their mean is float32
    assert ours.recall == pytest.approx(theirs["recall"], abs=1e-7)


# The whole path: identical images through identical weights into both programs -------------------------------------------

CPU = torch.device("cpu")
BATCH = 250
"""Both programs see the same batches: another batch size moves the last digits of float32 features."""


class Images(torch.utils.data.Dataset):
    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.images[i]


def calculated(fake: np.ndarray, real: np.ndarray, extractor: str, **options: Any) -> dict[str, float]:
    """torch-fidelity's `calculate_metrics`, all of it, in this process and without its cache (which goes by name alone)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_fidelity.calculate_metrics(
            input1=Images(fake), input2=Images(real), feature_extractor=extractor, isc=True, fid=True, kid=True, prc=True, cuda=False,
            cache=False, save_cpu_ram=True, verbose=False, batch_size=BATCH, **options,
        )  # fmt: skip


def register_digits_cnn(network: Any) -> None:
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class DigitsCnn(FeatureExtractorBase):
        """Widened to float64 after the network: torch-fidelity would take the mean of float32 features in float32 (FID off by 3e-6)."""

        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            seen = dict(zip(("features", "logits"), network(images), strict=True))
            return tuple(seen[name].double() for name in self.features_list)

    torch_fidelity.register_feature_extractor("digits-cnn", DigitsCnn)


@pytest.fixture(scope="module")
def digits() -> tuple[Scorer, np.ndarray, np.ndarray, View, View]:
    """A scorer of digits; 300 generated and 300 real images (too bright, a third of the classes gone); what its CNN sees in them."""
    data = prepare("digits", 8)
    spec = next(spec for spec in builtin_extractors() if spec.name == "digits-cnn")
    metrics = [metric for metric in builtin_metrics() if metric.name in ("fid", "kid", "is", "prdc")]
    scorer = Scorer(split_of(data), spec, metrics, device=CPU)
    real = np.ascontiguousarray(data.test.images)
    fake = np.minimum(data.train.images[data.train.labels < 7][: len(real)].astype(np.int64) + 30, 255).astype(np.uint8)
    register_digits_cnn(scorer.extractor)
    return scorer, fake, real, *(View(lambda x: extract(scorer.extractor, x, CPU), x, None) for x in (fake, real))


def test_digits_through_our_cnn_score_the_same_in_both_programs(digits: Any) -> None:
    scorer, fake, real, seen_fake, seen_real = digits
    n, subsets, size = len(real), 20, 100
    theirs = calculated(fake, real, "digits-cnn", kid_subsets=subsets, kid_subset_size=size)
    ours = {score.name: score.value for score in scorer.score(fake, seed=0)}
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    # theirs are means in float32, of 300 zeros and ones
    assert theirs["precision"] != theirs["recall"]
    assert ours["precision"] == pytest.approx(theirs["precision"], abs=1e-7)
    assert ours["recall"] == pytest.approx(theirs["recall"], abs=1e-7)
    # IS and KID depend on a permutation and on subsets: theirs, in our functions
    order = np.random.RandomState(2020).permutation(n)
    score = inception_score.score_in_order(seen_fake.logits[order], 10)
    assert score == pytest.approx((theirs["inception_score_mean"], theirs["inception_score_std"]), rel=1e-6)
    rng = np.random.RandomState(2020)
    drawn = [(rng.choice(n, size, replace=False), rng.choice(n, size, replace=False)) for _ in range(subsets)]
    of_fake, of_real = (pairs.members([pair[i] for pair in drawn], n) for i in range(2))
    values = pairs.unbiased(
        pairs.within(seen_fake.features, subsets=of_fake).kernel,
        pairs.within(seen_real.features, subsets=of_real).kernel,
        pairs.across(seen_fake.features, seen_real.features, subsets=(of_fake, of_real)).kernel,
        size,
    )
    # theirs are float32 sums, whose rounding depends on the processor: up to 5e-7 was seen
    assert values.mean() == pytest.approx(theirs["kernel_inception_distance_mean"], abs=5e-6)
    assert values.std() == pytest.approx(theirs["kernel_inception_distance_std"], abs=5e-6)
    # ours are other draws of the same two quantities
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=0.1)
    assert ours["is"] == pytest.approx(theirs["inception_score_mean"], rel=0.05)


def test_a_set_is_at_distance_0_of_itself(digits: Any) -> None:
    # Of 60 images in 128 dimensions 69 eigenvalues are 0. Theirs are of a product of covariances, off by about ε·|S|², and each
    # square root by √ε·|S|; ours are singular values of a product of factors, off by ε·|S|.
    fake, seen = digits[1][:60], digits[3].some(np.arange(60))
    theirs = calculated(fake, fake, "digits-cnn", kid_subset_size=50, kid_subsets=2)["frechet_inception_distance"]
    ours = fid.frechet(*seen.moments[:2], *seen.moments[:2])
    assert abs(ours) <= 1e-9
    assert abs(theirs) > 100 * abs(ours)


def test_random_inception_weights_by_path_score_the_same_in_both_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = random_inception(tmp_path / "inception.pth", monkeypatch)
    rng = np.random.default_rng(0)
    n = 14
    real = np.repeat(np.repeat(rng.integers(0, 256, (n, 3, 4, 4)), 8, axis=2), 8, axis=3).astype(np.uint8)
    fake = np.roll(real, 3, axis=2) // 2 + rng.integers(0, 90, real.shape).astype(np.uint8)
    theirs = calculated(
        fake, real, "inception-v3-compat", feature_layer_prc="2048", feature_extractor_weights_path=str(path), isc_splits=2,
        kid_subsets=3, kid_subset_size=8,
    )  # fmt: skip
    spec = next(spec for spec in builtin_extractors() if spec.name == "inception-v3-compat")
    network = spec.load(CPU, path)
    seen_fake, seen_real = (View(lambda x: extract(network, x, CPU), x, None) for x in (fake, real))
    ours = fid.frechet(*seen_fake.moments[:2], *seen_real.moments[:2])
    # 14 images in 2048 dimensions: 2035 of their eigenvalues are rounding, of which the positive ones add up (see above);
    # up to 7e-7 was seen, by processor
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    order = np.random.RandomState(2020).permutation(n)
    assert inception_score.score_in_order(seen_fake.logits[order], 2)[0] == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    rng = np.random.RandomState(2020)
    drawn = [(rng.choice(n, 8, replace=False), rng.choice(n, 8, replace=False)) for _ in range(3)]
    values = [kid.mmd2(seen_fake.features[f], seen_real.features[r]) for f, r in drawn]
    assert np.mean(values) == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-6)
    found = prdc.prdc(seen_real.features, seen_fake.features)
    assert (found.precision, found.recall) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-7)


def random_inception(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state dict of torch-fidelity's InceptionV3 with seeded random weights."""
    import torch_fidelity.feature_extractor_inceptionv3 as module

    with monkeypatch.context() as patch, torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * (2 / layer.weight[0].numel()) ** 0.5
        elif isinstance(layer, torch.nn.Linear):
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * layer.weight[0].numel() ** -0.5
    torch.save(network.state_dict(), path)
    return path
