"""Whose code it is: entry points, the digest of a plugin's source found without executing it, and what went wrong in it."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, Literal, TypeVar, get_args

GROUP = "genbench"
Kind = Literal["model", "dataset", "extractor", "metric", "track"]
KINDS: tuple[Kind, ...] = get_args(Kind)
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Entry(Generic[T_co]):
    """One registered thing and where it comes from."""

    spec: T_co
    distribution: str
    version: str
    digest: str
    """SHA-256 over the plugin's ``*.py`` files; of a model, over those it is made of (`model_digest`)."""
    source: str
    """What `load_entry` takes: an entry point's value (``genbench_gans``), or a file's absolute path and class."""

    @property
    def name(self) -> str:
        """The name it is asked for by."""
        return str(self.spec.name)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Broken:
    """A plugin, or one thing of a plugin, that cannot be used, and why."""

    distribution: str
    version: str
    source: str
    reason: str
    kind: str = ""
    name: str = ""
    """Of the thing, where it is known; empty where the whole plugin or hook failed."""
    duplicate: bool = False
    """True where nothing is wrong with it but that another has the same name."""


def plugin_points() -> list[EntryPoint]:
    """The installed entry points of the group ``genbench``, by distribution and name."""
    return sorted(entry_points(group=GROUP), key=lambda point: (distribution_name(point), point.name))


def distribution_name(point: EntryPoint) -> str:
    """The distribution an entry point belongs to; ``?`` where its metadata does not say."""
    return (point.dist.name if point.dist else None) or "?"


def origin(point: EntryPoint) -> Entry[None]:
    """Where what an entry point registers comes from."""
    version = (point.dist.version if point.dist else None) or "?"
    return Entry(None, distribution_name(point), version, source_digest(point.value), point.value)


def source_files(module: str) -> list[tuple[str, Path]]:
    """Module or entry point's value -> (relative name, path) of its package's ``*.py`` files, found without executing it.

    Of a namespace package only the part that the dotted name leads to counts. Empty where nothing is found.
    """
    parts = module.partition(":")[0].strip().split(".")
    try:
        spec = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        return [(Path(spec.origin).name, Path(spec.origin))] if spec.origin and spec.origin.endswith(".py") else []
    folders = [Path(location) for location in spec.submodule_search_locations]
    for part in parts[1:]:
        if any((folder / "__init__.py").is_file() for folder in folders):
            break
        single = [folder / f"{part}.py" for folder in folders if (folder / f"{part}.py").is_file()]
        if single:
            return [(single[0].name, single[0])]
        folders = [folder / part for folder in folders if (folder / part).is_dir()]
    return sorted((path.relative_to(folder).as_posix(), path) for folder in folders for path in folder.rglob("*.py") if path.is_file())


def source_digest(module: str) -> str:
    """Module or entry point's value -> SHA-256 over names and contents of its `source_files`; empty where none is found."""
    return _digest(source_files(module))


def model_digest(module: str) -> str:
    """The module that defines a model's class -> SHA-256 over that file and those of its package that it names in imports, and so on.

    A neighbour's new file, a preset or a description leaves it alone, so the records of a model stay comparable while its package
    grows. Imports are read from the source, not executed; one made at run time (``importlib``) is not seen. Empty where nothing is found.
    """
    package = module.partition(".")[0]
    files = {_dotted(package, name): (name, path) for name, path in source_files(package)}
    found: dict[str, tuple[str, Path]] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        if name in files and name not in found:
            found[name] = files[name]
            pending += _named_in(files[name][1], name, files)
    return _digest(sorted(found.values()))


def file_digest(path: Path) -> str:
    """A model's file -> its SHA-256; where it names modules in imports that lie beside it, and so on, over all these files.

    What is installed comes before what lies beside it, as it does for the import. Raises OSError where the file can't be read.
    """
    own = path.resolve()
    known = {own.stem: (own.name, own)}
    found: dict[str, tuple[str, Path]] = {}
    pending = [own.stem]
    while pending:
        name = pending.pop()
        if name in known and name not in found:
            found[name] = known[name]
            for top in {word.partition(".")[0] for words in _imported(known[name][1], name) for word in words}:
                if not any(module.partition(".")[0] == top for module in known):
                    known |= _beside(own.parent, top)
            pending += [*_named_in(known[name][1], name, known), *([name.rpartition(".")[0]] if "." in name else [])]
    return hashlib.sha256(own.read_bytes()).hexdigest() if len(found) == 1 else _digest(sorted(found.values()))


def _beside(folder: Path, top: str) -> dict[str, tuple[str, Path]]:
    """Module -> (relative name, path) of what ``import top`` finds in a folder that is looked in last."""
    if top == "genbench" or top in sys.stdlib_module_names:
        return {}
    try:
        installed = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        installed = None
    places = [installed.origin, *(installed.submodule_search_locations or [])] if installed else []
    if any(place and not Path(place).resolve().is_relative_to(folder) for place in places):
        return {}
    single, package = folder / f"{top}.py", folder / top
    if package.is_dir():
        files = ((path.relative_to(package).as_posix(), path) for path in package.rglob("*.py"))
        return {_dotted(top, name): (f"{top}/{name}", path) for name, path in files}
    return {top: (single.name, single)} if single.is_file() else {}


def _digest(files: list[tuple[str, Path]]) -> str:
    whole = hashlib.sha256()
    for name, path in files:
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        whole.update(f"{name}\0{len(content)}\0".encode() + content)
    return whole.hexdigest() if files else ""


def _dotted(package: str, file: str) -> str:
    """``("genbench_gans", "nets/resnet.py")`` -> ``genbench_gans.nets.resnet``."""
    parts = [part for part in file.removesuffix(".py").split("/") if part != "__init__"]
    return package if parts == [package] else ".".join([package, *parts])


def _named_in(path: Path, name: str, known: dict[str, tuple[str, Path]]) -> list[str]:
    """The modules, of those known, that a file's import statements name."""
    return [module for words in _imported(path, name) if (module := next((word for word in words if word in known), ""))]


def _imported(path: Path, name: str) -> list[list[str]]:
    """The file of a module -> what its import statements may mean, each as a list of modules, the likelier first."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [[alias.name] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + (path.name == "__init__.py")] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            # ``from package import module`` names the module, ``from package import function`` the package's own file
            found += [[f"{base}.{alias.name}", base] for alias in node.names]
    return found


def mentions(point: EntryPoint, kind: Kind) -> bool:
    """Whether a plugin's source names the hook of `kind`; true where its source cannot be read."""
    files = source_files(point.value)
    try:
        return not files or any(f"genbench_{kind}s" in path.read_text(encoding="utf-8", errors="replace") for _, path in files)
    except OSError:
        return True


def explain(error: BaseException) -> str:
    """An exception of someone else's code -> one line: its type, its first line and where it was raised."""
    try:
        message = str(error).strip().splitlines()[:1]
    except Exception:  # a hostile __str__
        message = []
    text = "".join(c if c.isprintable() else "?" for c in ": ".join([type(error).__name__, *message]))[:300]
    library = sysconfig.get_path("stdlib")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and ("site-packages" in frame.filename or not frame.filename.startswith(library))
    ]
    if isinstance(error, SyntaxError) or not frames:
        return text
    last = Path(frames[-1].filename)  # without its folder: reasons are stored and shown to others
    return f"{text} ({last.parent.name}/{last.name}:{frames[-1].lineno})"
