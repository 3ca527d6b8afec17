"""The in-domain extractors: small CNNs for every size, trained as classifiers of the dataset they judge; weights in safetensors."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from genbench.errors import GenbenchError

FEATURES = 128
"""Of the network for drawings."""
PHOTO_FEATURES = 256
"""Of the network for photographs."""
MOST_AT_ONCE = 64
"""Images in one pass on a CPU: their activations stay in its cache."""


class Cnn(nn.Module):
    """(B, C, S, S) in [-1, 1] -> features (B, d) and logits (B, K); d is 128, or 256 where `photos`.

    3×3 convolutions with batch normalisation, halved until 4×4 remain and widened each time up to d channels (`drawing_layers`,
    `photo_layers`), averaged over space and times one constant: these are the features. The constant makes their mean variance over
    the train split 1, so that a Fréchet distance does not depend on how large a training happened to make them. Two linear layers
    classify, so that the features need not collapse onto the class means as a last layer's do.
    """

    feature_scale: Tensor

    def __init__(self, channels: int, size: int, num_classes: int, photos: bool = False) -> None:
        super().__init__()
        self.channels, self.size, self.num_classes, self.photos = channels, size, num_classes, photos
        width = PHOTO_FEATURES if photos else FEATURES
        self.convolutions = photo_layers(channels, size) if photos else drawing_layers(channels, size)
        self.register_buffer("feature_scale", torch.ones(()))
        self.classify = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, num_classes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S, S) -> (B, d), (B, K)."""
        pooled = self.convolutions(x).mean(dim=(2, 3))
        return pooled * self.feature_scale, self.classify(pooled)


class Residual(nn.Module):
    """x + two convolutions of x. He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385, eq. 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.branch = nn.Sequential(*_convolution(width, width, 1), *_convolution(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, w, H, W) -> the same shape."""
        added: Tensor = x + self.branch(x)
        return added


def drawing_layers(channels: int, size: int) -> nn.Sequential:
    """For digits and the like: 16, 32, 64, 128 channels from 32×32; 64, 128 from 8×8."""
    halvings = _halvings(size)
    widths = [max(16, FEATURES >> (halvings - i)) for i in range(halvings + 1)]
    layers: list[nn.Module] = [*_convolution(channels, widths[0], 1)]
    for i in range(halvings):
        if i == halvings - 1:  # one more look at 8×8, where a convolution is cheap and sees most of a digit
            layers += _convolution(widths[i], widths[i], 1)
        layers += _convolution(widths[i], widths[i + 1], 2)
    return nn.Sequential(*layers)


def photo_layers(channels: int, size: int) -> nn.Sequential:
    """For photographs: 32, 64, 128, 256 channels from 32×32, a residual block at every size between the first and the last."""
    halvings = _halvings(size)
    widths = [max(32, PHOTO_FEATURES >> (halvings - i)) for i in range(halvings + 1)]
    layers: list[nn.Module] = [*_convolution(channels, widths[0], 1)]
    for i in range(halvings):
        layers += _convolution(widths[i], widths[i + 1], 2)
        layers += [Residual(widths[i + 1])] if i < halvings - 1 else _convolution(widths[-1], widths[-1], 1)
    return nn.Sequential(*layers)


class CnnExtractor:
    """A trained `Cnn` on its device, in float32: the `Extractor` of the harness."""

    def __init__(self, network: Cnn, digest: str, device: torch.device, name: str = "cnn") -> None:
        self.digest = digest
        self.name = name
        self._device = device
        self._seen = (network.channels, network.size, network.size)
        self._convolutions = _float32(folded(network.convolutions), device)
        self._classify = _float32(copy.deepcopy(network.classify), device)
        self._scale = network.feature_scale.to(device, torch.float32)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) uint8 -> features (B, d) and logits (B, K), float32, on the device."""
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self._seen:
            raise GenbenchError(
                f"extractor {self.name} sees {'x'.join(map(str, self._seen))} uint8 images,"
                f" not {'x'.join(map(str, images.shape[1:]))} {str(images.dtype).removeprefix('torch.')}"
            )
        parts = torch.split(images, MOST_AT_ONCE) if self._device.type == "cpu" else [images]
        with float32_inference(self._device):
            pooled = torch.cat([self._convolutions(to_signed(part.to(self._device))).mean(dim=(2, 3)) for part in parts])
            return pooled * self._scale, self._classify(pooled)


def folded(layers: nn.Sequential) -> nn.Sequential:
    """Convolutions and batch normalisations in eval mode -> convolutions that do both at once, their constants computed in float64."""
    found: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d) and found and isinstance(found[-1], nn.Conv2d):
            found[-1] = _folded_pair(found[-1], layer)
        elif isinstance(layer, Residual):
            with torch.device("meta"):
                block = Residual(layer.width)
            block.branch = folded(layer.branch)
            found.append(block)
        else:
            found.append(layer)
    return nn.Sequential(*found)


def _folded_pair(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    gain = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    with torch.device("meta"):  # no initialisation: it would draw from the caller's random stream
        both = nn.Conv2d(convolution.in_channels, convolution.out_channels, 3, convolution.stride, 1)  # type: ignore[arg-type]
    both.weight = nn.Parameter((convolution.weight.double() * gain[:, None, None, None]).float())
    both.bias = nn.Parameter((norm.bias.double() - mean.double() * gain).float())
    return both


def _float32(layers: nn.Module, device: torch.device) -> nn.Module:
    made: nn.Module = layers.to(device=device, dtype=torch.float32, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made.eval().requires_grad_(False)


@contextlib.contextmanager
def float32_inference(device: torch.device) -> Iterator[None]:
    """Reported scores are float32 whatever precision the model trains in: neither autocast nor cuDNN's TF32, which it prefers unasked."""
    with torch.inference_mode(), torch.autocast(device.type, enabled=False), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def to_signed(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], channels last."""
    return images.to(torch.float32, memory_format=torch.channels_last).mul_(2 / 255).sub_(1)


def load_cnn(path: Path, device: torch.device, name: str = "cnn") -> CnnExtractor:
    """A file written by `genbench extractor train` -> the extractor. Raises GenbenchError where it is no such file or damaged."""
    header = read_header(path)
    try:
        state = {key: value.clone() for key, value in load_file(path).items()}  # what is loaded aliases the file
        with torch.device("meta"):  # no initialisation: it would draw from the random stream of whoever trains here
            network = Cnn(header["channels"], header["size"], header["num_classes"], header.get("photos", False))
        network.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()}, assign=True)
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise GenbenchError(f"extractor weights {path} do not fit genbench's CNN: {' '.join(str(error).split())[:200]}") from None
    return CnnExtractor(network, file_digest(path), device, name)


def read_header(path: Path) -> dict[str, Any]:
    """The architecture's arguments kept in the file: ``channels``, ``size``, ``num_classes``, ``photos``, ``dataset``."""
    try:
        with safe_open(path, framework="pt") as file:
            found: dict[str, Any] = json.loads((file.metadata() or {})["genbench"])
    except KeyError:
        raise GenbenchError(f"extractor weights {path} were not written by genbench extractor train") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise GenbenchError(f"extractor weights {path} cannot be read: {error}") from None
    return found


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _halvings(size: int) -> int:
    """From `size` to 4×4, or near it."""
    return max(1, round(math.log2(size / 4)))


def _convolution(fan_in: int, fan_out: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU(inplace=True)]
