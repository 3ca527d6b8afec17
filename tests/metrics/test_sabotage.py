"""The tests, tested: each line of the table makes a metric wrong in one place, and a check must turn red.

A check is a test of this folder whose arguments are metric modules. It runs here, in this process, with modules imported anew from
sources of which one text is replaced. A text that is no longer there fails: the table follows the code.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

import pytest

import genbench
from tests.metrics import (
    test_conditional,
    test_fid,
    test_fidelity,
    test_golden,
    test_inception_score,
    test_kid,
    test_likelihood,
    test_memorisation,
    test_prdc,
    test_properties,
    test_statistics,
)
from tests.metrics.conftest import MODULES

SABOTAGES = [
    # (module, text, replacement)
    ("fid", "S *= 1 / (self._n - 1)", "S *= 1 / self._n"),
    ("fid", "self._shift = x.mean(axis=0, dtype=np.float64)", "self._shift = 0 * x.mean(axis=0, dtype=np.float64)"),
    ("fid", "return self._shift + mean, S", "return mean, S"),
    ("fid", "np.triu(S[rows, rows], 1).T", "np.triu(S[rows, rows], 2).T"),
    ("fid", "S[rows, i + block :].T", "0"),
    ("fid", "- 2 * trace_sqrt(", "- trace_sqrt("),
    ("fid", "float(shift @ shift)", "float(shift @ shift) ** 0.5"),
    ("fid", "+ self.trace + other.trace", "+ self.trace + self.trace"),
    ("fid", "np.sqrt(w).sum()", "w.sum()"),
    ("fid", "if w[0] > 1e-9 * w[-1]:", "if True:"),
    ("fid", "tolerance = d * np.finfo(float).eps", "tolerance = 1e-6"),
    ("fid", "inverse[alive] = 1 / scale[alive]", "inverse[alive] = 1"),
    ("fid", "S = (gram - n * np.outer(mean, mean)) / (n - 1)", "S = (gram - n * np.outer(mean, mean)) / n"),
    ("fid", "(len(v) - 1) / len(v)", "1 / len(v)"),
    ("fid", "float(y.mean() - slope * x.mean())", "float(y.mean() + slope * x.mean())"),
    ("fid", "stdtrit(more.groups - 1, 0.975)) * more.fid_se", "stdtrit(more.groups - 1, 0.95)) * more.fid_se"),
    ("kid", "base += 1", "base += 0"),
    ("kid", "(x / x.shape[1]) @ y.T", "x @ y.T"),
    ("kid", "K *= base", "K *= 1"),
    ("kid", "(_kernel_sum(x, x) - float(diagonal.sum()))", "_kernel_sum(x, x)"),
    ("kid", "- 2 * _kernel_sum(X, Y)", "- _kernel_sum(X, Y)"),
    ("kid", "float(np.std(values))", "float(np.std(values, ddof=1))"),
    ("kid", "n = min(len(evidence.real.images), len(evidence.fake.images))", "n = len(evidence.real.images)"),
    ("pairs", "np.fill_diagonal(K, 0)", "K += 0"),
    ("pairs", "(1 if rows is columns else 2) * _kernel_sums", "_kernel_sums"),
    ("pairs", "(size * (size - 1)) - 2 * between", "(size * (size - 1)) - between"),
    ("pairs", "(size * (size - 1))", "size**2"),
    ("pairs", "offset[rows] = 0.5 +", "offset[rows] ="),
    ("pairs", "K *= base", "K *= 1"),
    ("pairs", "np.fill_diagonal(D, -np.inf)", "D += 0"),
    ("pairs", "* (1 + _RIM)", "* (1 - _RIM)"),
    ("pairs", "Balls(known.radii[K - 1], known.radii[K_DENSITY - 1],", "Balls(known.radii[K_DENSITY - 1], known.radii[K - 1],"),
    ("pairs", "K, K_DENSITY = 3, 5", "K, K_DENSITY = 5, 5"),
    ("pairs", "SUBSETS = 100", "SUBSETS = 10"),
    ("pairs", "min(n_real, n_fake) // 2", "min(n_real, n_fake)"),
    ("pairs", "_drawn(evidence.fake.features, n", "_drawn(evidence.real.features, n"),
    ("prdc", "Balls(radii[k - 1], radii[k_density - 1], own", "Balls(radii[k_density - 1], radii[k - 1], own"),
    ("prdc", "own[k - 1])", "own[k - 2])"),
    ("prdc", "found.inside.mean()), float(found.recalled.mean())", "found.recalled.mean()), float(found.inside.mean())"),
    ("prdc", "(k_density * len(found.inside))", "len(found.inside)"),
    ("prdc", "float(found.covered.mean())", "float(found.recalled.mean())"),
    ("inception_score", "shuffled = logits[", "shuffled = logits  # ["),
    ("inception_score", "np.exp(divergence.mean())", "divergence.mean()"),
    ("inception_score", "np.maximum(part.mean(axis=0)", "np.maximum(p.mean(axis=0)"),
    ("inception_score", "float(np.std(scores))", "float(np.std(scores, ddof=1))"),
    ("inception_score", "i * len(p) // splits", "i * (len(p) - 1) // splits"),
    ("inception_score", "logits = evidence.fake.logits", "logits = evidence.real.logits"),
    ("inception_score", "seed=evidence.seed", "seed=0"),
    ("statistics", "np.abs(_mean(g) - _mean(r)).mean() / 255", "np.abs(_mean(g) - _mean(r)).mean() / 256"),
    ("statistics", "np.abs(_mean(g) - _mean(r)).mean()", "np.abs((_mean(g) - _mean(r)).mean())"),
    ("statistics", "(_variance(g) + 1) / (_variance(r) + 1)", "(_variance(g) + 1) / _variance(r)"),
    ("statistics", "/ s.n**2", "/ (s.n * (s.n - 1))"),
    ("statistics", "(1, 5, 25, 50, 75, 95, 99)", "(1, 5, 25, 50, 75, 90, 99)"),
    ("statistics", "-(-q * s.n // 100)", "q * s.n // 100"),
    ("statistics", "cumulative < rank", "cumulative <= rank"),
    ("statistics", "_cdf(r.counts)).sum(axis=1).mean() / 255", "_cdf(r.counts)).sum(axis=1).mean()"),
    ("statistics", "_cdf(r.counts)).max(axis=1)", "_cdf(r.counts)).mean(axis=1)"),
    ("statistics", "size, gap = np.linalg.norm(r.covariance)", "size, gap = np.linalg.norm(g.covariance)"),
    ("statistics", "(gram - n * np.outer(mean, mean)) / (n - 1)", "(gram - n * np.outer(mean, mean)) / n"),
    ("statistics", "varies = np.diag(r.covariance) > _CONSTANT", "varies = np.diag(r.covariance) > -1"),
    ("statistics", "gap[~np.eye(len(gap), dtype=bool)] ** 2", "gap**2"),
    ("statistics", "scale = np.sqrt(np.clip(np.diag(S), 0, None))", "scale = np.clip(np.diag(S), 0, None)"),
    ("statistics", "QUANTISATION_POWER = 1 / 12", "QUANTISATION_POWER = 1 / 6"),
    ("statistics", "10 * np.log10(", "20 * np.log10("),
    ("statistics", "(columns == 0) | (2 * columns == width)", "columns == 0"),
    ("statistics", "range(1, min(height, width) // 2 + 1)", "range(min(height, width) // 2)"),
    ("statistics", "np.rint(np.hypot", "np.floor(np.hypot"),
    ("statistics", "/ (height * width))", "/ height)"),
    ("statistics", "(0.299, 0.587, 0.114)", "(0.114, 0.587, 0.299)"),
    ("statistics", "r / r.sum()).sum() / 2", "r / r.sum()).sum()"),
    ("statistics", "p, q = g / g.sum(), np.maximum(r, 0.5) / r.sum()", "q, p = np.maximum(g, 0.5) / g.sum(), r / r.sum()"),
    ("statistics", "return g.distance / r.distance", "return r.distance / g.distance"),
    ("statistics", "pairs += len(x) * (len(x) - 1)", "pairs += len(x) ** 2"),
    ("statistics", "d2[d2 < 0.5] = 0", "d2[d2 < 5] = 0"),
    ("statistics", "return 1 - len(self.digests) / self.n", "return len(self.digests) / self.n"),
    ("statistics", "digests += [", "digests = ["),
    ("statistics", "np.unique(np.concatenate([a.digests, b.digests]), axis=0)", "np.concatenate([a.digests, b.digests])"),
    ("statistics", "scatter = (a.n - 1) * a.covariance", "scatter = a.n * a.covariance"),
    ("statistics", "(a.n * b.n / n) * np.outer(gap, gap)", "(a.n * b.n) * np.outer(gap, gap)"),
    ("fidelity", "math.log(n / g) / math.log(n / f)", "math.log(g / f) / math.log(n / f)"),
    ("fidelity", "if n <= f:", "if n < f:"),
    ("fidelity", "f = max(f, 1e-6 * n)", "f = max(f, 0)"),
    ("fidelity", "abs(math.log(value)) if", "math.log(value) if"),
    ("fidelity", "sum(families.values()) / len(families)", "min(families.values())"),
    ("fidelity", 'values["duplicates"] - floors["duplicates"]', 'values["duplicates"]'),
    ("fidelity", "statistics.measure(fake, real)", "statistics.measure(real, fake)"),
    ("fidelity", "np.random.default_rng(seed).permutation(len(second.images))", "np.random.default_rng(0).permutation(len(second.images))"),
    ("fidelity", ".permutation(len(second.images))[:n]", ".permutation(len(second.images))"),
    ("fidelity", "else float(np.median(values))", "else float(np.mean(values))"),
    ("fidelity", "math.exp(np.median([distance(name, value) for value in values]))", "float(np.median(values))"),
    ("fidelity", "_summary(evidence, evidence.real)).items()", "_summary(evidence, evidence.second)).items()"),
    ("fidelity", "np.min_scalar_type(made[\"n\"])", "np.uint8"),
    ("fidelity", "logits.argmax(axis=1)", "logits.argmin(axis=1)"),
    ("memorisation", "to_train.distance > spacing", "to_train.distance < spacing"),
    ("memorisation", "100 * np.mean(to_train", "np.mean(to_train"),
    ("memorisation", "d2[rows[here], own[here]] = np.inf", "d2[rows[here], own[here]] += 0"),
    ("memorisation", "len(t) * _z(g, t)", "len(t) * _z(t, g)"),
    ("memorisation", "weight += len(t)", "weight += len(g)"),
    ("memorisation", "(n * m * (n + m + 1) / 12)", "(n * m * (n + m) / 12)"),
    ("memorisation", "- n * (n + 1) / 2", "- n * (n - 1) / 2"),
    ("likelihood", " - math.log(len(log_weights))", ""),
    ("likelihood", "math.log(2 / LEVELS)", "math.log(1 / LEVELS)"),
    ("likelihood", "-nats / (dims * math.log(2))", "-nats / dims"),
    ("likelihood", "-10 * np.log10(", "-20 * np.log10("),
    ("likelihood", "/ 1.5) ** 2", "/ 2) ** 2"),
    ("likelihood", "(0.03 * (LEVELS - 1)) ** 2", "(0.01 * (LEVELS - 1)) ** 2"),
    ("likelihood", "ACTIVE = 0.01", "ACTIVE = 0.1"),
    ("likelihood", "values.std(ddof=1)", "values.std()"),
    ("conditional", "logits.argmax(axis=1) == labels", "logits.argmin(axis=1) == labels"),
    ("conditional", "rng.permutation(len(side))[:n]", "np.arange(n)"),
    ("conditional", "if len(side) > n else side", "if len(side) < n else side"),
    ("sample", ".add(0.5).floor()", ".floor()"),
    ("sample", ".clamp(-1, 1)", ""),
    ("sample", ".mul(127.5)", ".mul(128)"),
]

FILES = [
    test_golden, test_fid, test_kid, test_prdc, test_inception_score, test_statistics, test_fidelity, test_likelihood, test_conditional,
    test_memorisation, test_properties,
]  # fmt: skip
USED_BY = {"pairs": ("kid", "prdc")}
"""Modules through whose checks another one is seen."""
Check = Callable[..., None]
RED = (AssertionError, ArithmeticError, ValueError, Warning, pytest.fail.Exception)
"""What a wrong number raises. Anything else (a name that is not there) is a sabotage that does not run, and fails."""


def checks() -> Iterator[tuple[Check, tuple[str, ...]]]:
    """Tests whose arguments are metric modules, and those without arguments of files that import them; the modules' names."""
    for file in FILES:
        imported = tuple(name for name, value in vars(file).items() if name in MODULES and isinstance(value, ModuleType))
        for name, function in vars(file).items():
            arguments = tuple(inspect.signature(function).parameters) if name.startswith("test_") else ("",)
            if arguments and set(arguments) <= set(MODULES):
                yield function, arguments
            elif imported and not arguments:
                yield partial(_with_modules, file, imported, function), imported


