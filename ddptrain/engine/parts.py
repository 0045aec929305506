"""The named parts of a step, for a clock or a trace that looks at them; else nothing does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

from torch import nn

Parts = Callable[[str], AbstractContextManager[Any]]
"""What surrounds a part of a step, by its name."""


_NOTHING: AbstractContextManager[Any] = nullcontext()


def unnamed(part: str) -> AbstractContextManager[Any]:
    """Nobody looks."""
    return _NOTHING


class Stopwatch:
    """Adds up the seconds in all blocks that it is around."""

    def __init__(self) -> None:
        self.seconds = self._since = 0.0

    def __enter__(self) -> None:
        self._since = perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += perf_counter() - self._since


class Forward(nn.Module):
    """A network whose forward pass is a part of its own."""

    def __init__(self, model: nn.Module, part: Parts) -> None:
        super().__init__()
        self.model, self._part = model, part

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the network."""
        with self._part("forward"):
            return self.model(*args, **kwargs)
