"""Which image of the truth, and which class, the names in somebody else's predictions mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from ddptrain.data.formats.coco import coco_files
from ddptrain.data.formats.files import annotation_file, is_image
from ddptrain.data.formats.texts import load_json
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.errors import UserError
from ddptrain.tasks.inspection.base import DataSet


class Place(NamedTuple):
    """An image: the number of its dataset, and its own in it."""

    dataset: int
    image: int


class Images:
    """The images of the truth by their names: a path, or as much of its end as tells the image from all others; with its suffix
    or without.

    Attributes:
        count: how many there are.
    """

    def __init__(self, sets: Sequence[DataSet]) -> None:
        self.count = sum(len(data.table) for data in sets)
        self._by_stem: dict[str, list[tuple[Place, tuple[str, ...]]]] = {}
        for number, data in enumerate(sets):
            for image, path in enumerate(data.table.paths[:]):
                *folders, name = PurePath(path).parts
                self._by_stem.setdefault(_stem(name), []).append((Place(number, image), (*folders, name)))

    def find(self, reference: str) -> Place | None:
        """The image that is meant; None where there is none. Raises `UserError` where it may be several."""
        parts = PurePath(reference).parts
        if not parts:
            return None
        # a name without a suffix may have a dot in it
        stems = (_stem(parts[-1]), os.path.splitext(parts[-1])[0])
        known = next((self._by_stem[stem] for stem in stems if stem in self._by_stem), [])
        shared = [_common_end(parts[:-1], path[:-1]) for _, path in known]
        # the same name in another folder is another image: the frames of all videos have the same names
        if len(parts) > 1 and max(shared, default=0) == 0:
            return None
        best = [place for (place, _), count in zip(known, shared) if count == max(shared)]
        if len(best) > 1:
            raise UserError(f"{reference} may be any of {len(best)} images of the truth; give more of its path")
        return best[0] if best else None


def _stem(name: str) -> str:
    name = name.removesuffix(".txt")
    return os.path.splitext(name)[0] if is_image(name) else name


def _common_end(a: Sequence[str], b: Sequence[str]) -> int:
    """Number of last folders that two paths share."""
    count = 0
    for mine, other in zip(reversed(a), reversed(b)):
        if mine != other:
            break
        count += 1
    return count


class Classes:
    """The classes of the run by the names of each dataset: its own, as its `rename`, `ignore` and `drop` say, or the run's."""

    def __init__(self, sets: Sequence[DataSet], classes: Sequence[str]) -> None:
        self.names = tuple(classes)
        self._maps = []
        for data in sets:
            space = LabelSpace.build(classes, [data.config], [data.own])
            known = {name: number for number, name in enumerate(classes)}
            self._maps.append(known | dict(zip(data.own.names, space.maps[0].tolist())))

    def label(self, dataset: int, name: str) -> int | None:
        """Number of the class in the run, below 0 where the dataset leaves it out; None where nobody knows the name."""
        number: int | None = self._maps[dataset].get(name)
        return number


class Ids(NamedTuple):
    """What the numbers of a COCO dataset mean: paths of images, and names of classes."""

    images: dict[int | str, str]
    classes: dict[int | str, str]


def coco_ids(sets: Sequence[DataSet]) -> Ids | None:
    """The ids in the JSON of the truth, where it is one COCO dataset."""
    if len(sets) != 1 or sets[0].config.format != "coco":
        return None
    config = sets[0].config
    content = load_json(config.name, annotation_file(config, coco_files(config), "JSON"), ("images", "categories"))
    return Ids(
        {image["id"]: image["file_name"] for image in content["images"] if isinstance(image, dict) and "file_name" in image},
        {category["id"]: category["name"] for category in content["categories"]},
    )
