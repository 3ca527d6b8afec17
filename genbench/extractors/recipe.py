"""How the in-domain CNNs are trained: ``genbench extractor train DATASET --out FILE`` runs this, and the shipped weights came from it.

Only the train split is learned from, and the last state is kept: no step is chosen by holdout or test.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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


@dataclass(frozen=True)
class Recipe:
    """A one-cycle schedule, smoothed labels, bfloat16 autocast, and images varied anew in every epoch.

    Drawings: AdamW; turned, scaled, shifted and made noisy (`augment`). Photographs: SGD with Nesterov's momentum, which learns them
    better in so few epochs; shifted and mirrored (`augment_photos`).
    """

    photos: bool
    """The network, optimizer and augmentation for photographs, or those for drawings."""
    epochs: int
    """Or as many as make `least_steps`."""
    least_steps: int
    batch_size: int
    lr: float
    weight_decay: float
    label_smoothing: float
    degrees: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    noise: float = 0.0


DRAWINGS = Recipe(
    photos=False, epochs=12, least_steps=2000, batch_size=128, lr=4e-3, weight_decay=0.02, label_smoothing=0.05,
    degrees=10.0, scale=0.1, shift=0.08, noise=0.15,
)  # fmt: skip
PHOTOS = Recipe(photos=True, epochs=14, least_steps=1400, batch_size=256, lr=0.2, weight_decay=5e-4, label_smoothing=0.1, shift=0.0625)


def train_cnn(
    data: ImageData,
    out: Path,
    *,
    recipe: Recipe | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    report: Callable[[int, int, float], None] = lambda epoch, epochs, loss: None,
) -> dict[str, Any]:
    """Train the CNN on `data.train`, write `out` (safetensors) and its sidecar ``.json``; returns what the sidecar says.

    The recipe is the one for photographs where images have colour, else the one for drawings.
    """
    if data.train.labels is None or not data.num_classes:
        raise GenbenchError(f"dataset {data.name!r} has no labels: an in-domain CNN is trained as a classifier")
    if not out.parent.is_dir():
        raise GenbenchError(f"the folder of {out} does not exist")
    if out.is_dir():
        raise GenbenchError(f"--out {out} is a folder; it takes a file, like {out / data.name}.safetensors")
    sidecar = out.with_suffix(".json")
    if out == sidecar or sidecar.is_dir():
        raise GenbenchError(f"--out {out}: what is said of them goes to {sidecar}; choose another name, like {data.name}.safetensors")
    device = torch.device("cpu") if device is None else device
    started = time.perf_counter()
    recipe = (PHOTOS if data.channels == 3 else DRAWINGS) if recipe is None else recipe
    steps_per_epoch = max(1, len(data.train) // recipe.batch_size)
    recipe = replace(recipe, epochs=max(recipe.epochs, math.ceil(recipe.least_steps / steps_per_epoch)) if epochs is None else epochs)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Cnn(data.channels, data.size, data.num_classes, recipe.photos).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.from_numpy(data.train.images.copy()).to(device)
    _fit(network, images, torch.from_numpy(data.train.labels.copy()).to(device), recipe, seed, report)
    if recipe.photos:
        _halve(network)
    _scale_features(network, images)
    _save(network, out, data)
    said = _said(network, out, data, recipe, seed, device) | {"seconds": round(time.perf_counter() - started, 1)}
    sidecar.write_text(json.dumps(said, indent=1) + "\n")
    return said


def _fit(network: Cnn, images: Tensor, labels: Tensor, recipe: Recipe, seed: int, report: Callable[[int, int, float], None]) -> None:
    """Learn from `images` (N, C, S, S) uint8 and `labels` (N,), on their device."""
    steps_per_epoch = max(1, len(images) // recipe.batch_size)
    generator = torch.Generator().manual_seed(seed)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer
    if recipe.photos:
        optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True, fused=True)
    else:
        optimizer = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=recipe.epochs * steps_per_epoch, pct_start=0.2)
    network.train()
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator).to(images.device)
        loss = torch.zeros(())
        for step in range(steps_per_epoch):
            rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            x = to_signed(images[rows])
            if recipe.photos:
                x = augment_photos(x, generator, recipe.shift)
            else:
                x = augment(x, generator, recipe.degrees, recipe.scale, recipe.shift, recipe.noise)
            with torch.autocast(images.device.type, torch.bfloat16):
                _, logits = network(x)
            loss = F.cross_entropy(logits.float(), labels[rows], label_smoothing=recipe.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        report(epoch + 1, recipe.epochs, float(loss.detach()))


def _said(network: Cnn, out: Path, data: ImageData, recipe: Recipe, seed: int, device: torch.device) -> dict[str, Any]:
    extractor = load_cnn(out, device)
    made_from = {
        "command": f"genbench extractor train {data.name} --out {out.name}",
        "dataset": data.name, "channels": data.channels, "size": data.size, "num_classes": data.num_classes, "resize": data.resize,
    }  # fmt: skip
    return {
        "recipe": made_from | asdict(recipe) | {"seed": seed},
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
    }


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
    """(B, C, H, W) in [-1, 1] -> the same, each turned, scaled, shifted and made noisy at random; what comes in from outside is -1.

    By up to `degrees`, `scale` of its size, `shift` of its size, and Gaussian noise of a deviation of up to `noise`: a network that
    never saw a grey background takes a faint one for the worst of faults.
    """
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


def augment_photos(x: Tensor, generator: torch.Generator, shift: float) -> Tensor:
    """(B, C, S, S) -> the same, each shifted by up to `shift` of S and mirrored or not; what comes in from outside is its reflection.

    Shifts are by whole pixels. The result is laid out channels last.
    """
    count, _, size, _ = x.shape
    most = round(shift * size)
    dy, dx = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    at = torch.arange(size)
    rows = dy[:, None] + at
    columns = dx[:, None] + torch.where(mirrored[:, None], at.flip(0), at)
    padded = F.pad(x, (most, most, most, most), mode="reflect").permute(0, 2, 3, 1)
    moved: Tensor = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None]]
    return moved.permute(0, 3, 1, 2)


def _halve(network: Cnn) -> None:
    """Round the kernels to what float16 holds: half the file."""
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim > 1:
                p.copy_(p.half())


def _scale_features(network: Cnn, images: Tensor, batch_size: int = 500) -> None:
    """Set the constant that makes the mean variance of the features over `images` (N, C, H, W) uint8 one."""
    network.eval()
    with torch.inference_mode():
        features = torch.cat([network(to_signed(part))[0] for part in torch.split(images, batch_size)])
        network.feature_scale.copy_(features.double().var(dim=0).mean().rsqrt())


def _save(network: Cnn, out: Path, data: ImageData) -> None:
    header = {"channels": data.channels, "size": data.size, "num_classes": data.num_classes, "dataset": data.name}
    state = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
    if network.photos:
        header["photos"] = True
        state = {key: value.half() if value.ndim > 1 else value for key, value in state.items()}
    save_file(state, out, metadata={"genbench": json.dumps(header)})
