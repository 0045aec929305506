"""What can be said about an interaction run from its datasets alone, before anything is learned."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ddptrain.config import InteractionConfig, RunConfig
from ddptrain.data.formats.jrdb import read_jrdb
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.data.tables.pairs import PairTable, find_pairs
from ddptrain.data.tables.people import PeopleTable
from ddptrain.tasks.inspection.base import DataSet, Inspection, read_sets
from ddptrain.tasks.inspection.classes import class_warnings, tell_classes
from ddptrain.tasks.inspection.twins import tell_duplicates


class _Frames(NamedTuple):
    """Frames of a dataset and the pairs of people on them that are looked at."""

    people: PeopleTable
    pairs: PairTable


def inspect_interaction(config: RunConfig, images: int) -> Inspection:
    """Read all datasets of a run and look for faults, classes without pairs, and frames that come twice or in both parts.

    Args:
        images: how many are opened to look for duplicates, over all datasets; 0 for all.
    """
    out = Inspection()
    sets = _read(config, out)
    if sets:
        pairs = [s._replace(table=s.table.pairs) for s in sets]
        tell_classes(pairs, config.classes, np.array([s.table.samples_by_class() for s in pairs]), "pair", out)
        if _stage(config) == 2:
            out.warnings += class_warnings(config, pairs, "pair", masked=config.loss.name == "bce")
        tell_duplicates([s._replace(table=s.table.people) for s in sets], images, out)
    return out


def _stage(config: RunConfig) -> int:
    assert isinstance(config.model, InteractionConfig)
    return config.model.stage


def _read(config: RunConfig, out: Inspection) -> list[DataSet]:
    stage, rules = _stage(config), config.data.pairs

    def apply(space: LabelSpace, table: PeopleTable, part: str) -> _Frames:
        seed = config.seed if part == "train" else None
        return _Frames(table, find_pairs(space.apply(table), rules, stage, seed)[0])

    def describe(frames: _Frames) -> tuple[list[Any], dict[str, Any]]:
        table, pairs = frames
        cells = {
            "sequences": len(table.sequences),
            "people": len(table.boxes),
            "unlabelled_frames": int((~table.labelled).sum()),
            "pairs": len(pairs),
            "interacting": int(pairs.interacting.sum()),
        }
        return [*cells.values()], cells

    columns = ("sequences", "people", "unlabelled frames", "pairs", "interacting")
    return read_sets(config, out, read_jrdb, apply, describe, columns)
