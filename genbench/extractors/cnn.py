"""The in-domain extractor: one small CNN for every size, trained as a classifier of the dataset it judges; weights in safetensors."""

from __future__ import annotations

import contextlib
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


class Cnn(nn.Module):
    """(B, C, S, S) in [-1, 1] -> features (B, 128) and logits (B, K).

    3×3 convolutions with batch normalisation, halved until 4×4 remain and widened each time up to 128 channels (16, 32, 64, 128 from
    32×32; 64, 128 from 8×8), averaged over space and times one constant: these are the features. The constant makes their mean
    variance over the train split 1, so that a Fréchet distance does not depend on how large a training happened to make them. Two
    linear layers classify, so that the features need not collapse onto the class means as a last layer's do.
    """

    feature_scale: Tensor

    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        self.channels, self.size, self.num_classes = channels, size, num_classes
        halvings = max(1, round(math.log2(size / 4)))
        widths = [max(16, FEATURES >> (halvings - i)) for i in range(halvings + 1)]
        layers: list[nn.Module] = [*_convolution(channels, widths[0], 1)]
        for i in range(halvings):
            if i == halvings - 1:  # one more look at 8×8, where a convolution is cheap and sees most of a digit
                layers += _convolution(widths[i], widths[i], 1)
            layers += _convolution(widths[i], widths[i + 1], 2)
        self.convolutions = nn.Sequential(*layers)
        self.register_buffer("feature_scale", torch.ones(()))
        self.classify = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, num_classes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S, S) -> (B, 128), (B, K)."""
        pooled = self.convolutions(x).mean(dim=(2, 3))
        return pooled * self.feature_scale, self.classify(pooled)


class CnnExtractor:
    """A trained `Cnn` on its device, in float32: the `Extractor` of the harness."""

    def __init__(self, network: Cnn, digest: str, device: torch.device, name: str = "cnn") -> None:
        self.digest = digest
        self.name = name
        self._device = device
        self._network = network.to(device=device, dtype=torch.float32, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) uint8 -> features (B, 128) and logits (B, K), float32, on the device."""
        net = self._network
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (net.channels, net.size, net.size):
            raise GenbenchError(
                f"extractor {self.name} sees {net.channels}x{net.size}x{net.size} uint8 images,"
                f" not {'x'.join(map(str, images.shape[1:]))} {str(images.dtype).removeprefix('torch.')}"
            )
        with float32_inference(self._device):
            features, logits = net(to_signed(images.to(self._device)))
        return features, logits


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
            network = Cnn(header["channels"], header["size"], header["num_classes"])
        network.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()}, assign=True)
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise GenbenchError(f"extractor weights {path} do not fit genbench's CNN: {' '.join(str(error).split())[:200]}") from None
    return CnnExtractor(network, file_digest(path), device, name)


def read_header(path: Path) -> dict[str, Any]:
    """The architecture's arguments kept in the file: ``channels``, ``size``, ``num_classes``, ``dataset``."""
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


def _convolution(fan_in: int, fan_out: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU(inplace=True)]
