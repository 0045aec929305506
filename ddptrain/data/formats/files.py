"""Finding the files of a dataset: those in its folders and those that its annotations name, with an error of one line for
what is missing."""

import os
import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ddptrain.config.data import DatasetConfig, HoldoutDataset
from ddptrain.data.images.headers import IMAGE_SUFFIXES
from ddptrain.data.tables.faults import UNREAD_SUFFIXES, Faults
from ddptrain.errors import UserError
from ddptrain.system.printable import counted


def dataset_root(config: DatasetConfig) -> Path:
    """The dataset's folder; `UserError` where it does not exist."""
    root = Path(config.root)
    if not root.is_dir():
        raise UserError(
            f"{config.name}: root {root} is not a directory; correct `root` of this dataset, or move the data there"
        )
    return root


def find_folder(config: DatasetConfig, given: str | None, key: str, usual: Iterable[str]) -> Path:
    """The folder that the config gives under `key`, or the first of the usual ones that exists."""
    root = dataset_root(config)
    candidates = [given] if given is not None else list(usual)
    for c in candidates:
        if (root / c).is_dir():
            return root / c
    tried = ", ".join(str(root / c) for c in candidates)
    raise UserError(f"{config.name}: no folder of {key}; looked for {tried}; give the right one as {key}")


def no_split(config: DatasetConfig, existing: Iterable[str]) -> UserError:
    """The error of a split that is missing, or not chosen; lists those that are there."""
    splits = ", ".join(sorted(set(existing)))
    asked = "no split is chosen" if config.split is None else f"split {config.split} does not exist"
    hint = "set split to one of them"
    if not splits and config.split is None:
        hint = "check root, or give images and annotations"
    elif not splits:
        hint = "remove split if the dataset has none (`holdout` can split a dataset that is not video), or check root"
    return UserError(f"{config.name}: {asked}; splits in {config.root}: {splits or 'none'}; {hint}")


def annotation_file(config: HoldoutDataset, found: Sequence[tuple[str, Path]], noun: str, faults: Faults | None = None) -> Path:
    """The file that the config names, or that of its split, of several the last one.

    Args:
        found: the split of each file that is at a usual place.
        noun: what they are.
        faults: gets a note about other files of the same split.
    """
    files = dict(found)
    if config.annotations is not None:
        path = dataset_root(config) / config.annotations
        if not path.is_file():
            raise UserError(f"{config.name}: annotations {path} is not a file; give the {noun} file, relative to the root")
        return path
    split = next(iter(files)) if len(files) == 1 and (config.split is None or config.holdout is not None) else config.split
    if split is None or split not in files:
        raise no_split(config, files)
    chosen = files[split]
    others = sorted({str(path) for of, path in found if of == split} - {str(chosen)})
    if others and faults is not None:
        names = ", ".join(os.path.relpath(path, config.root) for path in (str(chosen), *others))
        faults.note(
            f"{len(others) + 1} {noun} files of split {split} are in {config.root}: {names}; the first is read; "
            "set annotations of this dataset to the right one, or remove the others"
        )
    return chosen


READ_SUFFIXES = f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"})
"""Names that operating systems and servers leave in folders, in lower case; those with a dot in front are hidden anyway."""


def is_image(name: str) -> bool:
    """Whether the name ends like that of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is not the user's own: `.ipynb_checkpoints`, `._a.jpg`, `__MACOSX`."""
    return name.startswith(".") or name.lower() in JUNK


def visible(folder: Path, pattern: str) -> list[Path]:
    """What matches a pattern below the folder, sorted, without hidden files and without what lies in hidden folders."""
    return sorted(p for p in folder.glob(pattern) if not any(map(is_hidden, p.relative_to(folder).parts)))


def folders_in(folder: Path) -> list[str]:
    """Names of the folders right in a folder, sorted, without hidden ones; empty where there is no such folder."""
    return [p.name for p in visible(folder, "*") if p.is_dir()]


