"""Differentiable augmentation. Zhao, Liu, Lin, Zhu & Han, "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020,
arXiv:2006.10738.

D sees T(x) and T(G(z)) in its own step and in G's, and gradients reach G through T (equations 4 and 5). T is a list of the
policies of section 3.2: ``color``, ``translation``, ``cutout``; their ranges are those of the authors' release. The functions are pure:
`augment` draws the numbers, one for each image, and the others apply them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genbench import full_precision

POLICIES = ("color", "translation", "cutout")


def parse(policy: str) -> tuple[str, ...]:
    """Comma-separated policies -> their names, in order; an empty text has none."""
    names = tuple(name.strip() for name in policy.split(",") if name.strip())
    for name in names:
        if name not in POLICIES:
            raise ValueError(f"unknown augmentation {name!r}; a comma-separated list of {', '.join(POLICIES)}")
    return names


def augment(images: Tensor, policies: tuple[str, ...]) -> Tensor:
    """(B, C, H, W) images -> as many, each with its own random T."""
    size, device = images.shape[2:], images.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(len(images), 1, 1, 1, device=device).uniform_(low, high)

    def pixels(low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (len(images), 1, 1), device=device)

    for policy in policies:
        if policy == "color":
            images = brightness(images, uniform(-0.5, 0.5))
            images = saturation(images, uniform(0, 2))
            images = contrast(images, uniform(0.5, 1.5))
        elif policy == "translation":
            down, right = (round_half_up(side / 8) for side in size)
            images = translate(images, pixels(-down, down), pixels(-right, right))
        elif policy == "cutout":
            row, column = (pixels(0, side - round_half_up(side / 2) % 2) for side in size)
            images = cutout(images, row, column)
    return images


def brightness(images: Tensor, by: Tensor) -> Tensor:
    """(B, C, H, W) -> all pixels `by` (B, 1, 1, 1) brighter."""
    return images + by


def saturation(images: Tensor, by: Tensor) -> Tensor:
    """(B, C, H, W) -> colours `by` (B, 1, 1, 1) times as far from grey; grey images stay."""
    grey = images.mean(1, keepdim=True)
    return torch.lerp(grey, images, by)


def contrast(images: Tensor, by: Tensor) -> Tensor:
    """(B, C, H, W) -> values `by` (B, 1, 1, 1) times as far from their image's mean."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, by)


def translate(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """(B, C, H, W) -> moved by whole pixels `down` and `right` (B, 1, 1), zero (grey) where nothing was.

    A product with two shifted identities: no gather, whose gradient adds up in no fixed order on a GPU.
    """
    rows, columns = (torch.arange(side, device=images.device) for side in images.shape[2:])
    vertical = rows[:, None] - down == rows  # (B, H, H): out[i] takes in[i - down]
    horizontal = columns - right == columns[:, None]  # (B, W, W): out[j] takes in[j - right]
    with full_precision():
        return vertical[:, None].float() @ images.float() @ horizontal[:, None].float()


def cutout(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """(B, C, H, W) -> a square of half the side around (`row`, `column`), each (B, 1, 1), set to zero (grey)."""
    inside = []
    for centre, side in zip((row, column), images.shape[2:], strict=True):
        half = round_half_up(side / 2)
        offset = torch.arange(side, device=images.device) - (centre - half // 2)
        inside.append((offset >= 0) & (offset < half))  # (B, 1, side)
    hole = inside[0].mT & inside[1]
    return images.masked_fill(hole[:, None], 0)


def round_half_up(x: float) -> int:
    """Nearest integer, halves upwards."""
    return int(x + 0.5)
