"""Gated PixelCNN over a map of discrete codes.

Aäron van den Oord, Nal Kalchbrenner, Oriol Vinyals, Lasse Espeholt, Alex Graves and Koray Kavukcuoglu, "Conditional Image
Generation with PixelCNN Decoders", NeurIPS 2016, arXiv:1606.05328: p(x) = prod_i p(x_i | x_1 .. x_(i-1)) in raster order (eq. 1), gated
units (eq. 2), and two stacks of convolutions, one for the rows above and one for the codes to the left, which together have no blind
spot (figures 1 and 2).

In place of masks the stacks' inputs are moved by one row down and one column right: position i then holds only what comes before i,
and convolutions that look up and left keep it so. Of eq. 5 there is the location-dependent bias, once, at the input. The
convolutions pad nothing by themselves: training pads whole maps, while `sample` hands the same layers a window for each new row and
code and keeps what they gave, so that drawing a map costs about as much as one pass over it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class PixelCNN(nn.Module):
    """p of maps (side, side) of `codes` values: `layers` gated layers of `width` maps, kernels of 7, then of 3."""

    def __init__(self, codes: int, side: int, width: int = 128, layers: int = 15) -> None:
        super().__init__()
        self.side = side
        self.embedding = nn.Embedding(codes, width)
        self.place_v, self.place_h = (nn.Parameter(torch.zeros(width, side, side)) for _ in range(2))
        self.layers = nn.ModuleList(GatedLayer(width, 7 if first else 3) for first in [True] + [False] * (layers - 1))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, codes, 1))

    def forward(self, codes: Tensor) -> Tensor:
        """(B, side, side) int64 -> float32 logits (B, codes, side, side); those at i depend on codes before i only."""
        embedded = self.embedding(codes).permute(0, 3, 1, 2)  # (B, width, side, side), channels last
        v = pad(embedded, (0, 0, 1, -1)) + self.place_v
        h = pad(embedded, (1, -1)) + self.place_h
        for layer in self.layers:
            v, above = layer.vertical(pad(v, (layer.reach, layer.reach, layer.reach, 0)))
            h = layer.horizontal(pad(h, (layer.reach, 0)), above)
        logits: Tensor = self.head(h)
        return logits.float()

    @torch.no_grad()
    def sample(self, n: int, draw: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """n -> (n, side, side) int64 codes; `draw` turns logits (n, codes) of one position into codes (n,): by chance."""
        draw, side, width = draw or categorical, self.side, self.embedding.embedding_dim
        device = self.embedding.weight.device
        codes = torch.zeros(n, side, side, dtype=torch.int64, device=device)
        # What each layer was given so far, within the zeros that `forward` pads with.
        vs = [torch.zeros(n, side + layer.reach, side + 2 * layer.reach, width, device=device).permute(0, 3, 1, 2) for layer in self.layers]
        nothing = torch.zeros(n, width, 1, 1, device=device)
        for row in range(side):
            v = self.embedding(codes[:, row - 1 : row]).permute(0, 3, 1, 2) if row else nothing
            v = v + self.place_v[:, row : row + 1]  # (n, width, 1, side)
            aboves = []
            for layer, seen in zip(self.layers, vs, strict=True):
                seen[:, :, row + layer.reach, layer.reach : layer.reach + side] = v[:, :, 0]
                v, above = layer.vertical(seen[:, :, row : row + layer.reach + 1])
                aboves.append(above)
            hs = [torch.zeros(n, 1, side + layer.reach, width, device=device).permute(0, 3, 1, 2) for layer in self.layers]
            for column in range(side):
                h = self.embedding(codes[:, row, column - 1])[:, :, None, None] if column else nothing
                h = h + self.place_h[:, row : row + 1, column : column + 1]  # (n, width, 1, 1)
                for layer, seen, above in zip(self.layers, hs, aboves, strict=True):
                    seen[:, :, :, column + layer.reach] = h[:, :, :, 0]
                    h = layer.horizontal(seen[:, :, :, column : column + layer.reach + 1], above[:, :, :, column : column + 1])
                codes[:, row, column] = draw(self.head(h).float()[:, :, 0, 0])
        return codes


class GatedLayer(nn.Module):
    """Figure 2: a layer of both stacks, for windows that carry `reach` = kernel // 2 more rows above and columns beside."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.look_up = nn.Conv2d(width, 2 * width, (self.reach + 1, 2 * self.reach + 1))
        self.look_left = nn.Conv2d(width, 2 * width, (1, self.reach + 1))
        self.hand_over = nn.Conv2d(2 * width, 2 * width, 1)
        self.mix = nn.Conv2d(width, width, 1)

    def vertical(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width, H + reach, W + 2 reach) -> the next layer's v (B, width, H, W), what h is told of it (B, 2 width, H, W)."""
        v = self.look_up(v)
        return gate(v), self.hand_over(v)

    def horizontal(self, h: Tensor, above: Tensor) -> Tensor:
        """(B, width, H, W + reach), (B, 2 width, H, W) -> the next layer's h (B, width, H, W), residual."""
        return h[:, :, :, self.reach :] + self.mix(gate(self.look_left(h) + above))


def gate(x: Tensor) -> Tensor:
    """(B, 2 p, H, W) -> tanh of one half times sigmoid of the other (B, p, H, W). Equation 2."""
    f, g = x.chunk(2, dim=1)
    return torch.tanh(f) * torch.sigmoid(g)


def categorical(logits: Tensor) -> Tensor:
    """(n, codes) -> (n,) int64 drawn from softmax(logits): the first of exponential clocks with these rates to ring."""
    return (logits.softmax(1) / torch.empty_like(logits).exponential_()).argmax(1)
