"""How the in-domain CNNs are trained: ``genbench extractor train DATASET --out FILE`` runs this, and the shipped weights came from it.

Only the train split is learned from, and the last state is kept: no step is chosen by holdout or test.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from genbench.datasets import ImageData, Split
from genbench.datasets.prepare import digest
from genbench.errors import GenbenchError
from genbench.extractors.cnn import Cnn, CnnExtractor, file_digest, load_cnn, to_signed

_log = logging.getLogger(__name__)


def train_cnn(
    data: ImageData,
    out: Path,
    *,
    epochs: int | None = None,
    batch_size: int = 128,
    lr: float = 4e-3,
    weight_decay: float = 0.02,
    label_smoothing: float = 0.05,
    degrees: float = 10.0,
    scale: float = 0.1,
    shift: float = 0.08,
    noise: float = 0.15,
    seed: int = 0,
    device: torch.device | None = None,
    report: Callable[[int, int, float], None] = lambda epoch, epochs, loss: None,
) -> dict[str, Any]:
    """Train the CNN on `data.train`, write `out` (safetensors) and its sidecar ``.json``; returns what the sidecar says.

    AdamW under a one-cycle schedule, smoothed labels, bfloat16 autocast. Anew in every epoch each image is turned by up to `degrees`,
    scaled by up to `scale`, shifted by up to `shift` of its size, and gets Gaussian noise of a deviation of up to `noise` (on [-1, 1]:
    a network that never saw a grey background takes a faint one for the worst of faults). `epochs` defaults to 12, or to as many as
    make 2 000 steps.
    """
    if data.train.labels is None or not data.num_classes:
        raise GenbenchError(f"dataset {data.name!r} has no labels: an in-domain CNN is trained as a classifier")
    if not out.parent.is_dir():
        raise GenbenchError(f"the folder of {out} does not exist")
    device = torch.device("cpu") if device is None else device
    started = time.perf_counter()
    images = torch.from_numpy(data.train.images.copy()).to(device)
    labels = torch.from_numpy(data.train.labels.copy()).to(device)
    steps_per_epoch = max(1, len(images) // batch_size)
    epochs = max(12, math.ceil(2000 / steps_per_epoch)) if epochs is None else epochs
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Cnn(data.channels, data.size, data.num_classes).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps_per_epoch, pct_start=0.2)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator).to(device)
        loss = torch.zeros(())
        for step in range(steps_per_epoch):
            rows = order[step * batch_size : (step + 1) * batch_size]
            x = augment(to_signed(images[rows]), generator, degrees, scale, shift, noise)
            with torch.autocast(device.type, torch.bfloat16):
                _, logits = network(x)
            loss = F.cross_entropy(logits.float(), labels[rows], label_smoothing=label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        report(epoch + 1, epochs, float(loss.detach()))
    _scale_features(network, images)
    _save(network, out, data)
    extractor = load_cnn(out, device)
    recipe = {
        "command": f"genbench extractor train {data.name} --out {out.name}",
        "dataset": data.name, "channels": data.channels, "size": data.size,
        "num_classes": data.num_classes, "resize": data.resize, "epochs": epochs, "batch_size": batch_size, "lr": lr,
        "weight_decay": weight_decay, "label_smoothing": label_smoothing, "degrees": degrees, "scale": scale, "shift": shift,
        "noise": noise, "seed": seed,
    }  # fmt: skip
    said = {
        "recipe": recipe,
        "train_images": len(data.train),
        "train_digest": digest([data.train]),
        "test_accuracy": accuracy(extractor, data.test),
        "holdout_accuracy": accuracy(extractor, data.holdout),
        "test_images": len(data.test),
        "parameters": sum(p.numel() for p in network.parameters()),
        "digest": file_digest(out),
        "torch": torch.__version__.split("+")[0],
        "device": str(device),
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - started, 1),
    }
    out.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")
    return said


def accuracy(extractor: CnnExtractor, split: Split, batch_size: int = 500) -> float:
    """Share of the split's images, in [0, 1], whose largest logit is their label's."""
    if split.labels is None:
        raise GenbenchError("accuracy needs labels")
    right = 0
    for start in range(0, len(split), batch_size):
        _, logits = extractor(torch.from_numpy(split.images[start : start + batch_size].copy()))
        right += int((logits.argmax(1).cpu() == torch.from_numpy(split.labels[start : start + batch_size])).sum())
    return right / len(split)


def augment(x: Tensor, generator: torch.Generator, degrees: float, scale: float, shift: float, noise: float) -> Tensor:
    """(B, C, H, W) in [-1, 1] -> the same, each turned, scaled, shifted and made noisy at random; what comes in from outside is -1."""
    angle, factor, dx, dy, sigma = (torch.rand(5, len(x), generator=generator) * 2 - 1).to(x.device)
    angle = angle * math.radians(degrees)
    factor = 1 + factor * scale
    cos, sin = factor * angle.cos(), factor * angle.sin()
    # in affine_grid's coordinates the image is 2 wide
    theta = torch.stack([torch.stack([cos, -sin, 2 * shift * dx], 1), torch.stack([sin, cos, 2 * shift * dy], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    moved = F.grid_sample(x + 1, grid, align_corners=False) - 1
    added = torch.randn(x.shape, generator=generator).to(x.device) * (noise * sigma.abs())[:, None, None, None]
    result: Tensor = (moved + added).clamp(-1, 1)
    return result


def _scale_features(network: Cnn, images: Tensor, batch_size: int = 500) -> None:
    """Set the constant that makes the mean variance of the features over `images` (N, C, H, W) uint8 one."""
    network.eval()
    with torch.inference_mode():
        features = torch.cat([network(to_signed(part))[0] for part in torch.split(images, batch_size)])
        network.feature_scale.copy_(features.double().var(dim=0).mean().rsqrt())


def _save(network: Cnn, out: Path, data: ImageData) -> None:
    header = {"channels": data.channels, "size": data.size, "num_classes": data.num_classes, "dataset": data.name}
    state = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
    save_file(state, out, metadata={"genbench": json.dumps(header)})
