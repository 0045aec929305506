"""JRDB: people in stitched panoramas, one JSON a sequence, with social groups (JRDB-Act) or interactions (JRDB-Social).

    images/image_stitched/<sequence>/000015.jpg
    labels/labels_2d_activity_social_stitched/<sequence>.json     (or labels_2d_stitched: boxes only)

    {"labels": {"000015.jpg": [{"label_id": "pedestrian:3", "box": [x, y, w, h], "attributes": {"no_eval": false},
                                "action_label": {"walking": 1}, "social_activity": {"walking together": 1},
                                "social_group": {"cluster_ID": 5},
                                "H-interaction": [{"pair": "pedestrian:4", "inter_labels": {"walking together": 1}}]}]}}

Numbers behind names are difficulties, 1 to 3. Who interacts: where a file has `H-interaction` anywhere, the pairs that it
names, the labels of both directions together; else people of one social group, with the social activities that both have,
or where they share none the actions that both have.
"""

import os
from array import array
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from ddptrain.config import InteractionDataset
from ddptrain.data.formats.build import check
from ddptrain.data.formats.collect import ImageCollector, in_fractions
from ddptrain.data.formats.files import (
    dataset_root,
    find_folder,
    folders_in,
    images_below,
    no_split,
    note_unlabelled,
    visible,
)
from ddptrain.data.formats.jrdb_people import PAIRS, Labels, Person, group_pairs, mapping, named_pairs, people_in
from ddptrain.data.formats.texts import listed_names, load_json
from ddptrain.data.tables.base import to_offsets
from ddptrain.data.tables.faults import Faults, OnFault
from ddptrain.data.tables.people import PeopleTable
from ddptrain.errors import UserError

IMAGES = ("images/image_stitched", "image_stitched")
LABELS = tuple(f"{a}labels_2d_{b}stitched" for b in ("activity_social_", "") for a in ("labels/", ""))
"""Folders below the root, the first that exists is taken."""


def read_jrdb(config: InteractionDataset, on_fault: OnFault = "error") -> tuple[PeopleTable, Faults]:
    """The table of one dataset and the faults that were found in it; raises `UserError` like `formats.build.read`."""
    faults = Faults()
    labels = find_folder(config, config.annotations, "annotations", LABELS)
    images = find_folder(config, config.images, "images", IMAGES)
    files = {p.stem: p for p in visible(labels, "*.json")}
    chosen = sequences(config, tuple(files))
    collector = _Collector(config, faults, labels, images)
    unnamed: list[str] = []
    for name, file in files.items():
        content = load_json(config.name, file, ["labels"], dict)["labels"]
        collector.file(file, content, images / name if name in chosen else None)
        if name in chosen and (images / name).is_dir():
            unnamed += [p for p in images_below(images / name, Faults(), deep=False) if os.path.basename(p) not in content]
    note_unlabelled(unnamed, faults)  # no fault: only some frames of a video may be labelled
    if config.sequences is None and config.split is None:
        for name in sorted(set(folders_in(images)) - files.keys()):
            for path in images_below(images / name, Faults(), deep=False):
                faults.add("image without label", path, f"no {name}.json in {labels}")
    return check(config, collector.table(chosen), faults, on_fault)


def sequences(config: InteractionDataset, existing: tuple[str, ...]) -> tuple[str, ...]:
    """The sequences of a dataset: those that the config or its split names, or all; `UserError` for one that does not exist."""
    if config.sequences is not None and config.split is not None:
        raise UserError(f"{config.name}: sequences and split are given; keep one of them")
    chosen = existing if config.sequences is None else config.sequences
    if config.split is not None:
        file = dataset_root(config) / f"{config.split}.txt"
        if not file.is_file():
            raise no_split(config, (p.stem for p in visible(dataset_root(config), "*.txt")))
        chosen = tuple(name for name, _ in listed_names(file))
    unknown = [name for name in chosen if name not in existing]
    if unknown or not chosen:
        what = f"no JSON of the sequence {unknown[0]}" if unknown else "no sequence"
        raise UserError(f"{config.name}: {what}; there are {', '.join(existing) or 'none'}")
    return tuple(dict.fromkeys(chosen))


