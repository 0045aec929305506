"""The run's classes, and what each dataset of a mixture knows about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddptrain.config.data import DatasetConfig
from ddptrain.data.tables.base import DROP, I32, IGNORE, Mask, T, Table
from ddptrain.errors import UserError
from ddptrain.system.printable import first_few

OTHERS = "*"  # in `rename`, `ignore` or `drop`: all own classes that nothing else says anything about


_REGION = re.compile(r"(ignored?|dontcare|donotcare|void|unlabell?ed|nolabels?)((class|region|area|object|box)(es|s)?)?")


def named_like_regions(classes: Sequence[str]) -> list[str]:
    """Those of some class names that say of a place that nothing is right or wrong there."""
    return [c for c in classes if _REGION.fullmatch(re.sub(r"[\W\d_]", "", c.casefold()))]


@dataclass(frozen=True, eq=False)
class LabelSpace:
    """Maps the own classes of D datasets to the C classes of the run.

    Attributes:
        classes: the run's classes, in the order of their numbers.
        datasets: the datasets' names.
        maps: per dataset, int32 `[own classes]`: class of the run, or `DROP`, or `IGNORE`.
        annotated: bool `[D, C]`: the dataset labels the class; elsewhere the class is unknown there, not absent.
    """

    classes: tuple[str, ...]
    datasets: tuple[str, ...]
    maps: tuple[I32, ...]
    annotated: Mask

    @classmethod
    def build(cls, classes: Sequence[str], configs: Sequence[DatasetConfig], tables: Sequence[Table]) -> LabelSpace:
        """The label space of tables as they were read, one per config. `UserError` where an own class would vanish in
        silence, or where a config names a class that does not exist."""
        maps = [_map(tuple(classes), c, t) for c, t in zip(configs, tables, strict=True)]
        rows = [_annotated(tuple(classes), c, m, t) for c, m, t in zip(configs, maps, tables)]
        annotated = np.array(rows, bool).reshape(len(maps), len(classes))
        return cls(tuple(classes), tuple(c.name for c in configs), tuple(maps), annotated)

    def apply(self, table: T) -> T:
        """The table with labels of the run; what becomes of dropped and ignored ones, its `to_classes` says."""
        return table.to_classes(self.classes, self.maps[self.datasets.index(table.name)])


def classes_of(configs: Sequence[DatasetConfig], tables: Sequence[Table]) -> tuple[str, ...]:
    """The classes that the datasets have: one dataset after the other, each in the order of its own ids, by their names
    after `rename`, without those that are ignored or dropped."""
    classes: dict[str, None] = {}
    for config, table in zip(configs, tables, strict=True):
        rest = OTHERS not in (*config.ignore, *config.drop)
        for name in table.names:
            if name in config.rename:
                classes[config.rename[name]] = None
            elif name not in (*config.ignore, *config.drop, *table.ignored_names) and rest:
                classes[config.rename.get(OTHERS, name)] = None
    return tuple(classes)


def _map(classes: tuple[str, ...], config: DatasetConfig, table: Table) -> I32:
    own = table.names
    for key, named in (("rename", config.rename), ("ignore", config.ignore), ("drop", config.drop)):
        for name in named:
            if name not in own and name != OTHERS:
                raise UserError(f"{config.name}: {key}: {name!r} is not one of its classes: {', '.join(own)}")
    chosen = [*config.rename, *config.ignore, *config.drop]
    for name in chosen:
        if chosen.count(name) > 1:
            raise UserError(f"{config.name}: {name!r} is listed in more than one of rename, ignore and drop; keep one")
    mapping, unmapped = [], []
    for name in own:
        if name in config.drop:
            mapping.append(DROP)
        elif name in config.ignore:
            mapping.append(IGNORE)
        elif config.rename.get(name, name) in classes:
            mapping.append(classes.index(config.rename.get(name, name)))
        elif OTHERS in config.ignore or name in table.ignored_names:
            mapping.append(IGNORE)
        elif OTHERS in config.rename:
            mapping.append(classes.index(config.rename[OTHERS]))
        elif OTHERS in config.drop:
            mapping.append(DROP)
        else:
            unmapped.append(name)
    if unmapped:
        raise UserError(_unmapped_line(classes, config, unmapped))
    return np.array(mapping, np.int32)


def _unmapped_line(classes: tuple[str, ...], config: DatasetConfig, unmapped: list[str]) -> str:
    shown = first_few(unmapped, most=20)
    lower = {c.lower(): c for c in classes}
    near = [f"{n}: {lower[n.lower()]}" for n in unmapped if n.lower() in lower]
    hint = f" (rename: {{{', '.join(near)}}} fits)" if near else ""
    return (
        f"{config.name}: its classes {shown} are not among the run's classes{hint}; rename them to classes, ignore"
        f" them, drop them (drop: ['*'] for all), or add them to classes"
    )


def _annotated(classes: tuple[str, ...], config: DatasetConfig, mapping: I32, table: Table) -> Mask:
    if config.annotated is None:
        return np.isin(np.arange(len(classes)), mapping)
    given = np.array([config.annotated == "all" or c in config.annotated for c in classes], bool)
    if given.all():
        return given
    # a name alone is not a label: the classes of a mixture are often listed in each of its datasets
    occurring = np.isin(np.arange(len(classes)), mapping[table.samples_by_class() > 0])
    contradicted = np.flatnonzero(occurring & ~given)
    if len(contradicted):
        name = classes[contradicted[0]]
        raise UserError(f"{config.name}: has labels of {name!r}, which annotated leaves out; add it there or drop it")
    return given
