"""The people of one frame of JRDB, and who of them interacts; see `jrdb.py` for the file."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ddptrain.data.formats.fields import BOX, FLAG, ID, INTEGER, MAPPING, TEXT, Entries, Field
from ddptrain.data.tables.faults import Faults

PAIRS = "H-interaction"

LABEL_ID = Field(
    "a text such as pedestrian:3", lambda v: all(type(n) is str and re.fullmatch(r"pedestrian:\d{1,9}", n) for n in v)
)
DIFFICULTIES = Field(
    "a mapping from names to integers",
    lambda v: MAPPING.fits(v) and all(TEXT.fits(list(m)) and INTEGER.fits(list(m.values())) for m in v),
)
Labels = dict[str, int]
"""Name of an interaction → difficulty."""


class Person(NamedTuple):
    """One row of a frame: x, y, w, h as in the file, and the row itself."""

    track: int
    box: tuple[float, float, float, float]
    row: Mapping[str, Any]


def people_in(rows: Any, where: str, faults: Faults) -> Iterator[Person]:
    """The sound rows of one frame."""
    if type(rows) is not list:
        faults.add("malformed row", where, f"the frame is {rows!r:.60}; must be a list of people")
        return
    entries = Entries(rows, lambda number: f"{where}: {_called(rows[number], number)}", faults)
    names, boxes = entries.column("label_id", LABEL_ID), entries.column("box", BOX)
    for key in ("social_activity", "action_label"):
        entries.optional(key, DIFFICULTIES)
    for key, inner, field in (("attributes", "no_eval", FLAG), ("social_group", "cluster_ID", ID)):
        entries.check(inner, [m.get(inner) for m in entries.optional(key, MAPPING, {})], field)
    seen = set()
    for i in np.flatnonzero(entries.good).tolist():
        track, box = _track(names[i]), boxes[i]
        if box[2] <= 0 or box[3] <= 0:
            faults.add("zero-area box", where, f"{names[i]} {box}")
        elif track in seen:
            faults.add("duplicate row", where, f"{names[i]} is listed twice")
        else:
            seen.add(track)
            yield Person(track, (float(box[0]), float(box[1]), float(box[2]), float(box[3])), rows[i])


def _called(row: Any, number: int) -> str:
    label = row.get("label_id") if isinstance(row, dict) else None
    return str(label) if LABEL_ID.fits([label]) else f"row {number}"


def _track(label: str) -> int:
    """N of `pedestrian:N`."""
    return int(label.partition(":")[2])


def named_pairs(people: list[Person], where: str, faults: Faults) -> dict[tuple[int, int], Labels]:
    """The pairs of `H-interaction` by their places in `people`; the labels of both directions together, of one that stands
    there more than once the easiest."""
    place = {p.track: i for i, p in enumerate(people)}
    pairs: dict[tuple[int, int], Labels] = defaultdict(dict)
    for i, person in enumerate(people):
        entries = person.row.get(PAIRS) or ()
        for entry in entries if isinstance(entries, (list, tuple)) else [entries]:
            own = f"pedestrian:{person.track}"
            named = entry.get("pair") if isinstance(entry, dict) else None
            # the file names the other one, or both
            others: list[Any] = [n for n in named if n != own] if isinstance(named, list) else [named]
            labels: Any = entry.get("inter_labels") if isinstance(entry, dict) else None
            if len(others) != 1 or not LABEL_ID.fits(others) or others == [own] or not DIFFICULTIES.fits([labels]):
                what = f"{own}: {PAIRS} without another pedestrian, or inter_labels that are not {DIFFICULTIES.allowed}"
                faults.add("malformed row", where, f"{what}: {entry!r:.80}")
                continue
            track = _track(others[0])
            if track not in place:
                faults.add("track without box", where, f"{own} interacts with pedestrian:{track}, who has no box there")
                continue
            pair = pairs[min(i, place[track]), max(i, place[track])]
            for name, difficulty in labels.items():
                pair[name] = min(difficulty, pair.get(name, difficulty))
    return pairs


def group_pairs(people: list[Person]) -> dict[tuple[int, int], Labels]:
    """All pairs within the social groups, with the activities or else the actions that both have, as difficult as the
    harder one."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, person in enumerate(people):
        cluster = mapping(person.row, "social_group").get("cluster_ID")
        if cluster is not None:
            groups[cluster].append(i)
    pairs = {}
    for members in groups.values():
        for i, j in combinations(members, 2):
            shared: Labels = {}
            for key in ("social_activity", "action_label"):
                a, b = (mapping(people[k].row, key) for k in (i, j))
                shared = shared or {name: max(a[name], b[name]) for name in a if name in b}
            pairs[i, j] = shared
    return pairs


def mapping(row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under a key, empty where there is none."""
    return row.get(key) or {}
