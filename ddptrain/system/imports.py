"""Imports of large packages, fast."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports(own: bool) -> Iterator[None]:
    """Around imports at the start of a command: Python looks for no garbage meanwhile, which takes a fifth of their time and
    finds none.

    Args:
        own: the process is this command's own: nor does Python ever look among what was made up to here.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if own:
            gc.freeze()
        if before:
            gc.enable()
