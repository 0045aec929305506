"""What every inspection is made of: findings, and the datasets of a run as they were read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from ddptrain.data.tables.base import FileTable
from ddptrain.data.tables.faults import Faults
from ddptrain.reporting.page import Section

Part = Literal["train", "val"]


@dataclass
class Inspection:
    """Findings about a run.

    Attributes:
        errors: why training would refuse to start, a line each.
        warnings: what is probably not meant, a line each.
        sections: for a person; facts: the same for a program, plain types by name.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class DataSet(NamedTuple):
    """A dataset that was read.

    Attributes:
        part, number: its place in the config, `data.<part>.<number>`.
        config: its section there.
        table: what is learned or scored, of the task's own kind, with classes of the run.
        annotated: bool `[C]`: the classes of the run that it labels.
        own: its table as it was read, with its own classes.
        faults: what was wrong with its files.
        left_out: what the task's rules removed from `own`, in words.
    """

    part: Part
    number: int
    config: Any
    table: Any
    annotated: np.ndarray
    own: Any
    faults: Faults
    left_out: str = ""

    @property
    def title(self) -> str:
        return f"{self.part} {self.config.name}"

    @property
    def key(self) -> str:
        """Its place in the config: `data.train.0`."""
        return f"data.{self.part}.{self.number}"

    @property
    def images(self) -> Any:
        """The table of its images: that of its samples, or where those are parts of images, `own`."""
        return self.table if isinstance(self.table, FileTable) else self.own

    @property
    def used(self) -> bool:
        """Whether the run draws samples from it, or is scored on it."""
        return self.part == "val" or self.config.share != 0
