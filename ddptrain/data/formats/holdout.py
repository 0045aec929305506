"""`train` and `val` of a dataset that comes without splits: a part is held out, drawn by file name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ddptrain.config.data import HoldoutDataset
from ddptrain.data.tables.base import R
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError

SPLITS = ("train", "val")
Dataset = TypeVar("Dataset", bound=HoldoutDataset)


def whole(config: Dataset, parts: Sequence[str | None]) -> Dataset:
    """The dataset of which `holdout` holds a part out; `parts` are the splits that it has, one of which may be None."""
    if len(parts) > 1:
        raise UserError(
            f"{config.name}: holdout makes the splits of a dataset that has none, and {config.root} has"
            f" {', '.join(map(str, parts))}; take holdout out, and set split to one of them"
        )
    return config.model_copy(update={"split": parts[0] if parts else None})


def of_split(config: HoldoutDataset, groups: Mapping[str, str]) -> Callable[[str], bool]:
    """Which images are of the split: all, or where `holdout` makes the splits, those of them. `groups`: the paths of all
    images and what is held out evenly of, such as the class."""
    if config.holdout is None:
        return lambda path: True
    if config.split not in SPLITS:
        raise UserError(f"{config.name}: holdout makes the splits train and val; set split to one of them")
    held = _held_out(groups, config.holdout, config.root)
    return lambda path: (path in held) == (config.split == "val")


def _held_out(groups: Mapping[str, str], part: float, root: str) -> Collection[str]:
    """The paths held out: of each group the nearest number to its part, in the order of the names' hashes."""

    def mixed(path: str) -> bytes:
        name = os.path.relpath(path, root).replace(os.sep, "/")
        return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()

    members: dict[str, list[str]] = {}
    for path, group in groups.items():
        members.setdefault(group, []).append(path)
    return {p for paths in members.values() for p in sorted(paths, key=mixed)[: round(part * len(paths))]}


def keep_split(config: HoldoutDataset, table: R, faults: Faults) -> R:
    """The images of the split that `holdout` makes of a whole table."""
    in_split = of_split(config, dict.fromkeys(table.paths, ""))
    keep = np.array([in_split(p) for p in table.paths], bool)
    if len(keep) and not keep.any():
        other = "raise" if config.split == "val" else "lower"
        raise UserError(
            f"{config.name}: holdout {config.holdout:g} of its {len(keep)} images leaves none for {config.split}; {other} it"
        )
    faults.note(f"holdout {config.holdout:g} makes {config.split}: {int(keep.sum())} of {len(keep)} images")
    return table.keep_images(keep)
