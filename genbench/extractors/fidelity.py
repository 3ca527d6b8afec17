"""InceptionV3, VGG-16, CLIP and DINOv2 as torch-fidelity has them: its resizing, its normalisation, its weights; never another's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.errors import GenbenchError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

OFFLINE = "GENBENCH_OFFLINE"
"""Environment variable: set to anything but 0, nothing is ever downloaded."""

_LAYERS = {
    "inception-v3-compat": ["2048", "logits_unbiased"],  # the inception score's logits lack the bias, as in the original graph
    "vgg16": ["fc2_relu"],
    "clip-vit-b-32": ["clip"],
    "dinov2-vit-b-14": ["dinov2"],
}
_HUB_FILES = {
    "inception-v3-compat": ["checkpoints/weights-inception-2015-12-05-6726825d.pth"],
    "vgg16": ["checkpoints/vgg16-397923af.pth"],
    "clip-vit-b-32": ["checkpoints/clip-vit-b-32-40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af.pt"],
    "dinov2-vit-b-14": ["facebookresearch_dinov2_main", "checkpoints/dinov2_vitb14_pretrain.pth"],
}
"""What torch-fidelity keeps in torch's hub folder."""
_URLS = {
    "inception-v3-compat": "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "clip-vit-b-32": "https://openaipublic.azureedge.net/clip/models/"
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    "dinov2-vit-b-14": "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
}
_MOST_AT_ONCE = 64
"""Images: at 299×299 and float32 a batch of 500 would need gigabytes."""


class FidelityExtractor:
    """A torch-fidelity network in float32 on its device: the `Extractor` of the harness."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        import torch

        self.digest = _state_digest(network)
        self._device = device
        # channels_last is 1.5 times as fast on a CPU and agrees to 3e-7
        self._network = network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, C, H, W) uint8, C 1 or 3 -> features (B, d) float32 and logits (B, 1008), None for all but Inception."""
        import torch

        from genbench.extractors.cnn import float32_inference

        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise GenbenchError(f"an extractor sees (B, 1 or 3, H, W) uint8 images, not {tuple(images.shape)} {images.dtype}")
        parts = []
        with float32_inference(self._device):
            for part in torch.split(images, _MOST_AT_ONCE):
                # one grey channel becomes three after quantisation
                parts.append(self._network(part.to(self._device).expand(-1, 3, -1, -1)))
        features, *logits = (torch.cat(layer) for layer in zip(*parts, strict=True))
        return features, logits[0] if logits else None


def load(device: torch.device, weights: Path | None, name: str) -> FidelityExtractor:
    """The network `name` with torch-fidelity's own weights, or with those of the file `weights`. Raises GenbenchError."""
    require(weights, name)
    return FidelityExtractor(_build(name, weights), device)


def require(weights: Path | None, name: str) -> None:
    """Make sure of the weights: a file given, or torch-fidelity's own, fetched where they are not yet. Raises GenbenchError."""
    if weights is not None:
        if name == "dinov2-vit-b-14":
            raise GenbenchError(f"extractor {name} comes from torch's hub as a whole: --weights cannot replace its weights")
        if not weights.is_file():
            raise GenbenchError(f"extractor {name}: no weights file {weights}")
    elif not cached(name):
        if os.environ.get(OFFLINE, "0") not in ("", "0"):
            raise _missing(name, f"{OFFLINE} is set")
        _build(name, None)


def cached(name: str) -> bool:
    """True where torch's hub folder holds the weights, so that nothing need be downloaded."""
    import torch

    hub = Path(torch.hub.get_dir())
    return all((hub / part).exists() for part in _HUB_FILES[name])


def _build(name: str, weights: Path | None) -> nn.Module:
    import torch

    from genbench.torchvision_shim import import_torchvision

    import_torchvision()
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    was_cached = weights is not None or cached(name)
    try:
        if weights is not None and name != "clip-vit-b-32":  # CLIP's is a TorchScript archive, which holds no pickled code
            # torch-fidelity unpickles anything: let it see only what holds tensors alone
            torch.load(weights, map_location="cpu", weights_only=True)
        # constructors initialise: not from the random stream of whoever trains here
        with _quiet(), torch.random.fork_rng(devices=[]):
            path = None if weights is None else str(weights)
            network: nn.Module = FEATURE_EXTRACTORS_REGISTRY[name](name, _LAYERS[name], feature_extractor_weights_path=path, verbose=False)
    except Exception as error:  # URLError, RuntimeError, UnpicklingError, KeyError, … of three libraries
        why = " ".join(str(error).split())[:200] or type(error).__name__
        if was_cached:
            where = weights or Path(torch.hub.get_dir()) / _HUB_FILES[name][-1]
            raise GenbenchError(f"extractor {name}: the weights in {where} are not the network's, or damaged: {why}") from None
        raise _missing(name, f"the download failed: {why}") from None
    return network


def _missing(name: str, why: str) -> GenbenchError:
    import torch

    place = Path(torch.hub.get_dir()) / _HUB_FILES[name][-1]
    other = "" if name == "dinov2-vit-b-14" else ", or pass --weights PATH"
    return GenbenchError(f"extractor {name}: its weights are not here ({why}); get {_URLS[name]} and save it as {place}{other}")


def _state_digest(network: nn.Module) -> str:
    """SHA-256 over the names, shapes and bytes of the state dict."""
    sha = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        array: Any = value.detach().cpu().contiguous().numpy()
        sha.update(f"{key} {array.shape} {array.dtype};".encode())
        sha.update(array.data if array.ndim else array.tobytes())
    return sha.hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Progress on stderr, since stdout belongs to --json; the libraries' own deprecations are not the user's business."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield
