"""Imported once by the fork server, so that a child starts with torch loaded: 0.6 s instead of 3.

Only imports: forking after a multi-threaded torch operation would hang the child.
"""

from __future__ import annotations

import torch  # noqa: F401

from genbench.deathsig import die_with_parent

die_with_parent()
