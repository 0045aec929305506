"""A detection dataset from one format to another, with a count of everything that the new one cannot hold."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ddptrain.config import DetectionDataset
from ddptrain.config.data import Exif
from ddptrain.data.formats.build import FORMATS, read, splits_of
from ddptrain.data.formats.write import OWN_CLASSES, WRITERS
from ddptrain.data.formats.writing import PLURALS, class_note
from ddptrain.data.tables.faults import Faults, OnFault
from ddptrain.errors import UserError
from ddptrain.system import temporary
from ddptrain.system.printable import counted, say


@dataclass(frozen=True)
class Converted:
    """One split after its conversion. `boxes` counts all rows that were read, ignore regions among them; `counts` is both
    in words, with the images without a box; `lost` is what the new format cannot hold; `note` is what it says about classes
    and the old one did not."""

    split: str | None
    images: int
    boxes: int
    counts: str
    lost: Counter[str]
    faults: Faults
    note: str = ""

    def text(self) -> str:
        """One line, with a warning where something was lost."""
        lost = ", ".join(counted(n, what, PLURALS[what]) for what, n in self.lost.items() if n)
        warning = f"; warning: {lost}" if lost else ""
        note = f"; {self.note}" if self.note else ""
        return f"{self.split or 'all'}: {self.counts}, {self.faults.text()}{warning}{note}"


def report_conversion(source: str, target: str, src: str, dst: str, *, exif: Exif, **options: Any) -> int:
    """Convert a dataset, as `convert` does, and print a line for each split."""
    for split in convert(source, target, src, dst, exif=exif, **options):
        say(split.text())
    if exif == "ignore":
        say(f"read {dst} with exif: ignore as well: its images are the same files")
    return 0


def convert(
    src_format: str,
    dst_format: str,
    src: str | Path,
    dst: str | Path,
    *,
    splits: tuple[str, ...] | None = None,
    annotations: str | None = None,
    images: str | None = None,
    names: tuple[str, ...] | None = None,
    exif: Exif = "apply",
    on_fault: OnFault = "error",
    copy: bool = False,
) -> list[Converted]:
    """Convert the dataset in `src` and write it to the new folder `dst`, whole or not at all.

    `splits` defaults to all that exist; `annotations`, `images`, `names` and `exif` are those of `DetectionDataset`. Images
    are linked, or copied where `copy` is true. Raises `UserError` for unknown formats, faults (unless `on_fault` is
    `drop`), a `dst` that exists, and classes that the format does not know.
    """
    for fmt, known in ((src_format, FORMATS), (dst_format, WRITERS)):
        if fmt not in known:
            raise UserError(f"no format {fmt!r} to convert {'from' if known is FORMATS else 'to'}; {', '.join(known)}")
    out = Path(dst)
    if out.exists():
        raise UserError(f"{out} exists; give a new folder, or remove it")
    layout: dict[str, Any] = {"annotations": annotations, "images": images, "names": names, "exif": exif}
    name = "_".join(Path(src).resolve().name.split()) or "dataset"
    base = DetectionDataset(name=name, format=src_format, root=str(src), **layout)
    parts = splits if splits is not None else splits_of(base)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = temporary.make("convert", out.parent)
    try:
        done, paths = [], set[str]()
        for split in parts:
            table, faults = read(base.model_copy(update={"split": split}), on_fault, "leave it out with --drop")
            lost = WRITERS[dst_format](table, aside, split, partial(_put, shutil.copyfile if copy else os.symlink))
            paths.update(table.paths)
            note = class_note(table, dst_format, OWN_CLASSES.get(dst_format))
            done.append(Converted(split, len(table), len(table.boxes), table.counts(), lost, faults, note))
        if splits is None:
            _check_trainval(base, parts, paths)
        aside.chmod(0o755)  # a temporary folder is the owner's alone
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return done


def _check_trainval(base: DetectionDataset, parts: tuple[str | None, ...], paths: set[str]) -> None:
    """`UserError` where `trainval`, which `splits_of` leaves out beside train and val, has images that they have not."""
    if {"train", "val"} <= set(parts) and "trainval" in FORMATS[base.format].splits(base):
        table, _ = read(base.model_copy(update={"split": "trainval"}), "drop")
        more = [p for p in table.paths if p not in paths]
        if more:
            raise UserError(
                f"{base.name}: trainval has {counted(len(more), 'image')} that neither train nor val has, such as {more[0]};"
                " name the splits to convert with --split"
            )


def _put(write: Callable[[str, Path], object], source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        raise UserError(
            f"{source}: another image was already written as {target.name}: the splits share file names; convert one split"
            " at a time"
        )
    write(os.path.abspath(source), target)
