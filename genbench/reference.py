"""What generated images are compared with: a split of a dataset, and the other real images a metric may need."""

from __future__ import annotations

from dataclasses import dataclass

from genbench.datasets import DatasetSpec, ImageData, Split
from genbench.records import SplitName


@dataclass(frozen=True)
class Reference:
    """Real images at one resolution; `of` names the split that scores are made against."""

    name: str
    """As a track writes it: ``mnist``, ``folder:PATH``."""
    spec: DatasetSpec
    of: SplitName
    splits: dict[SplitName, Split]
    digest: str
    """SHA-256 over all that is here."""
    resize: str = ""

    @property
    def real(self) -> Split:
        """The images compared with."""
        return self.splits[self.of]

    @property
    def second(self) -> SplitName:
        """The split that floors are drawn from: train, or test where that is what scores are made against."""
        return "test" if self.of == "train" else "train"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.real.images.shape[1:]
        return int(channels), int(height), int(width)


def split_of(data: ImageData, of: SplitName = "test") -> Reference:
    """A prepared dataset, the split to compare with -> Reference."""
    return Reference(data.name, data.spec, of, {"train": data.train, "holdout": data.holdout, "test": data.test}, data.digest, data.resize)
