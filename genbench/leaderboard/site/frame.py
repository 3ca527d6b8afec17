"""What all pages share: templates that escape every word, the policy, one style, one script, and how pages are called."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import jinja2

from genbench.leaderboard.table import Row
from genbench.records import ModelRef, safe_name

TEMPLATES = Path(__file__).parents[1] / "templates"
ASSETS = ("site.css", "site.js")
"""Files of this package that pages load from ``assets/``: written once, not into every page."""
POLICY = (
    "default-src 'none'; img-src 'self' file:; style-src 'self' file:; script-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)  # fmt: skip
"""``file:`` beside 'self' for pictures and style: browsers differ in what 'self' means for a page opened from disk."""
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5}(?:v\d+)?)", re.IGNORECASE)


def render(template: str, *, root: str = "", **values: Any) -> bytes:
    """A template and what it shows -> the page; `root` leads from the page to the top of the site (``../`` or nothing)."""
    return _environment().get_template(template).render(root=root, policy=POLICY, **values).encode()


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def model_file(row: Row) -> str:
    """A row -> the path of its model's page inside the site; the same on every track and for ever."""
    return f"models/{safe_name(row.model.name)[:40]}-{row.id}.html"


def paper_link(model: ModelRef) -> str:
    """The address of a model's paper where it names an arXiv id, else nothing."""
    arxiv = _ARXIV.fullmatch(model.paper.strip())
    return f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else ""
