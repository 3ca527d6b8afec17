"""What rows are called: the model's name, with no more than tells it from its namesakes in the same table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from genbench.leaderboard.text import clean
from genbench.records import ModelRef


def labels_of(models: Mapping[str, ModelRef]) -> dict[str, str]:
    """Identity -> name, with what tells it from its namesakes: the hparams that differ, then version, then digest."""
    namesakes: dict[str, list[str]] = defaultdict(list)
    for key, model in models.items():
        namesakes[model.name].append(key)
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
            told = [clean(name, 60) or "_"] + [clean(f"{hparam}={setting.get(hparam)}", 40) for hparam in differing]
            labels[key] = " ".join(told + apart[key])
    return labels


def _apart(keys: Sequence[str], models: Mapping[str, ModelRef]) -> dict[str, list[str]]:
    """Models of one name and equal hparams -> what tells each from the others: version, digest, identity, as far as needed."""
    versions = {models[key].version for key in keys}
    digests = {(models[key].version, models[key].digest) for key in keys}
    return {
        key: [
            *([f"v{clean(models[key].version, 20)}"] if len(versions) > 1 else []),
            *([models[key].digest[:8]] if len(versions) < len(keys) else []),
            *([f"#{key}"] if len(digests) < len(keys) else []),
        ]
        for key in keys
    }