@lru_cache(maxsize=2)  # the frames of a sequence follow each other
def _frames(file: Path) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], load_json(file.stem, file, ["labels"], dict)["labels"])


def people_of(image: Path) -> tuple[list[Person], list[str]]:
    """The people of a panorama that lies in JRDB's layout, for prediction, and a line for each that is left out.

    Raises:
        UserError: no JSON of the sequence, or it does not know the frame.
    """
    root, name = image.absolute(), image.absolute().parent.name
    bases = [root.parents[i] for i in (2, 3) if i < len(root.parents)]
    files = [base / folder / f"{name}.json" for base in bases for folder in LABELS]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
        raise UserError(
            f"{image}: no labels of people found; looked for {files[0]} and the like: JRDB's layout, "
            "images/image_stitched/<sequence>/<frame> beside labels/labels_2d_stitched/<sequence>.json"
        )
    faults = Faults()
    content = _frames(file)
    if image.name not in content:
        raise UserError(f"{image}: {file} has no such frame; its first ones are {', '.join(list(content)[:3])}")
    people = list(people_in(content[image.name], f"{file}: {image.name}", faults))
    left_out = [str(fault) for fault in faults.kept]
    if not people:
        more = f"; {left_out[0]}" if left_out else ""
        raise UserError(f"{image}: {file} has no box of a person in this frame{more}")
    return people, left_out


def around_the_seam(xywh: np.ndarray, width: Any, height: Any) -> np.ndarray:
    """float32 boxes `[n, 4]` as `PeopleTable` has them, of x, y, w, h `[n, 4]` that may begin left of 0; clipped above and
    below."""
    x, y, w, h = np.asarray(xywh, np.float64).reshape(-1, 4).T
    start = np.mod(x, width).astype(np.float32)
    start = np.where(start < width, start, 0)  # rounding may reach the width
    return np.stack([start, y.clip(0), start + np.minimum(w, width), np.minimum(y + h, height)], 1).astype(np.float32)


