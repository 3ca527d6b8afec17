"""Models that are not packaged (``./mygan.py:MyGAN``), and the contract that every model's class is held to."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, get_args

from genbench.errors import GenbenchError, unknown
from genbench.origin import Entry, explain, file_digest

if TYPE_CHECKING:
    from genbench.model import ModelSpec

_FILE = re.compile(r"(?P<path>.+\.py)(?::(?P<cls>[^:/\\]*))?")
_CONTRACT = ("configure_optimizers", "training_step", "sample")


def is_file(source: str) -> bool:
    """True for ``./mygan.py:MyGAN`` and ``mygan.py``: a model that is not packaged."""
    return _FILE.fullmatch(source) is not None


def split_file(source: str) -> tuple[Path, str]:
    """``./mygan.py:MyGAN`` -> its existing path and the class's name (empty: the only model in it). Raises GenbenchError."""
    match = _FILE.fullmatch(source)
    if match is None:
        raise GenbenchError(f"model file {source!r} is not written like ./mygan.py:MyGAN")
    path = Path(match["path"]).expanduser()
    if not path.is_file():
        near = sorted(other.name for other in path.parent.glob("*.py"))[:8] if path.parent.is_dir() else []
        there = f"; there: {', '.join(near)}" if near else ""
        raise GenbenchError(f"model file {path}: {'not a file' if path.exists() else 'no such file'}{there}")
    return path, match["cls"] or ""


def load_model_file(source: str) -> Entry[ModelSpec]:
    """``./mygan.py:MyGAN`` -> a model that is not packaged, named after its class; executes the file.

    Its family is the class attribute `family`, ``other`` where there is none; so is `single_device`. The digest is the file's, and of
    what it imports from beside it (`file_digest`). Raises GenbenchError where file or class are missing, the file fails, or the class
    breaks the contract.
    """
    from genbench.model import ModelSpec

    path, wanted = split_file(source)
    digest = file_digest(path)
    module = _import_file(path, digest)
    cls = _model_class(module, path.name, wanted)
    family: Any = getattr(cls, "family", "other")
    description = (cls.__doc__ or "").strip().partition("\n")[0]
    spec = ModelSpec(cls.__name__, cls, family=family, description=description, single_device=getattr(cls, "single_device", ""))
    problem = contract_problem(spec)
    if problem:
        raise GenbenchError(f"{path.name}: {problem}")
    return Entry(spec, "unpackaged", "", digest, f"{path.resolve()}:{cls.__name__}")


class _Source(importlib.machinery.SourceFileLoader):
    """Neither reads nor writes bytecode: a full disk truncates it, and an edit of equal length within a second is not noticed by it."""

    def get_code(self, fullname: str) -> CodeType:
        """Compiled from the source each time."""
        return self.source_to_code(self.get_data(self.path), self.path)


def _import_file(path: Path, digest: str) -> ModuleType:
    # A name of its own, so that a file called random.py or torch.py shadows nothing.
    name = f"genbench_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}_{digest[:8]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # type hints of its classes are resolved through it
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last: what it imports from beside it must not shadow anything installed
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except SyntaxError as error:
        raise GenbenchError(f"model file {path}, line {error.lineno}: {error.msg}") from None
    except BaseException as error:
        raise GenbenchError(f"model file {path} cannot be imported: {explain(error)}") from None
    return module


def _model_class(module: ModuleType, file: str, wanted: str) -> type:
    """The class asked for, or the only model of the module. Raises GenbenchError."""
    from torch import nn

    classes = {name: value for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, nn.Module)}
    own = {name: cls for name, cls in classes.items() if cls.__module__ == module.__name__}
    models = [name for name, cls in own.items() if hasattr(cls, "training_step")]
    if not wanted:
        if len(models) != 1:
            there = f"models in it: {', '.join(models)}" if models else "no class in it has a training_step"
            raise GenbenchError(f"model file {file}: say which class, like {file}:{models[0] if models else 'MyGAN'}; {there}")
        return own[models[0]]
    if wanted in classes:
        return classes[wanted]
    if hasattr(module, wanted):
        raise GenbenchError(f"{file}: {wanted!r} is not a subclass of torch.nn.Module")
    raise GenbenchError(str(unknown("class", wanted, own)).replace("installed:", f"in {file}:").replace("is installed", f"is in {file}"))


def contract_problem(spec: ModelSpec) -> str:
    """A ModelSpec -> how its class breaks the contract of `genbench.model`; empty where it does not."""
    from torch import nn

    from genbench.model import Family

    cls = spec.cls
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        return f"{spec.name}: {getattr(cls, '__name__', cls)!r} is not a subclass of torch.nn.Module"
    missing = [method for method in _CONTRACT if not callable(getattr(cls, method, None))]
    if missing:
        return f"{spec.name}: {cls.__name__} has no method {' and no '.join(missing)}"
    if spec.family not in get_args(Family):
        return f"{spec.name}: family {spec.family!r} is not one of {', '.join(get_args(Family))}"
    try:
        image = next(iter(inspect.signature(cls).parameters.values()), None)
        if image is None or image.default is not image.empty:
            return f"{spec.name}: the first argument of {cls.__name__}.__init__ must be image, without a default"
        found = spec.hparams
    except TypeError as error:
        return f"{spec.name}: {error}"
    except Exception as error:
        return f"{spec.name}: {explain(error)}"
    for preset, values in spec.presets.items():
        for key in values:
            if key not in found:
                return f"{spec.name}: preset {preset!r}: {unknown('hparam', key, found)}".replace("installed:", "hparams:")
    return ""
