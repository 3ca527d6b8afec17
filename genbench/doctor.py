"""What works on this machine, what is missing, and how to get it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from genbench import machine
from genbench.errors import GenbenchError
from genbench.inventory import inventory
from genbench.places import cache_folder, data_root


class Finding(NamedTuple):
    """One thing looked at."""

    ok: bool
    kind: str
    name: str
    state: str


def examine() -> list[Finding]:
    """Device, folders, plugins, datasets, weights; nothing is downloaded."""
    return [*_device(), *_folders(), *_plugins(), *_datasets(), *_weights()]


def _device() -> Iterator[Finding]:
    import torch

    from genbench.throughput import gemm_rate, synchronizer

    devices = [torch.device("cpu"), *(torch.device("cuda", i) for i in range(torch.cuda.device_count()))]
    for device in devices:
        cuda = device.type == "cuda"
        what = torch.cuda.get_device_name(device) if cuda else f"{machine.processor()}, {machine.cores()} cores"
        yield Finding(True, "device", str(device), f"{what}, {gemm_rate(device, synchronizer(device)):,.0f} GFLOP/s float32")
    if len(devices) == 1:
        yield Finding(False, "device", "cuda", f"none seen by torch {torch.__version__}; everything works on the CPU, with smaller budgets")


def _folders() -> Iterator[Finding]:
    root = data_root()
    set_by = "GENBENCH_DATA" if os.environ.get("GENBENCH_DATA") else "default; set GENBENCH_DATA to change it"
    yield Finding(root.is_dir(), "folder", "data", f"{root} ({set_by})" + ("" if root.is_dir() else ", not there yet"))
    cache = cache_folder()
    nearest: Path = next(folder for folder in (cache, *cache.parents) if folder.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    yield Finding(
        writable, "folder", "cache", f"{cache}" + ("" if writable else ", not writable: everything works, slower; set GENBENCH_CACHE")
    )


def _plugins() -> Iterator[Finding]:
    found = inventory()
    for name in sorted({f"{model.distribution} {model.version}" for model in found.models}):
        models = [model.name for model in found.models if f"{model.distribution} {model.version}" == name]
        yield Finding(True, "plugin", name, ", ".join(models))
    for broken in found.broken:
        yield Finding(False, "plugin", f"{broken.distribution} {broken.version}", broken.reason)


def _datasets() -> Iterator[Finding]:
    from genbench.catalogue import load_catalogue

    for name, entry in load_catalogue(kinds=("dataset",)).datasets.items():
        try:
            with _offline():
                splits = entry.spec.load(data_root())
        except GenbenchError as error:
            yield Finding(False, "dataset", name, _missing(error))
        else:
            yield Finding(True, "dataset", name, f"{len(splits['train']):,} train and {len(splits['test']):,} test images")


def _missing(error: GenbenchError) -> str:
    """Why it is missing, without the word on the switch that `_offline` set."""
    text = str(error)
    return text if os.environ.get("GENBENCH_OFFLINE") else text.replace(" (GENBENCH_OFFLINE is set)", " yet")


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Nothing is downloaded in this block."""
    before = os.environ.get("GENBENCH_OFFLINE")
    os.environ["GENBENCH_OFFLINE"] = "1"
    try:
        yield
    finally:
        os.environ.pop("GENBENCH_OFFLINE")
        if before is not None:
            os.environ["GENBENCH_OFFLINE"] = before


def _weights() -> Iterator[Finding]:
    from genbench.catalogue import load_catalogue

    for name, entry in load_catalogue(kinds=("extractor",)).extractors.items():
        try:
            with _offline():
                entry.spec.require(None)
        except GenbenchError as error:
            yield Finding(False, "extractor", name, _missing(error))
        else:
            accuracy, here = entry.spec.accuracy, "weights are here" if entry.spec.fit is None else "needs no weights"
            yield Finding(True, "extractor", name, f"test accuracy {accuracy:.2%}" if accuracy else here)
