"""What batches cost, part by part: read off the functions that make them, which know nothing of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

from ddptrain.data.augment import color, effects, warp
from ddptrain.data.images import read
from ddptrain.data.packed.file import Packed
from ddptrain.data.tables.masks import read_mask
from ddptrain.structures import Batch, SampleKey
from ddptrain.system.clock import NO_TIME, Clock, Seconds

WORK: dict[str, tuple[Callable[..., Any], ...]] = {
    "read": (read.file_bytes, Packed.get),
    "decode": (read.read_image, read.read_levels, read_mask),
    "warp": (warp.warp, warp.warp_nearest, warp.Patch.onto, warp.Patch.on_square),
    "colour": (color.tint, effects.Effects.on),
}
"""The functions that do the work of a part; what they call is theirs, but for functions of another part."""
COLLATE, REST = "collate", "boxes and draws"
PARTS = (*WORK, REST, COLLATE)
"""In the order of the work; `REST` is all else of a sample."""
_PART_OF: dict[CodeType, str] = {f.__code__: part for part, functions in WORK.items() for f in functions}


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Around the making of samples in this thread: the clock is told what is worked at. Adds some tenths of a millisecond to a
    sample."""

    def on_call(frame: FrameType, _: str, __: Any) -> Any:
        part = _PART_OF.get(frame.f_code)
        if part is None:
            return None
        clock.begin(part)
        frame.f_trace_lines = False
        return on_return

    def on_return(_: FrameType, event: str, __: Any) -> Any:
        if event == "return":
            clock.end()
        return on_return

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(before)


class Measured(list[SampleKey]):
    """The keys of a batch whose making is measured."""


class Costs:
    """What the measured batches of a loader took.

    Attributes:
        wanted: batches to come that are measured.
        samples: in those that have come.
    """

    def __init__(self) -> None:
        self.wanted = 0
        self.clear()

    def clear(self) -> None:
        """Forget what has come."""
        self.samples = 0
        self._seconds: dict[str, Seconds] = {}

    def mark(self, batches: Iterable[list[SampleKey]]) -> Iterator[list[SampleKey]]:
        """The keys of batches, those that are wanted as `Measured`."""
        for keys in batches:
            if self.wanted:
                self.wanted -= 1
                keys = Measured(keys)
            yield keys

    def add(self, batch: Batch) -> None:
        """Count a batch that has come."""
        if batch.seconds:
            self.samples += len(batch)
        for part, seconds in batch.seconds.items():
            self._seconds[part] = self._seconds.get(part, NO_TIME).plus(*seconds)

    def totals(self) -> dict[str, Seconds]:
        """The seconds of all that have come, by part, in the order of the work."""
        return {part: self._seconds[part] for part in PARTS if part in self._seconds}