def _with_modules(file: ModuleType, names: tuple[str, ...], function: Check, *modules: ModuleType) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, module in zip(names, modules, strict=True):
            patch.setattr(file, name, module)
        function()


class _Altered(SourceFileLoader):
    """Loads a module from its source with one text replaced; finds that module alone."""

    def __init__(self, name: str, old: str, new: str) -> None:
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None
        super().__init__(name, found.origin)
        source = Path(found.origin).read_text(encoding="utf-8")
        if source.count(old) != 1:
            pytest.fail(f"{name} holds {source.count(old)} times, not once: {old}")
        self.text = source.replace(old, new)

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, self.path, "exec")

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return spec_from_loader(name, self) if name == self.name else None


@contextmanager
def altered(name: str, old: str = "", new: str = "") -> Iterator[Callable[[str], ModuleType]]:
    """Context in which the modules are imported anew, one of them altered; yields what imports them."""
    before = _forget()
    finders = [_Altered(name, old, new)] if old else []
    sys.meta_path[:0] = finders
    try:
        yield import_module
    finally:
        for finder in finders:
            sys.meta_path.remove(finder)
        _forget()
        for m, module in before.items():
            parent, _, leaf = m.rpartition(".")
            sys.modules[m] = module
            setattr(sys.modules[parent], leaf, module)


