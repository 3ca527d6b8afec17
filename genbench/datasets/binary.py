"""Black and white images from grey ones, whose levels are the probabilities of white: what likelihood tables of the literature use.

Ruslan Salakhutdinov and Iain Murray, "On the quantitative analysis of deep belief networks", ICML 2008. The one drawing that
Larochelle and Murray published in 2011 can't be made again from MNIST; ours has its statistics, not its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.datasets import Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEED = 2008
"""Of the drawing: fixed, since every likelihood depends on it."""
_CHUNK = 4096


def binarised(images: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Grey uint8 images -> images of 0 and 255, white with probability level/255, always the same ones."""
    import numpy as np

    random = np.random.RandomState(seed)  # its stream is frozen by numpy's policy; Generator's is not
    out = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        some = images[start : start + _CHUNK]
        out[start : start + _CHUNK] = 255 * (random.randint(0, 255, some.shape) < some)
    return out


def load_binary(root: Path, load: Callable[[Path], Mapping[str, Split]]) -> dict[str, Split]:
    """A loader of grey images -> its splits in black and white, drawn once."""
    ordered = enumerate(sorted(load(root).items()))
    return {name: Split(binarised(split.images, SEED + order), split.labels) for order, (name, split) in ordered}
