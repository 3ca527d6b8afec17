"""Differentiable augmentation: each transformation by hand, then what is drawn for whom."""

from __future__ import annotations

import pytest
import torch
from genbench_gans.diffaugment import augment, brightness, contrast, cutout, parse, saturation, translate


def per_image(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None, None]


def pixels(*values: int) -> torch.Tensor:
    return torch.tensor(values)[:, None, None]


def test_colours_by_hand():
    image = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]], [[0.5, 0.6]]]])  # (1, 3, 1, 2): pixels with means 0.5 and 0.2, image's mean 0.35
    images = torch.cat([image, image])
    assert torch.allclose(brightness(images, per_image(0.25, -0.5))[:, 0, 0, 0], torch.tensor([1.25, 0.5]))
    # twice as far from grey: 0.5 + 2 (1 - 0.5); not at all: grey
    assert torch.allclose(saturation(images, per_image(2, 0))[:, 0, 0, 0], torch.tensor([1.5, 0.5]))
    assert torch.allclose(saturation(images, per_image(2, 0))[:, 2, 0, 1], torch.tensor([1.0, 0.2]))
    assert torch.allclose(contrast(images, per_image(1.5, 0.5))[:, 0, 0, 0], torch.tensor([0.35 + 1.5 * 0.65, 0.35 + 0.5 * 0.65]))


def test_saturation_leaves_grey_images_alone():
    images = torch.rand(3, 1, 4, 4)
    assert torch.equal(saturation(images, per_image(0, 1, 2)), images)


def test_translation_by_hand():
    image = torch.arange(1.0, 7).view(1, 1, 2, 3)
    moved = translate(torch.cat([image, image, image]), pixels(1, 0, -1), pixels(0, -1, 2))
    assert moved[0, 0].tolist() == [[0, 0, 0], [1, 2, 3]]
    assert moved[1, 0].tolist() == [[2, 3, 0], [5, 6, 0]]
    assert moved[2, 0].tolist() == [[0, 0, 4], [0, 0, 0]]


def test_cutout_by_hand():
    # a hole of 2 x 3 (half of 4 and of 5, rounded up), from centre - half // 2 on
    images = torch.ones(2, 2, 4, 5)
    cut = cutout(images, pixels(1, 4), pixels(0, 3))
    assert cut[0, 1].tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert cut[1, 0].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]


def test_policies_are_read_in_order():
    assert parse("translation, color,cutout") == ("translation", "color", "cutout")
    assert parse("") == ()
    with pytest.raises(ValueError, match="unknown augmentation 'colour'"):
        parse("colour")


def test_an_image_has_draws_of_its_own_within_the_published_ranges():
    torch.manual_seed(0)
    n = 2000
    dot = torch.zeros(n, 1, 16, 16)
    dot[:, :, 8, 5] = 1
    moved = augment(dot, ("translation",))
    rows, columns = moved.sum(3).argmax(2) - 8, moved.sum(2).argmax(2) - 5
    assert (moved.sum((1, 2, 3)) == 1).all()
    for shift in (rows, columns):  # an eighth of the side
        assert shift.unique().tolist() == [-2, -1, 0, 1, 2]
    assert abs((rows * columns).float().mean()) < 0.15  # independent
    holes = (augment(torch.ones(n, 1, 16, 16), ("cutout",)) == 0).sum((1, 2, 3))
    assert holes.max() == 64  # 8 x 8, less where it leaves the image
    assert holes.min() == 16  # the corner: 4 x 4 of it inside
    flat = augment(torch.zeros(n, 3, 4, 4), ("color",))[:, 0, 0, 0]  # brightness alone moves a flat image
    assert -0.5 <= flat.min() < -0.48
    assert 0.48 < flat.max() <= 0.5


def test_gradients_reach_the_images_even_twice():
    torch.manual_seed(0)
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    moved = augment(images, parse("translation,cutout"))
    (gradient,) = torch.autograd.grad(moved.square().sum(), images)
    assert 0 < (gradient == 0).float().mean() < 0.6  # pixels moved out or cut out count for nothing
    out = augment(images, parse("color,translation,cutout"))
    (gradient,) = torch.autograd.grad(out.square().sum(), images, create_graph=True)
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).all()  # but for their image's mean, which contrast keeps
    gradient.square().sum().backward()
    assert images.grad.norm() > 0


def test_no_policy_changes_nothing():
    images = torch.rand(2, 1, 8, 8)
    assert augment(images, ()) is images
