"""What a position may and must see, probabilities that sum to one, and samples that come from them."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from genbench_vaes.pixelcnn import PixelCNN, categorical, gate
from torch import Tensor


def network(codes: int, side: int, width: int = 6, layers: int = 2) -> PixelCNN:
    torch.manual_seed(0)
    model = PixelCNN(codes, side, width, layers)
    for place in (model.place_v, model.place_h):
        torch.nn.init.normal_(place)
    return model


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_receptive_field(layers: int) -> None:
    """Position (r, c) sees what the kernels reach before it in raster order, all of it (no blind spot) and nothing else.

    With reaches summing to R: rows r - 1 to r - 1 - R in columns c - R to c + R, and columns c - 1 to c - 1 - R of its own row.
    """
    side, R = 12, 3 + (layers - 1)
    model, embedded = network(5, side, layers=layers), []
    model.embedding.register_forward_hook(lambda module, args, output: embedded.append(output))
    logits = model(torch.randint(0, 5, (1, side, side)))
    for r, c in ((0, 0), (0, 7), (5, 0), (7, 6), (11, 11), (11, 2)):
        (gradient,) = torch.autograd.grad(logits[0, :, r, c].square().sum(), embedded[0], retain_graph=True)
        seen = gradient[0].abs().sum(2) > 0
        expected = torch.zeros(side, side, dtype=torch.bool)
        expected[max(0, r - 1 - R) : r, max(0, c - R) : c + R + 1] = True
        expected[r, max(0, c - 1 - R) : c] = True
        assert torch.equal(seen, expected), (r, c)


def test_causality_of_codes() -> None:
    """A code changed at i changes logits after i in raster order, and none at i or before."""
    model, codes = network(4, 5), torch.randint(0, 4, (1, 5, 5))
    before = model(codes).flatten(2)
    for i in range(25):
        other = codes.clone()
        other.view(-1)[i] = (codes.view(-1)[i] + 1) % 4
        changed = (model(other).flatten(2) != before).any(1)[0]
        assert not changed[: i + 1].any(), i
        assert i == 24 or changed[i + 1], i


def probabilities(model: PixelCNN, maps: Tensor) -> Tensor:
    """(B, side, side) -> p of each map (B,)."""
    logs = model(maps).log_softmax(1)
    return logs.gather(1, maps[:, None]).flatten(1).sum(1).exp().detach()


def test_probabilities_sum_to_one() -> None:
    model = network(3, 2)
    maps = torch.tensor(list(product(range(3), repeat=4))).view(81, 2, 2)
    p = probabilities(model, maps)
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    assert float(p.max()) > 2 * float(p.min())


def test_samples_have_these_probabilities() -> None:
    model = network(2, 2)
    maps = torch.tensor(list(product(range(2), repeat=4))).view(16, 2, 2)
    drawn = model.sample(20_000).flatten(1) @ torch.tensor([8, 4, 2, 1])
    frequencies = torch.bincount(drawn, minlength=16) / 20_000
    torch.testing.assert_close(frequencies, probabilities(model, maps).detach(), atol=0.015, rtol=0)


@pytest.mark.parametrize(("side", "layers"), [(2, 1), (5, 3), (8, 4)])
def test_drawing_computes_what_training_does(side: int, layers: int) -> None:
    """The logits that `sample` sees, one position after another, are those of one pass over the map it drew."""
    model, seen = network(7, side, layers=layers).to(memory_format=torch.channels_last), []

    def draw(logits: Tensor) -> Tensor:
        seen.append(logits)
        return categorical(logits)

    codes = model.sample(3, draw)
    assert len(seen) == side**2
    assert codes.shape == (3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(seen, 2), model(codes).flatten(2), atol=1e-5, rtol=1e-4)


def test_categorical() -> None:
    torch.manual_seed(0)
    p = torch.tensor([0.1, 0.0, 0.6, 0.3])
    drawn = categorical(p.log().expand(50_000, 4))
    torch.testing.assert_close(torch.bincount(drawn, minlength=4) / 50_000, p, atol=0.01, rtol=0)


def test_gate() -> None:
    """Equation 2: tanh of the first half, sigmoid of the second."""
    x = torch.tensor([0.5, -1.0]).view(1, 2, 1, 1)
    assert float(gate(x)) == pytest.approx(float(torch.tanh(torch.tensor(0.5)) * torch.sigmoid(torch.tensor(-1.0))))


def test_published_layer() -> None:
    """Figure 2 with p = 128 maps and kernels of 3: p -> 2p two by three, p -> 2p one by two, 2p -> 2p and p -> p."""
    with torch.device("meta"):
        model = PixelCNN(512, 8)
    p = 128
    assert len(model.layers) == 15
    count = sum(weight.numel() for weight in model.layers[1].parameters() if weight.ndim > 1)
    assert count == 6 * p * 2 * p + 2 * p * 2 * p + 2 * p * 2 * p + p * p