class _Collector(ImageCollector):
    """Takes the files of the sequences and makes a `PeopleTable` of them."""

    def __init__(self, config: InteractionDataset, faults: Faults, folder: Path, images: Path) -> None:
        super().__init__(config, faults, (config.root, images))
        self.names, self.folder = config.names, folder
        self.labelled: list[bool] = []
        self._names: dict[str, int] = {}
        self._people = array("d")  # frame, track, no_eval, x, y, w, h
        self._pairs: list[tuple[int, int, Labels]] = []

    def file(self, file: Path, content: Mapping[str, Any], images: Path | None) -> None:
        """Take the frames of a sequence; without `images` it is not wanted, and only its names are noted, so that all
        splits of a dataset have the same ones."""
        faults = self.faults if images is not None else Faults()
        frames = {f: list(people_in(rows, f"{file}: {f}", faults)) for f, rows in content.items()}
        if not any(frames.values()) and images is not None:
            faults.add("unreadable label", str(file), f"no box in any of its {len(frames)} frames")
            return
        named = any(PAIRS in p.row for people in frames.values() for p in people)
        for frame, people in frames.items():
            where = f"{file}: {frame}"
            pairs = named_pairs(people, where, faults) if named else group_pairs(people)
            for labels in pairs.values():
                for name in labels:
                    self._names.setdefault(name, len(self._names))
            if images is not None and not self.bounds.hold(str(images / frame), str(file), faults):
                for p in people:
                    faults.add("box of an image left out", where, f"pedestrian:{p.track}")
            elif images is not None:
                key = PAIRS if named else "social_group"
                self.labelled.append(any(key in p.row for p in people))
                self._add(self.add(str(images / frame), str(file)), people, pairs)

    def _add(self, image: int, people: list[Person], pairs: dict[tuple[int, int], Labels]) -> None:
        first = len(self._people) // 7
        for p in people:
            no_eval = bool(mapping(p.row, "attributes").get("no_eval", False))
            self._people.extend((image, p.track, no_eval, *p.box))
        self._pairs += [(first + i, first + j, labels) for (i, j), labels in sorted(pairs.items())]

    def table(self, sequences: tuple[str, ...]) -> PeopleTable:
        """The table of all that is sound; each fault is counted."""
        sizes = self.sizes()
        frames = np.flatnonzero(sizes[:, 0] > 0)
        people = np.frombuffer(self._people, np.float64).reshape(-1, 7)
        boxes, good = self._boxes(people, sizes)
        number = np.cumsum(good) - 1  # new row of each person that is kept
        counts = np.bincount(people[good, 0].astype(np.int64), minlength=len(sizes))[frames]
        pairs = [(int(number[i]), int(number[j]), labels) for i, j, labels in self._pairs if good[i] and good[j]]
        self._tell_lost_pairs(people, good, sizes)
        names = self.names if self.names is not None else tuple(sorted(self._names))
        place = {name: i for i, name in enumerate(names)}
        flat = [
            (k, place[n], max(-128, min(d, 127)))
            for k, (_, _, labels) in enumerate(pairs)
            for n, d in labels.items()
            if self._known(n, place)
        ]
        labels = np.array(flat, np.int64).reshape(-1, 3)
        return PeopleTable(
            names=names,
            sequences=sequences,
            labelled=np.array(self.labelled, bool)[frames],
            offsets=to_offsets(counts),
            boxes=boxes[good],
            tracks=people[good, 1].astype(np.int32),
            no_eval=people[good, 2] > 0,
            pairs=np.array([p[:2] for p in pairs], np.int32).reshape(-1, 2),
            pair_offsets=np.searchsorted(labels[:, 0], np.arange(len(pairs) + 1)).astype(np.int64),
            labels=labels[:, 1].astype(np.int32),
            difficulty=labels[:, 2].astype(np.int8),
            **self.columns(sizes),
        )

    def _tell_lost_pairs(self, people: np.ndarray, good: np.ndarray, sizes: np.ndarray) -> None:
        """Count the pairs of people whose box was left out, but for those that went with their image."""
        for i, j, _ in self._pairs:
            frame = int(people[i, 0])
            if sizes[frame, 0] and not (good[i] and good[j]):
                where = f"{self.named_by[frame]}: {os.path.basename(self.paths[frame])}"
                what = f"pedestrian:{int(people[i, 1])} and pedestrian:{int(people[j, 1])}, one of whom has no valid box"
                self.faults.add("track without box", where, what)

    def _known(self, name: str, place: Mapping[str, int]) -> bool:
        if name not in place:
            self.faults.add("unknown class", str(self.folder), repr(name))
        return name in place

    def _boxes(self, people: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes `[P, 4]` that begin in 0..width, and which of them are sound."""
        frame = people[:, 0].astype(np.int64)
        width, height = sizes[frame].T.astype(np.float64)
        x, y, w, h = people[:, 3:].T
        sound = width > 0
        tiny = in_fractions(np.column_stack([x, y, x + w, y + h])) & sound
        good = sound & ~tiny
        over = good & ((y < -1) | (y + h > height + 1) | (x < -width) | (x > width) | (w > width))
        slightly = good & ~over & ((y < 0) | (y + h > height))
        for kind, bad in (
            ("box of an image left out", ~sound),
            ("box in fractions", tiny),
            ("box outside image", over),
            ("box over the edge by 1 px or less", slightly),
        ):
            for i in np.flatnonzero(bad):
                what = f"pedestrian:{int(people[i, 1])} {people[i, 3:].tolist()} in {sizes[frame[i]].tolist()} pixels"
                self.faults.add(kind, f"{self.named_by[frame[i]]}: {os.path.basename(self.paths[frame[i]])}", what)
        boxes = around_the_seam(people[:, 3:], np.where(good, width, 1), height)
        return boxes, good & (boxes[:, 3] > boxes[:, 1])
