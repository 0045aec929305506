"""ddptrain: train vision models on weighted mixtures of datasets. A run is a function of its config and its seed.

The names below are imported when they are first used: `import ddptrain` itself imports neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ddptrain.version import __version__

if TYPE_CHECKING:
    from ddptrain.api import BoxResult, LabelResult, MaskResult, Model, PairResult, Run, load, train
    from ddptrain.config import RunConfig, load_config
    from ddptrain.errors import RunFailed, UserError

__all__ = [
    "BoxResult",
    "LabelResult",
    "MaskResult",
    "Model",
    "PairResult",
    "Run",
    "RunConfig",
    "RunFailed",
    "UserError",
    "__version__",
    "load",
    "load_config",
    "train",
]
_PLACES = {"RunConfig": "config", "load_config": "config", "RunFailed": "errors", "UserError": "errors"}
"""Modules of the names that are not in `ddptrain.api`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ddptrain' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ddptrain.{_PLACES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
