"""What every inspection is made of: findings, and the datasets of a run as they can be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ddptrain.config import DatasetConfig, RunConfig
from ddptrain.data.tables.faults import KINDS, Faults, OnFault
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.errors import UserError
from ddptrain.reporting.page import Section, details

SHOWN_FAULTS = 50


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
    """A dataset that could be read, with classes of the run; `table` is of the task's own kind."""

    part: str
    config: DatasetConfig
    table: Any
    annotated: np.ndarray

    @property
    def title(self) -> str:
        return f"{self.part} {self.config.name}"

    def key(self, config: RunConfig) -> str:
        """Where it stands in the config: `data.train.0`."""
        return f"data.{self.part}.{[d.name for d in getattr(config.data, self.part)].index(self.config.name)}"


def data_sets(config: RunConfig, part: str, tables: Sequence[Any], annotated: np.ndarray) -> list[DataSet]:
    """The datasets of one part of a run whose tables a task has read; `annotated`: bool `[datasets, classes]`."""
    return [DataSet(part, d, t, row) for d, t, row in zip(getattr(config.data, part), tables, annotated, strict=True)]


def read_sets(
    config: RunConfig,
    out: Inspection,
    read: Callable[[DatasetConfig, OnFault], tuple[Any, Faults]],
    apply: Callable[[LabelSpace, Any, str], Any],
    describe: Callable[[Any], tuple[list[Any], dict[str, Any]]],
    columns: Sequence[str],
) -> list[DataSet]:
    """All datasets of a run that can be read; the others and their faults are told, and all have a row of a table.

    Args:
        read: table and faults of a dataset; apply: the table with classes of the run, in train or val.
        describe: cells of its row, and facts, of such a table; columns: names of the cells.
    """
    sets, rows, folded = [], [], []
    facts = out.facts["datasets"] = []
    for part in ("train", "val"):
        for d in getattr(config.data, part):
            try:
                own, faults = read(d, "drop")
                tell_faults(config, part, d, faults, out)
                space = LabelSpace.build(config.classes, [d], [own])
                table = apply(space, own, part)
            except UserError as e:
                out.errors.append(f"{part}: {e}")
                continue
            sets.append(DataSet(part, d, table, space.annotated[0]))
            cells, told = describe(table)
            rows.append([part, d.name, d.format, len(own), *cells, faults.text()])
            of_all = {"part": part, "name": d.name, "format": d.format, "images": len(own)}
            facts.append(of_all | told | {"faults": dict(faults.counts)})
            if faults.kept:
                text = f"{part} {d.name}: {sum(faults.counts.values())} faults, the first {SHOWN_FAULTS}"
                folded.append(details(text, [str(f) for f in faults.kept[:SHOWN_FAULTS]]))
    out.sections.append(Section("Datasets", [], ("part", "dataset", "format", "images", *columns, "faults"), rows, folded))
    return sets


def tell_faults(config: RunConfig, part: str, d: DatasetConfig, faults: Faults, out: Inspection) -> None:
    """An error or a warning, as `data.on_fault` says, about the faults of one dataset that would end a run."""
    first = next(faults.errors(), None)
    if first is None:
        return
    counts = ", ".join(f"{n} {k}" for k, n in faults.counts.items() if KINDS[k].error)
    line = f"{part} {d.name}: {counts}; the first: {first}"
    if config.data.on_fault == "error":
        out.errors.append(f"{line}; correct the files, or set data.on_fault=drop")
    else:
        out.warnings.append(line)
