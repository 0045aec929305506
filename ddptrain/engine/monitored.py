"""The metrics by which checkpoints are compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ddptrain.errors import UserError


def monitored(asked: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Those that are asked for, behind the most important of those that are known; raises `UserError` for an unknown one."""
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise UserError(f"checkpoint.monitor: no metric {unknown[0]!r}; there are {', '.join(known)}")
    return tuple(dict.fromkeys((known[0], *asked)))


def is_better(name: str, value: float, best: float | None) -> bool:
    """Lower is better for `loss`, higher for all others; what is not finite never is."""
    return math.isfinite(value) and (best is None or (value < best if name == "loss" else value > best))
