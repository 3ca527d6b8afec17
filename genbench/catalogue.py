"""Discovery: which models, datasets, extractors, metrics and tracks there are, and whose they are.

Plugins are loaded one by one, in this process; one that fails is kept with its reason and harms no other.
`genbench.inventory` describes the same things without importing any plugin here.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

from genbench import builtins, hookspecs
from genbench.errors import GenbenchError, unknown
from genbench.modelfile import contract_problem, is_file, load_model_file
from genbench.origin import KINDS, Broken, Entry, Kind, explain, mentions, model_digest, origin, plugin_points, source_digest

if TYPE_CHECKING:
    from genbench.datasets import DatasetSpec
    from genbench.extractors import ExtractorSpec
    from genbench.metrics import MetricSpec
    from genbench.model import ModelSpec
    from genbench.track import Track

_SPECS: dict[Kind, tuple[str, str]] = {
    "model": ("genbench.model", "ModelSpec"),
    "dataset": ("genbench.datasets", "DatasetSpec"),
    "extractor": ("genbench.extractors", "ExtractorSpec"),
    "metric": ("genbench.metrics", "MetricSpec"),
    "track": ("genbench.track", "Track"),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Catalogue:
    """Everything that was found; the mappings hold what can be used, `broken` what cannot."""

    models: dict[str, Entry[ModelSpec]] = field(default_factory=dict)
    datasets: dict[str, Entry[DatasetSpec]] = field(default_factory=dict)
    extractors: dict[str, Entry[ExtractorSpec]] = field(default_factory=dict)
    metrics: dict[str, Entry[MetricSpec]] = field(default_factory=dict)
    tracks: dict[str, Entry[Track]] = field(default_factory=dict)
    broken: tuple[Broken, ...] = ()
    entries: dict[Kind, list[Entry[Any]]] = field(default_factory=dict)
    """All usable registrations in the order found, duplicates included."""

    def model(self, name: str) -> Entry[ModelSpec]:
        """The model of that name. Raises GenbenchError: unknown (with a suggestion), broken or registered twice."""
        return look_up("model", name, self.models, self.broken)

    def dataset(self, name: str) -> Entry[DatasetSpec]:
        """The dataset of that name. Raises GenbenchError as `model` does."""
        return look_up("dataset", name, self.datasets, self.broken)

    def extractor(self, name: str) -> Entry[ExtractorSpec]:
        """The extractor of that name. Raises GenbenchError as `model` does."""
        return look_up("extractor", name, self.extractors, self.broken)

    def metric(self, name: str) -> Entry[MetricSpec]:
        """The metric of that name. Raises GenbenchError as `model` does."""
        return look_up("metric", name, self.metrics, self.broken)

    def track(self, name: str) -> Entry[Track]:
        """The track of that name. Raises GenbenchError as `model` does."""
        return look_up("track", name, self.tracks, self.broken)


def load_catalogue(points: Iterable[EntryPoint] | None = None, *, builtin: bool = True, kinds: Sequence[Kind] = KINDS) -> Catalogue:
    """Entry points -> what they register; only the hooks of `kinds` are called.

    None stands for the installed entry points; where only some kinds are asked for, those whose source names a hook of
    theirs: asking for datasets imports no model plugin, hence no torch.
    """
    manager = plugin_manager()
    entries: dict[Kind, list[Entry[Any]]] = {kind: [] for kind in KINDS}
    broken: list[Broken] = []
    if builtin:
        from genbench import __version__

        ours = Entry(None, "genbench", __version__, source_digest("genbench"), "genbench.builtins")
        broken += _register(manager, lambda: builtins, ours, kinds, entries)
    if points is None:
        points = [point for point in plugin_points() if set(kinds) == set(KINDS) or any(mentions(point, kind) for kind in kinds)]
    for point in points:
        broken += _register(manager, point.load, origin(point), kinds, entries)
    unique = {}
    for kind in KINDS:
        unique[kind], twice = without_duplicates(kind, entries[kind])
        broken += twice
    return Catalogue(unique["model"], unique["dataset"], unique["extractor"], unique["metric"], unique["track"], tuple(broken), entries)


def load_entry(source: str, name: str) -> Entry[ModelSpec]:
    """The model `name` from one entry point (by its value) or file alone: no other plugin is imported.

    Raises GenbenchError where it is not installed, broken, or does not register the model.
    """
    points = [point for point in plugin_points() if point.value == source]
    if not points:
        if is_file(source):
            return load_model_file(source)
        raise GenbenchError(f"model {name!r}: its plugin {source!r} is not installed")
    return load_catalogue(points, builtin=False, kinds=("model",)).model(name)


def plugin_manager() -> pluggy.PluginManager:
    """A manager that knows the hooks and no plugin yet."""
    manager = pluggy.PluginManager("genbench")
    manager.add_hookspecs(hookspecs)
    return manager


def _register(
    manager: pluggy.PluginManager,
    load: Callable[[], Any],
    source: Entry[None],
    kinds: Sequence[Kind],
    entries: dict[Kind, list[Entry[Any]]],
) -> list[Broken]:
    """Load one plugin, add what it registers to `entries`, return what of it is broken."""

    def broken(reason: str, kind: str = "", name: str = "") -> Broken:
        return Broken(source.distribution, source.version, source.source, reason, kind, name)

    try:
        plugin = load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may raise anything at import, SystemExit included
        return [broken(explain(error))]
    try:
        if manager.get_name(plugin) is not None:
            return [broken(f"its plugin object is registered already, by {manager.get_name(plugin)}")]
        manager.register(plugin, name=f"{source.distribution} {source.source}")
        manager.check_pending()
        hooks = {caller.name: caller for caller in manager.get_hookcallers(plugin) or ()}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if manager.get_name(plugin) is not None:
            manager.unregister(plugin)
        if isinstance(error, pluggy.PluginValidationError):
            return [broken(_unknown_hook(plugin) or "; ".join(str(error).splitlines()[1:]) or str(error))]
        return [broken(explain(error))]
    if not hooks:
        return [broken("it implements no hook; mark functions such as genbench_models with @genbench.hookimpl")]

    failed: list[Broken] = []
    for kind in kinds:
        hook = f"genbench_{kind}s"
        for impl in hooks[hook].get_hookimpls() if hook in hooks else ():
            if impl.plugin is not plugin:
                continue
            if impl.wrapper or impl.hookwrapper:
                failed.append(broken(f"{hook} is a wrapper; a plugin registers its own things only", kind))
                continue
            # Called one by one, not through the manager: pluggy stops at the first plugin that raises.
            try:
                result = impl.function()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                failed.append(broken(f"{hook} raised {explain(error)}", kind))
                continue
            if not isinstance(result, list):
                failed.append(broken(f"{hook} returned a {type(result).__name__}, not a list", kind))
                continue
            for item in result:
                problem, name = _problem(kind, item)
                if problem:
                    failed.append(broken(f"{hook}: {problem}", kind, name))
                else:
                    entries[kind].append(replace(source, spec=item, digest=_digest(kind, item, source)))
    return failed


def _digest(kind: Kind, item: Any, source: Entry[None]) -> str:
    """Of what a plugin registers: of a model whose class is in the plugin's own package, the files it is made of; else the plugin's."""
    if kind == "model" and item.cls.__module__.partition(".")[0] == source.source.partition(":")[0].partition(".")[0]:
        return model_digest(item.cls.__module__) or source.digest
    return source.digest


def _unknown_hook(plugin: Any) -> str:
    """What to say of a hook implementation that no hook answers to; empty where there is none."""
    known = [name for name, value in vars(hookspecs).items() if hasattr(value, "genbench_spec")]
    for name in dir(plugin):
        marks = getattr(inspect.getattr_static(plugin, name, None), "genbench_impl", None)
        hook = (marks or {}).get("specname") or name
        if marks is not None and not marks.get("optionalhook") and hook not in known:
            return str(unknown("hook", hook, known)).replace("installed:", "hooks:")
    return ""


def _problem(kind: Kind, item: Any) -> tuple[str, str]:
    """A registered item -> what is wrong with it (empty: nothing), and its name where that is known."""
    module, cls = _SPECS[kind]
    if not isinstance(item, getattr(importlib.import_module(module), cls)):
        return f"a {type(item).__name__} is not a {cls}", ""
    if not isinstance(item.name, str) or not _NAME.fullmatch(item.name):
        return f"{item.name!r:.80} is no name: letters, digits, '.', '_', '+', '-'", ""
    return (contract_problem(item) if kind == "model" else ""), item.name


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def distribution(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def source(self) -> str: ...


N = TypeVar("N", bound=_Named)


def without_duplicates(kind: Kind, items: Iterable[N]) -> tuple[dict[str, N], list[Broken]]:
    """Items -> those whose name is theirs alone, by name, and one Broken for every registration of the others."""
    by_name: dict[str, list[N]] = {}
    for item in items:
        by_name.setdefault(item.name, []).append(item)
    broken = []
    for name, same in by_name.items():
        if len(same) > 1:
            by = list(dict.fromkeys(item.distribution for item in same))
            reason = f"registered by both {' and '.join(by)}; uninstall one" if len(by) > 1 else f"registered {len(same)} times by {by[0]}"
            broken += [Broken(item.distribution, item.version, item.source, reason, kind, name, duplicate=True) for item in same]
    return {name: same[0] for name, same in by_name.items() if len(same) == 1}, broken


def look_up(kind: Kind, name: str, known: dict[str, N], broken: Iterable[Broken]) -> N:
    """The item called `name`. Raises GenbenchError: broken, registered twice, or unknown with a suggestion."""
    if name in known:
        return known[name]
    broken = list(broken)
    for item in broken:
        if item.kind == kind and item.name == name:
            if item.duplicate:
                raise GenbenchError(f"{kind} {name!r} is {item.reason}")
            raise GenbenchError(f"{kind} {name!r} of {item.distribution} is broken: {item.reason}")
    bare = _squash(name)
    suspects = [item for item in broken if not item.name and item.kind in ("", kind)]
    for item in suspects:
        if len(bare) > 2 and bare in _squash(item.distribution + item.source):
            raise unknown(kind, name, known, hint=f"{item.distribution} is installed but broken: {item.reason}")
    hint = "; ".join(f"broken: {item.distribution}: {item.reason}" for item in suspects[:3])
    raise unknown(kind, name, known, hint=hint)


def _squash(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
