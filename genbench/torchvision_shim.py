"""torchvision beside a torch of another build (a CUDA torchvision, a CPU-only torch): imported without its compiled operators.

torchvision registers shape functions for `nms` and `qnms` whether or not its extension could be loaded, and fails with "operator
torchvision::nms does not exist" where it could not. Declaring the two operators first lets everything that needs no box operator work.
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType
from typing import Any

_lock = threading.Lock()
_libraries: list[object] = []
"""torch.library forgets what it defined when the Library object dies."""


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its extension does not fit this torch; call it before importing torch_fidelity."""
    with _lock:
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        import torch

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _libraries.append(library)
        return importlib.import_module("torchvision")
