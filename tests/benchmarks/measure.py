"""One measurement in a process of its own: ``python measure.py WHAT WHO [IMAGES.npz]`` prints seconds, peak bytes and values as JSON.

The peak is that of the whole process less what it was after the imports, the data and a first batch through the network.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genbench.datasets import Split
from genbench.extractors.builtin import builtin_extractors
from genbench.kept import Kept
from genbench.metrics import Evidence, fid, inception_score, kid, pairs, prdc
from genbench.torchvision_shim import import_torchvision
from genbench.view import SplitView, View, extract

import_torchvision()
warnings.simplefilter("ignore")  # torch-fidelity's four workers on two cores, and the like
import torch_fidelity  # noqa: E402
from torch_fidelity import metric_fid, metric_kid, metric_prc  # noqa: E402
from torch_fidelity.feature_extractor_base import FeatureExtractorBase  # noqa: E402

Values = dict[str, float]
CPU = torch.device("cpu")


def peak_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


# IS + FID + KID + precision and recall of images through mnist-cnn ---------------------------------------------------------


def load_cnn() -> Any:
    return next(spec for spec in builtin_extractors() if spec.name == "mnist-cnn").load(CPU, None)


def suite_of_genbench(cnn: Any, fake: np.ndarray, real: np.ndarray, kept: Kept) -> Values:
    def see(images: np.ndarray) -> Any:
        return extract(cnn, images, CPU)

    shared: dict[str, Any] = {}

    def share(key: str, compute: Callable[[int], Any]) -> Any:
        if key not in shared:
            shared[key] = compute(0)
        return shared[key]

    reference = SplitView(see, Split(real, None), lambda what, compute: kept.get({"what": what}, compute), buffered=True)
    generated = View(see, fake, None)
    evidence = Evidence(
        fake=generated, real=reference, second=reference, reference="test", seed=0, labels_named=False, metrics=("kid", "prdc"),
        remember=lambda key, compute: kept.get({"key": key}, compute), share=share,
    )  # fmt: skip
    found = {m.name: m.value for metric in (inception_score, kid, prdc) for m in metric.compute(evidence)}
    return found | {"fid": fid.frechet(*generated.moments[:2], *reference.moments[:2])}


class Registered(FeatureExtractorBase):
    """mnist-cnn as torch-fidelity wants it."""

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        self.cnn = load_cnn()

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
        seen = dict(zip(("features", "logits"), self.cnn(images), strict=True))
        return tuple(seen[name] for name in self.features_list)


class Images(torch.utils.data.Dataset):
    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.images[i]


def suite_of_torch_fidelity(fake: np.ndarray, real: np.ndarray, **options: Any) -> Values:
    return torch_fidelity.calculate_metrics(
        input1=Images(fake), input2=Images(real), isc=True, fid=True, kid=True, prc=True, feature_extractor="mnist-cnn", cuda=False,
        verbose=False, **options,
    )  # fmt: skip


def suite(who: str, path: str) -> Callable[[], Values]:
    with np.load(path) as stored:
        real, fake, other = stored["real"], stored["fake"], stored["other"]
    cnn = load_cnn()
    cnn(torch.from_numpy(real[:64]))
    torch_fidelity.register_feature_extractor("mnist-cnn", Registered)
    kept = Kept(None)
    if who == "genbench, warm":
        suite_of_genbench(cnn, other, real, kept)
    if who.startswith("genbench"):
        return lambda: suite_of_genbench(cnn, fake, real, kept)
    if who == "torch-fidelity":
        return lambda: suite_of_torch_fidelity(fake, real)
    folder = tempfile.mkdtemp()  # its cache knows images by a name that the caller must never give to others
    suite_of_torch_fidelity(other, real, input2_cache_name="real", cache_root=folder)
    return lambda: suite_of_torch_fidelity(fake, real, input2_cache_name="real", cache_root=folder)


# From 2048 features -------------------------------------------------------------------------------------------------------


def features(n: int = 10_000, d: int = 2048) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scale = np.geomspace(0.05, 1, d, dtype=np.float32)
    real, fake = (np.abs(rng.standard_normal((n, d), dtype=np.float32) * scale * k) for k in (1.0, 1.02))
    return real, fake


def pairs_2048(who: str) -> Callable[[], Values]:
    real, fake = features()
    x, y = torch.from_numpy(real), torch.from_numpy(fake)

    def genbench() -> Values:
        rng = np.random.default_rng(0)
        of_real, of_fake = (pairs.members([rng.choice(len(z), 1000, replace=False) for _ in range(100)], len(z)) for z in (real, fake))
        r, f = pairs.within(real, k=5, subsets=of_real), pairs.within(fake, k=3, subsets=of_fake)
        between = pairs.across(real, fake, balls=pairs.Balls(r.radii[2], r.radii[4], f.radii[2]), subsets=(of_real, of_fake))
        values = pairs.unbiased(r.kernel, f.kernel, between.kernel, 1000)
        return {"kid": float(values.mean()), "precision": float(between.inside.mean()), "recall": float(between.recalled.mean())}

    def theirs() -> Values:
        kernel = metric_kid.kid_features_to_metric(y, x, verbose=False)
        return {"kid": kernel["kernel_inception_distance_mean"]} | metric_prc.prc_features_to_metric(y, x, verbose=False)

    return genbench if who == "genbench" else theirs


def fid_2048(who: str) -> Callable[[], Values]:
    real, fake = features()

    def genbench() -> Values:
        return {"fid": fid.frechet(*fid.moments([fake])[:2], *fid.moments([real])[:2])}

    def theirs() -> Values:
        statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(z)) for z in (fake, real)]
        return {"fid": metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]}

    def pytorch_fid() -> Values:
        from pytorch_fid.fid_score import calculate_frechet_distance

        moments = [moment for z in (fake, real) for moment in (z.mean(axis=0), np.cov(z, rowvar=False))]
        return {"fid": float(calculate_frechet_distance(*moments))}

    return {"genbench": genbench, "torch-fidelity": theirs, "pytorch-fid": pytorch_fid}[who]


if __name__ == "__main__":
    what, who, *rest = sys.argv[1:]
    work = {"suite": suite, "pairs": pairs_2048, "fid": fid_2048}[what](who, *rest)
    before, start = peak_bytes(), time.perf_counter()
    values = work()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "bytes": peak_bytes() - before, "values": {k: float(v) for k, v in values.items()}}))
