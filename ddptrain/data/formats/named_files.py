"""The files that annotations name: where they may lie, and what the annotations leave out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ddptrain.config.data import DatasetConfig
from ddptrain.data.formats.files import dataset_root, find_folder, images_below, note_unlabelled
from ddptrain.data.tables.faults import Faults


def image_folders(config: DatasetConfig, split: str, beside: Path) -> list[Path]:
    """Folders that a file name in a JSON or CSV may be relative to, best first: `images` of the config, else those of
    the split, of the root, and of the annotation file."""
    root = dataset_root(config)
    if config.images is not None:
        return [find_folder(config, config.images, "images", [])]
    usual = [root / "images" / split, root / split, root / "images", root / split / "images", beside, root]
    return [p for p in usual if p.is_dir()]


def report_unlisted(config: DatasetConfig, folder: Path, alone: bool, listed: Iterable[str], faults: Faults) -> None:
    """Count the images in a folder that the annotation file does not name.

    Args:
        folder: where the images were found. Looked at where it is the split's own, or where the file is the only one of
            the dataset (`alone`); elsewhere those of other splits lie in it, too.
        listed: paths of the images that are named.
    """
    root, split = Path(config.root), config.split
    own = [root / "images" / split, root / split, root / split / "images"] if split else []
    if folder in own or (alone and folder != root and folder.is_dir()):
        known = set(map(os.path.normpath, listed))
        note_unlabelled([p for p in images_below(folder, faults) if os.path.normpath(p) not in known], faults)


def image_path(file_name: str, folders: list[Path]) -> str:
    """The file in the first folder that holds it, as its name stands or with `/` for back slashes; the folder that did moves
    to the front, as its neighbours lie there too."""
    for written in dict.fromkeys((file_name, file_name.replace("\\", "/"))):
        for i, folder in enumerate(folders):
            if os.path.exists(folder / written):
                folders.insert(0, folders.pop(i))
                return str(folder / written)
    return str(folders[0] / file_name)


class Bounds:
    """The folders that the file names of annotations may lead into: the root, and those that the config names. Links in
    them may lead anywhere."""

    def __init__(self, folders: Iterable[str | Path]) -> None:
        folders = list(folders)
        self._folders = tuple(dict.fromkeys(os.path.join(os.path.abspath(f), "") for f in folders))
        self._real = tuple(os.path.join(os.path.realpath(f), "") for f in folders)
        self.given = bool(self._folders)

    def hold(self, path: str, named_by: str, faults: Faults) -> bool:
        """Whether the path leads into one of them; counts a fault where it does not. The root may be given by a link, and
        the path without."""
        if os.path.abspath(path).startswith(self._folders) or os.path.realpath(path).startswith(self._real):
            return True
        what = f"{path} is not below {self._folders[0]}; set root to a folder that holds all images, or correct the name"
        faults.add("image outside root", named_by, what)
        return False


class Located(NamedTuple):
    """A file that a list names. `dropped`: the folders of its entry that are not there, `""` where it is taken as it is."""

    path: str
    dropped: str


def locate(entry: str, bases: Iterable[Path]) -> Located | None:
    """The file of an entry, below the first base that has it: as it stands, with `/` for back slashes, or without leading
    folders, as far as a folder and a name remain (the list was made below another root). None where there is none."""
    plain = entry.replace("\\", "/").removeprefix("./")
    bases = list(bases)
    for written in dict.fromkeys((entry, plain)):
        for base in bases:
            if os.path.exists(base / written):
                return Located(str(base / written), "")
    parts = plain.strip("/").split("/")
    for k in range(1, len(parts) - 1):
        for base in bases:
            path = str(base.joinpath(*parts[k:]))
            if os.path.exists(path):
                return Located(path, "/".join(parts[:k]))
    return None
