"""What every score starts from, pixel for pixel: quantisation, resizing and grey to RGB give whole numbers, the same on every machine."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch

from genbench.datasets.prepare import resize_images
from genbench.datasets.resident import to_unit
from genbench.extractors.fidelity import to_rgb
from genbench.sample import quantise


def made(count, channels, height, width):
    """(N, C, H, W) uint8 by whole-number arithmetic alone: a gradient of every place under a pattern that no axis repeats."""
    n, c, y, x = np.ogrid[:count, :channels, :height, :width]
    return ((29 * n + 83 * c + 7 * y + 3 * x + (x * y * (n + 2)) % 61 + 11 * ((x ^ y) & 5)) % 256).astype(np.uint8)


def sha(array):
    return hashlib.sha256(f"{array.shape} {array.dtype};".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def test_the_input_is_the_same_everywhere():
    assert made(2, 3, 2, 3)[1, 2].tolist() == GOLDEN_CORNER
    assert sha(made(3, 3, 28, 28)) == GOLDEN["input"]


@pytest.mark.parametrize(
    ("name", "shape", "size", "rule"),
    [
        ("pad", (3, 1, 28, 28), 32, "pad"),
        ("pad by an odd number", (3, 1, 28, 28), 33, "pad"),
        ("area, whole blocks", (3, 3, 32, 32), 8, "area"),
        ("area, shared pixels", (3, 3, 28, 28), 20, "area"),
        ("area of the centre square", (3, 3, 31, 24), 16, "area"),
        ("area, in float64", (1, 1, 260, 260), 96, "area"),
        ("centre crop alone", (3, 3, 21, 30), 21, "area"),
        ("exact", (3, 1, 8, 8), 8, "exact"),
    ],
)
def test_resizing_is_exact(name, shape, size, rule):
    images = made(*shape)
    resized = resize_images(images, size, rule)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, by_fractions(images, size) if rule == "area" else padded(images, size))
    assert sha(resized) == GOLDEN[name]


def padded(images, size):
    out = np.zeros((*images.shape[:2], size, size), np.uint8)
    start = (size - images.shape[2]) // 2
    out[:, :, start : start + images.shape[2], start : start + images.shape[3]] = images
    return out


def by_fractions(images, size):
    """The same by a second way, in whole numbers: each pixel repeated `size` times along each axis, blocks of `side` summed."""
    side = min(images.shape[2:])
    top, left = ((length - side) // 2 for length in images.shape[2:])
    square = images[:, :, top : top + side, left : left + side].astype(np.int64)
    for axis in (2, 3):
        wide = np.repeat(square, size, axis=axis)
        square = wide.reshape(*wide.shape[:axis], size, side, *wide.shape[axis + 1 :]).sum(axis=axis + 1)
    return (2 * square + side * side) // (2 * side * side)


def test_quantisation_of_all_levels_and_of_what_lies_between():
    levels = torch.arange(256, dtype=torch.uint8)
    signed = to_unit(levels)
    assert torch.equal(quantise(signed), levels)
    step = 2 / 255
    for part in (-0.49, 0.49):
        assert torch.equal(quantise(signed + part * step), levels)
    assert torch.equal(quantise(signed + 0.51 * step), (levels.int() + 1).clamp(max=255).to(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_quantisation_is_that_of_exact_arithmetic_in_every_precision(dtype):
    given = (torch.arange(-4500, 4501, dtype=torch.float64) / 4096).to(dtype)  # half precision rounds some: what counts is what it holds
    exact = [int(255 * (min(max(Fraction(float(x)), Fraction(-1)), Fraction(1)) + 1) / 2 + Fraction(1, 2)) for x in given]
    found = quantise(given)
    assert found.dtype == torch.uint8
    assert found.tolist() == exact
    assert sha(found.numpy()) == GOLDEN[str(dtype).removeprefix("torch.")]


def test_quantisation_at_the_edges():
    inside = float(np.nextafter(np.float32(1), np.float32(0)))
    given = torch.tensor([-float("inf"), -1e30, -1.0, -inside, -0.0, 0.0, 1e-30, inside, 1.0, 1.0000001, 3e38, float("inf")])
    assert quantise(given).tolist() == [0, 0, 0, 0, 128, 128, 128, 255, 255, 255, 255, 255]


def test_grey_becomes_three_equal_channels_after_quantisation():
    grey = made(3, 1, 12, 10)
    rgb = to_rgb(torch.from_numpy(grey))
    assert rgb.dtype == torch.uint8
    np.testing.assert_array_equal(rgb.numpy(), np.repeat(grey, 3, axis=1))
    assert sha(rgb.numpy()) == GOLDEN["grey"]
    colour = torch.from_numpy(made(3, 3, 12, 10))
    assert torch.equal(to_rgb(colour), colour)


GOLDEN_CORNER = [[195, 209, 201], [213, 208, 225]]
GOLDEN = {
    "input": "c41e40fd4810d1cd",
    "pad": "c9916b5e4ee47eb1",
    "pad by an odd number": "66ef054bd8e71213",
    "area, whole blocks": "294a220eea82cb9e",
    "area, shared pixels": "87ffac2926c30526",
    "area of the centre square": "63472c66125126a8",
    "area, in float64": "3c86b05e222285d5",
    "centre crop alone": "19b36010394e9748",
    "exact": "cce7742cb4e4306b",
    "float64": "f50aa1bd64f57188",
    "float32": "f50aa1bd64f57188",
    "bfloat16": "6b12af63583ebd9d",
    "float16": "1a5f0a4b57acb74d",
    "grey": "351fcd8b34edcd07",
}
