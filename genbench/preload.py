"""Imported once by the fork server, so that a child starts with torch loaded: 0.14 s instead of 3.

Only imports: forking after a multi-threaded torch operation would hang the child, and CUDA works in no process forked after a look at it.
"""

from __future__ import annotations

import contextlib

from genbench.deathsig import die_with_parent, hear_nothing

die_with_parent()
hear_nothing()  # the children, which save themselves when they are asked to end, die with the fork server

import torch  # noqa: E402 - its threads come after the signals are blocked, or they would hear them

if torch.version.cuda is None and torch.version.hip is None:  # elsewhere nobody promises that this leaves the GPU alone
    with contextlib.suppress(Exception):
        import torch._dynamo  # the first optimizer of a process does so, and takes a second for it