def _forget() -> dict[str, ModuleType]:
    """Take the modules away, also from their packages, where ``from package import module`` would find them."""
    ours = [m for m in sys.modules if m.startswith("genbench.metrics.") or m in MODULES.values()]
    for m in ours:
        parent, _, leaf = m.rpartition(".")
        vars(sys.modules[parent]).pop(leaf, None)
    return {m: sys.modules.pop(m) for m in ours}


def red(name: str, load: Callable[[str], ModuleType]) -> list[str]:
    """The first check that fails, those of the module itself before those of others; empty if none does."""
    first = {name, *USED_BY.get(name, ())}
    for check, arguments in sorted(checks(), key=lambda c: first.isdisjoint(c[1])):
        try:
            check(*(load(MODULES[argument]) for argument in arguments))
        except RED:
            return [str(check)]
    return []


def test_unaltered_modules_pass() -> None:
    import genbench.metrics.fid as before

    with altered("genbench.metrics.fid") as load:
        assert load("genbench.metrics.fid") is not before
        assert red("fid", load) == []
    assert sys.modules["genbench.metrics.fid"] is genbench.metrics.fid is before


@pytest.mark.parametrize(("name", "old", "new"), SABOTAGES, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(SABOTAGES)])
def test_a_check_turns_red(name: str, old: str, new: str) -> None:
    with altered(MODULES[name], old, new) as load:
        assert red(name, load), f"no check notices {name}: {old} -> {new}"
