"""Finding the files of a dataset, and saying in one line what is not there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ddptrain.config.data import DatasetConfig
from ddptrain.data.formats.image_headers import IMAGE_SUFFIXES
from ddptrain.errors import UserError


def dataset_root(config: DatasetConfig) -> Path:
    """The dataset's folder; `UserError` where it is missing."""
    root = Path(config.root)
    if not root.is_dir():
        raise UserError(f"{config.name}: root {root} is no folder; correct data…root or put the dataset there")
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


def no_split(config: DatasetConfig, there: Iterable[str]) -> UserError:
    """The error of a split that is missing, or not chosen; lists those that are there."""
    splits = ", ".join(sorted(set(there))) or "none"
    asked = "no split is chosen" if config.split is None else f"split {config.split} is not there"
    return UserError(f"{config.name}: {asked}; splits in {config.root}: {splits}; set split to one of them")


def is_image(name: str) -> bool:
    """Whether the name ends like that of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def images_below(folder: Path) -> list[str]:
    """All images in the folder and its subfolders, sorted, so that their order depends on names alone."""
    found = []
    for base, _, files in os.walk(folder, followlinks=True):
        found += [os.path.join(base, f) for f in files if is_image(f)]
    return sorted(found)


def images_by_stem(folder: Path) -> dict[str, str]:
    """Path of each image right in the folder by its name without suffix."""
    return {os.path.splitext(f)[0]: str(folder / f) for f in sorted(os.listdir(folder)) if is_image(f)}


def class_names(config: DatasetConfig, stored: Iterable[str], where: str) -> tuple[str, ...]:
    """Own class names: `names` of the config, else those stored in the file `where`. Both must agree in number, and no
    name may stand there twice."""
    stored = tuple(stored)
    names = config.names if config.names is not None else stored
    if len(names) != len(stored):
        raise UserError(f"{config.name}: names has {len(names)} classes and {where} has {len(stored)}; give one name for each")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UserError(f"{config.name}: class {twice[0]} stands twice in {where}; give names that differ")
    return names
