"""InceptionV3, VGG-16, CLIP and DINOv2 as torch-fidelity has them: its resizing, its normalisation, its weights; never another's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.errors import GenbenchError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

OFFLINE = "GENBENCH_OFFLINE"
"""Environment variable: set to anything but 0, nothing is ever downloaded."""


@dataclass(frozen=True)
class Network:
    """A network of torch-fidelity's registry."""

    name: str
    dim: int
    description: str
    url: str
    """Of its weights."""
    file: str
    """Theirs, in torch's hub folder."""
    layers: tuple[str, ...]
    """Features, then logits where there are any."""
    num_classes: int = 0
    sees: tuple[int, int] | None = None
    """CLIP: pixels of a side, and of its first kernel's; with `dim` they tell one of its networks from another."""

    @property
    def takes_weights(self) -> bool:
        """False where torch-fidelity knows the network only as a whole, code and weights, from torch's hub."""
        return not self.name.startswith("dinov2")


def _clip(name: str, dim: int, what: str, pixels: int, kernel: int, sha: str, file: str) -> Network:
    url = f"https://openaipublic.azureedge.net/clip/models/{sha}/{file}.pt"
    description = f"CLIP {what} image embedding through torch-fidelity"
    return Network(name, dim, description, url, f"checkpoints/{name}-{sha}.pt", ("clip",), sees=(pixels, kernel))


def _dinov2(letter: str, dim: int) -> Network:
    file = f"dinov2_vit{letter}14_pretrain.pth"
    return Network(
        f"dinov2-vit-{letter}-14", dim, f"DINOv2 ViT-{letter.upper()}/14 class token through torch-fidelity",
        f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{letter}14/{file}", f"checkpoints/{file}", ("dinov2",),
    )  # fmt: skip


_INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
NETWORKS = {
    network.name: network
    for network in (
        Network(
            "inception-v3-compat", 2048, "InceptionV3 of the FID paper as torch-fidelity ships it; ImageNet logits",
            f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_INCEPTION}", f"checkpoints/{_INCEPTION}",
            ("2048", "logits_unbiased"), 1008,  # the inception score's logits lack the bias, as in the original graph
        ),
        Network(
            "vgg16", 4096, "VGG-16's second fully connected layer, after its ReLU, through torch-fidelity",
            "https://download.pytorch.org/models/vgg16-397923af.pth", "checkpoints/vgg16-397923af.pth", ("fc2_relu",),
        ),
        _clip("clip-vit-b-32", 512, "ViT-B/32", 224, 32, "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", "ViT-B-32"),
        _clip("clip-vit-b-16", 512, "ViT-B/16", 224, 16, "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", "ViT-B-16"),
        _clip("clip-vit-l-14", 768, "ViT-L/14", 224, 14, "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "ViT-L-14"),
        _clip(
            "clip-vit-l-14-336px", 768, "ViT-L/14 at 336×336", 336, 14,
            "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02", "ViT-L-14-336px",
        ),
        _clip("clip-rn50", 1024, "ResNet-50", 224, 3, "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762", "RN50"),
        _clip("clip-rn101", 512, "ResNet-101", 224, 3, "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599", "RN101"),
        _clip("clip-rn50x4", 640, "ResNet-50x4", 288, 3, "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd", "RN50x4"),
        _clip("clip-rn50x16", 768, "ResNet-50x16", 384, 3, "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa", "RN50x16"),
        _clip("clip-rn50x64", 1024, "ResNet-50x64", 448, 3, "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c", "RN50x64"),
        _dinov2("s", 384),
        _dinov2("b", 768),
        _dinov2("l", 1024),
        _dinov2("g", 1536),
    )
}  # fmt: skip
_DINOV2_CODE = "facebookresearch_dinov2_main"
"""Folder of the network's code in torch's hub folder."""
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
                parts.append(self._network(to_rgb(part.to(self._device))))
        features, *logits = (torch.cat(layer) for layer in zip(*parts, strict=True))
        return features, logits[0] if logits else None


def to_rgb(images: Tensor) -> Tensor:
    """(B, 1 or 3, H, W) uint8 -> (B, 3, H, W): one grey channel becomes three, after quantisation."""
    return images.expand(-1, 3, -1, -1)


def load(device: torch.device, weights: Path | None, name: str) -> FidelityExtractor:
    """The network `name` with torch-fidelity's own weights, or with those of the file `weights`. Raises GenbenchError."""
    require(weights, name)
    return FidelityExtractor(_build(name, weights), device)


def require(weights: Path | None, name: str) -> None:
    """Make sure of the weights: a file given, or torch-fidelity's own, fetched where they are not yet. Raises GenbenchError."""
    if weights is not None:
        if not NETWORKS[name].takes_weights:
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

    hub, network = Path(torch.hub.get_dir()), NETWORKS[name]
    return (hub / network.file).exists() and (network.takes_weights or (hub / _DINOV2_CODE).exists())


def _build(name: str, weights: Path | None) -> nn.Module:
    import torch

    from genbench.torchvision_shim import import_torchvision

    import_torchvision()
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    was_cached = weights is not None or cached(name)
    try:
        if weights is not None and NETWORKS[name].sees is None:  # CLIP's is a TorchScript archive, which holds no pickled code
            # torch-fidelity unpickles anything: let it see only what holds tensors alone
            torch.load(weights, map_location="cpu", weights_only=True)
        # constructors initialise: not from the random stream of whoever trains here
        with _quiet(), torch.random.fork_rng(devices=[]):
            path = None if weights is None else str(weights)
            network: nn.Module = FEATURE_EXTRACTORS_REGISTRY[name](
                name, list(NETWORKS[name].layers), feature_extractor_weights_path=path, verbose=False
            )  # fmt: skip
        _check_clip(network, NETWORKS[name])
    except Exception as error:  # URLError, RuntimeError, UnpicklingError, KeyError, … of three libraries
        why = " ".join(str(error).split())[:200] or type(error).__name__
        if was_cached:
            where = weights or Path(torch.hub.get_dir()) / NETWORKS[name].file
            raise GenbenchError(f"extractor {name}: the weights in {where} are not the network's, or damaged: {why}") from None
        raise _missing(name, f"the download failed: {why}") from None
    return network


def _check_clip(network: Any, asked: Network) -> None:
    """torch-fidelity builds whichever CLIP network a file holds. Raises ValueError where it is another than was asked for."""
    if asked.sees is None:
        return
    visual = network.model.visual
    found = (visual.output_dim, int(network.resolution), int(visual.conv1.kernel_size[0]))
    if found != (asked.dim, *asked.sees):
        raise ValueError(f"embedding, pixels and first kernel are {found}, not {(asked.dim, *asked.sees)}")


def _missing(name: str, why: str) -> GenbenchError:
    import torch

    place = Path(torch.hub.get_dir()) / NETWORKS[name].file
    other = ", or pass --weights PATH" if NETWORKS[name].takes_weights else ""
    return GenbenchError(f"extractor {name}: its weights are not here ({why}); get {NETWORKS[name].url} and save it as {place}{other}")


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
