"""The image files that a user names for `predict` and `depth`, and going on when one of them cannot be used."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2

from ddptrain.data.formats.files import READ_SUFFIXES, images_below
from ddptrain.data.images.read import BadImage
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError
from ddptrain.system.printable import printable


def find_images(paths: Sequence[Path], faults: Faults) -> dict[Path, str]:
    """The images among `paths` and in the folders among them and their subfolders, each once; see `images_below`.

    Returns:
        For each its path relative to the folder that was named, or its name, without suffix.

    Raises:
        UserError: a path does not exist, or there is no image at all.
    """
    out: dict[str, tuple[Path, str]] = {}
    seen: set[str] = set()
    for path in paths:
        if path.is_dir():
            skip = len(os.path.join(path, ""))
            for file in images_below(path, faults, seen=seen):
                out.setdefault(os.path.abspath(file), (Path(file), os.path.splitext(file[skip:])[0]))
        elif path.exists():
            out.setdefault(os.path.abspath(path), (path, path.stem))
        else:
            raise UserError(f"{path}: no such image or folder")
    if not out:
        left_out = f"; left out: {faults.text()}" if faults.counts else ""
        raise UserError(f"{paths[0]}: no image in it or below it; {READ_SUFFIXES}{left_out}")
    return dict(out.values())


def distinct(names: Sequence[str]) -> list[str]:
    """The names, each that occurs more than once with its number in front."""
    count, taken = Counter(names), set(names)
    out = []
    for number, name in enumerate(names):
        if count[name] > 1:
            folder, stem = os.path.split(name)
            stem = f"{number:04d}_{stem}"
            while os.path.join(folder, stem) in taken:
                stem = f"_{stem}"
            name = os.path.join(folder, stem)
            taken.add(name)
        out.append(name)
    return out


def refuse_overwriting(images: Iterable[Path], out: Path, files: Iterable[str]) -> None:
    """Raise `UserError` where one of the files that will be written in the folder `out` is an image that is read."""
    read = set(map(os.path.realpath, images))
    folder = os.path.realpath(out)
    for file in files:
        if os.path.join(folder, file) in read:
            raise UserError(f"{out / file}: is one of the images, and would be overwritten; name another folder for the output")


class Skipped:
    """Counts the images that cannot be used, and names each on standard error."""

    count = 0

    @contextmanager
    def skipping(self, path: Path) -> Iterator[None]:
        """Around the work on one image: a fault in it is reported, and ends only this."""
        try:
            yield
        except (UserError, BadImage, cv2.error) as e:
            self.add(str(e) if str(path) in str(e) else f"{path}: {' '.join(str(e).split())}")

    def add(self, line: str) -> None:
        """Count one, and report why."""
        self.count += 1
        print(f"ddptrain: skipped: {printable(line)}", file=sys.stderr, flush=True)

    def status(self, total: int) -> int:
        """The exit status: 1 if some of `total` images were skipped, 2 if none could be used; reported, too."""
        if not self.count:
            return 0
        if self.count == total:
            print("ddptrain: error: no image could be used, each is named above; replace them, or name others", file=sys.stderr)
            return 2
        print(f"ddptrain: failed: {self.count} of {total} images were skipped, each is named above", file=sys.stderr)
        return 1
