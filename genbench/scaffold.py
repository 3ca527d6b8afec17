"""``genbench new``: a plugin package with one small model in it, which installs, passes its own tests and trains from the start."""

from __future__ import annotations

import ast
import re
from importlib import metadata, resources
from pathlib import Path
from string import Template

from genbench.errors import GenbenchError, unknown

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_ABOUT = {
    "gan": {"paper": "arXiv:1406.2661", "description": "Non-saturating GAN of two perceptrons"},
    "vae": {"paper": "arXiv:1312.6114", "description": "Variational autoencoder of two perceptrons, Gaussian likelihood"},
}
_FILES = {
    "pyproject.toml": "model/pyproject.toml",
    "README.md": "model/README.md",
    ".gitignore": "model/gitignore",
    "src/$package/__init__.py": "model/init.py",
    "src/$package/model.py": "$family/model.py",
    "src/$package/py.typed": "",
    "tests/test_conformance.py": "model/test_conformance.py",
}
"""File of the new package -> its template."""


def new_package(name: str, family: str, place: Path) -> list[Path]:
    """Model's name, ``gan`` or ``vae``, folder -> the files of ``genbench-<name>`` written there.

    Raises GenbenchError for a name that would not do, a place that can't be written, and rather than overwrite anything.
    """
    if family not in _ABOUT:
        raise GenbenchError(str(unknown("family", family, _ABOUT)).replace("installed:", "families:"))
    check_name(name)
    words = {
        "name": name, "distribution": f"genbench-{name}", "package": f"genbench_{name.replace('-', '_')}", "cls": class_name(name),
        "family": family, **_ABOUT[family],
    }  # fmt: skip
    words["hparams"] = _hparams(_filled("$family/model.py", words))
    folder = place / words["distribution"]
    written = []
    try:
        if folder.exists():
            raise GenbenchError(f"{folder} exists already; nothing was written. Choose another name or --path, or remove it")
        for path, template in _FILES.items():
            file = folder / Template(path).substitute(words)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_filled(template, words) if template else "", encoding="utf-8")
            written.append(file)
    except OSError as error:
        raise GenbenchError(f"{folder} can't be written: {error.strerror or error}; choose another folder with --path") from None
    return written


def check_name(name: str) -> None:
    """Raise GenbenchError for a name that no new model could have."""
    bare = name.removeprefix("genbench-")
    if not _NAME.fullmatch(name) or bare != name:
        likely = "-".join(re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", bare).lower()))
        example = likely if _NAME.fullmatch(likely) else "my-gan"
        reason = "the package will be called genbench-NAME: leave that part out" if bare != name else "lower-case words joined by dashes"
        raise GenbenchError(f"{name!r} is no name for a model ({reason}); what would do: {example}")
    try:
        metadata.distribution(f"genbench-{name}")
    except metadata.PackageNotFoundError:
        return
    raise GenbenchError(f"a package called genbench-{name} is installed already; choose another name")


def class_name(name: str) -> str:
    """``my-gan`` -> ``MyGAN``, ``tiny-infovae`` -> ``TinyInfoVAE``."""
    return "".join(re.sub(r"(gan|vae)$", lambda end: end[0].upper(), part[0].upper() + part[1:], flags=re.I) for part in name.split("-"))


def _filled(template: str, words: dict[str, str]) -> str:
    path = Template(template).substitute(words)
    return Template(resources.files("genbench").joinpath(f"templates/{path}.template").read_text(encoding="utf-8")).substitute(words)


def _hparams(code: str) -> str:
    """The rows of the README's table from the signature in the model's code."""
    init = next(node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    named = [argument.arg for argument in init.args.args[-len(init.args.defaults) :]]
    return "\n".join(f"| `{name}` | {ast.unparse(default)} | |" for name, default in zip(named, init.args.defaults, strict=True))