def files_below(
    folder: Path, suffixes: Container[str], faults: Faults, *, deep: bool = True, seen: set[str] | None = None
) -> list[str]:
    """All files in the folder (and its subfolders, where `deep`) with one of the suffixes, given in lower case; sorted, so
    that their order depends on names alone.

    Hidden ones are left out. A folder that links reach twice is visited once, one above `folder` not at all. With images
    wanted, other files that are images or maps by their suffix are left out. All of these are counted in `faults`, which also
    keeps the folders.

    Args:
        seen: the real folders that were visited so far, where one dataset has several; grows.
    """
    top, seen = os.path.realpath(folder), set() if seen is None else seen
    paths: list[str] = []
    waiting, links = [str(folder)], list[str]()
    while waiting or links:
        # what lies in place comes before what is linked, so that an image has its own path where it has one
        base = waiting.pop() if waiting else links.pop(links.index(min(links)))
        real = os.path.realpath(base)
        if real in seen or top.startswith(os.path.join(real, "")):
            faults.add("folder reached twice", base, f"a link to {real}")
            continue
        seen.add(real)
        faults.looked_in.add(base)
        for entry in _entries(base):
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.is_dir():
                if is_hidden(entry.name):
                    faults.add("hidden file or folder", entry.path, "a folder of the system or of another program")
                elif deep:
                    (links if entry.is_symlink() else waiting).append(entry.path)
            elif suffix in suffixes:
                if is_hidden(entry.name):
                    faults.add("hidden file or folder", entry.path, "a file of the system or of another program")
                else:
                    paths.append(entry.path)
            elif suffix in UNREAD_SUFFIXES and ".png" in suffixes and not is_hidden(entry.name):
                faults.add(f"{suffix} file", entry.path, f"not read; {READ_SUFFIXES}")
    return sorted(paths)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda e: e.name)
    except OSError as e:
        raise UserError(f"{folder}: cannot be listed: {e.strerror}; correct its permissions, or remove it") from None


def images_below(folder: Path, faults: Faults, *, deep: bool = True, seen: set[str] | None = None) -> list[str]:
    """All images in the folder (and its subfolders), see `files_below`."""
    return files_below(folder, IMAGE_SUFFIXES, faults, deep=deep, seen=seen)


def files_by_stem(folder: Path, suffixes: Container[str], faults: Faults, *, deep: bool = True) -> dict[str, str]:
    """Path of each file that `files_below` finds, by its path relative to the folder without suffix, sorted."""
    skip, paths = len(os.path.join(folder, "")), dict[str, str]()
    for path in files_below(folder, suffixes, faults, deep=deep):
        stem = os.path.splitext(path[skip:])[0]
        if stem in paths:
            faults.add("name with two suffixes", paths[stem], f"{path} is taken")
        paths[stem] = path
    return paths


def images_by_stem(folder: Path, faults: Faults, *, deep: bool = False) -> dict[str, str]:
    """Path of each image right in the folder (or below it) by its name without suffix."""
    return files_by_stem(folder, IMAGE_SUFFIXES, faults, deep=deep)


def frames_by_number(folder: Path, faults: Faults) -> dict[int, str]:
    """Path of each image right in the folder by the number that ends its name, in order of number."""
    frames, loose = dict[int, str](), list[str]()
    for stem, path in images_by_stem(folder, faults).items():
        match = re.search(r"\d+$", stem)
        if match is None:
            loose.append(path)
        else:
            other = frames.setdefault(int(match.group()), path)
            if other != path:
                faults.add("second image of a frame", path, f"{other} is also frame {int(match.group())}")
    note_unlabelled(loose, faults)
    return dict(sorted(frames.items()))


def note_unlabelled(paths: list[str], faults: Faults) -> None:
    """Report the images that lie in a dataset's folder without belonging to it, as they have no label."""
    if paths:
        verb = "was" if len(paths) == 1 else "were"
        faults.note(f"{counted(len(paths), 'image')} without labels {verb} left out, for example {paths[0]}")


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
