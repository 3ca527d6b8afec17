"""What rows are called: the model's name, with no more than tells it from its namesakes in the same table."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from genbench.harmless import clean
from genbench.records import ModelRef

_LONGEST = 160
"""Characters of a label, before what `distinct` adds: short enough that no page cuts that away again."""


def labels_of(models: Mapping[str, ModelRef]) -> dict[str, str]:
    """Identity -> name, with what tells it from its namesakes: the hparams that differ, then version, then digest; no two are equal."""
    namesakes: dict[str, list[str]] = defaultdict(list)
    for key, model in models.items():
        namesakes[clean(model.name, 60) or "_"].append(key)
    labels = {}
    for name, keys in namesakes.items():
        twins = [models[key] for key in keys]
        settings = [{**model.hparams, **model.changed} for model in twins]
        changed = sorted({hparam for model in twins for hparam in model.changed})
        differing = [hparam for hparam in changed if len({repr(setting.get(hparam)) for setting in settings}) > 1]
        alike: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            alike[repr(sorted(models[key].changed.items()))].append(key)
        apart = {key: told for group in alike.values() for key, told in _apart(group, models).items()}
        for key, setting in zip(keys, settings, strict=True):
            told = [name] + [clean(f"{hparam}={setting.get(hparam)}", 40) for hparam in differing]
            labels[key] = clean(" ".join(told + apart[key]), _LONGEST)
    return distinct(labels)


def distinct(labels: Mapping[str, str]) -> dict[str, str]:
    """Key -> label; labels that look the same get ``#<key>``, as often as it takes."""
    found = dict(labels)
    while True:
        shown = {key: unicodedata.normalize("NFKC", label) for key, label in found.items()}
        counts = Counter(shown.values())
        equal = [key for key in found if counts[shown[key]] > 1]
        if not equal:
            return found
        for key in equal:
            found[key] += f" #{key}"


def _apart(keys: Sequence[str], models: Mapping[str, ModelRef]) -> dict[str, list[str]]:
    """Models of one name and equal hparams -> what tells each from the others: version, digest, identity, as far as needed."""
    versions = {models[key].version for key in keys}
    digests = {(models[key].version, models[key].digest) for key in keys}
    return {
        key: [
            *([f"v{clean(models[key].version, 20)}"] if len(versions) > 1 else []),
            *([clean(models[key].digest[:8])] if len(versions) < len(keys) else []),
            *([f"#{key}"] if len(digests) < len(keys) else []),
        ]
        for key in keys
    }
