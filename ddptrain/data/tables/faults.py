"""What can be wrong with a dataset: the kinds, what is done about each, and where they were found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

OnFault = Literal["error", "drop"]


class Kind(NamedTuple):
    """A kind of fault. `error`: it ends the run unless `data.on_fault` is `drop`, because what was meant is unknown or
    learning from the rest would mislead; the others are put right in the one possible way and counted. `remedy`: what
    is done, under `drop` or always."""

    error: bool
    remedy: str


UNREAD_SUFFIXES = (
    ".heic", ".heif", ".gif", ".jfif", ".avif", ".jpe", ".jp2", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico",
    ".dib", ".exr", ".hdr", ".psd", ".svg", ".dng", ".nef", ".cr2", ".arw", ".raw", ".npy", ".npz", ".mat",
)  # fmt: skip
"""Ends of names that images and maps have in the field and that no reader takes; they are counted, not left out unsaid."""

KINDS: dict[str, Kind] = {
    "missing image": Kind(True, "image left out"),
    "empty class folder": Kind(True, "class left out"),
    "unreadable image": Kind(True, "image left out"),
    "size mismatch": Kind(True, "image left out"),
    "image without label": Kind(True, "image left out"),
    "image outside root": Kind(True, "image left out"),
    "duplicate image id": Kind(True, "all its images left out"),
    "two images of a frame": Kind(True, "the first by name taken"),
    "several images of a label file": Kind(True, "all kept, each with its boxes"),
    "several entries of an image": Kind(True, "kept once, with the boxes of all"),
    "duplicate annotation id": Kind(True, "boxes kept"),
    "label without image": Kind(True, "label left out"),
    "unreadable label": Kind(True, "image left out"),
    "unknown label in a mask": Kind(True, "its pixels made void"),
    "track without box": Kind(True, "pair left out"),
    "malformed row": Kind(True, "row left out"),
    "non-finite number": Kind(True, "row left out"),
    "unknown class": Kind(True, "row left out"),
    "box in fractions": Kind(True, "row left out"),
    "box outside image": Kind(True, "clipped, or left out where nothing remains"),
    "box over the edge by 1 px or less": Kind(False, "clipped"),
    "zero-area box": Kind(False, "row left out"),
    "duplicate row": Kind(False, "kept once"),
    "duplicate image": Kind(False, "kept once"),
    "image turned by EXIF": Kind(False, "read upright, and its labels as those of the upright picture"),
    "no box beside a segmentation": Kind(False, "box taken from the segmentation"),
    "box of an image left out": Kind(False, "left out with it"),
    "no label file": Kind(False, "image without label, kept as background"),
    "hidden file or folder": Kind(False, "skipped"),
    "name with two suffixes": Kind(False, "one of them taken"),
    "folder reached twice": Kind(False, "visited once"),
    **{f"{suffix} file": Kind(False, "not read") for suffix in UNREAD_SUFFIXES},
    "damaged cache entry": Kind(False, "dataset read anew"),
}
"""Every kind, in the order in which counts are told."""

KEPT_PER_KIND = 1000


class Fault(NamedTuple):
    """One fault: its kind, where (`file:line`), and what stands there."""

    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.what}"


@dataclass
class Faults:
    """All faults of one dataset: exact counts, and the first `KEPT_PER_KIND` of each kind with their places.

    `looked_in`: the folders of all files that were read or looked for; a change there may change what is found.
    `notes`: what is no fault, but must be said: what was read otherwise than one might think.
    """

    counts: Counter[str] = field(default_factory=Counter)
    kept: list[Fault] = field(default_factory=list)
    looked_in: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, where: str, what: str) -> None:
        """Count one fault of a kind in `KINDS`; `where` is `file:line`."""
        if kind not in KINDS:
            raise KeyError(kind)
        if self.counts[kind] < KEPT_PER_KIND:
            self.kept.append(Fault(kind, where, what))
        self.counts[kind] += 1

    def note(self, text: str) -> None:
        """Keep a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def errors(self) -> Iterator[Fault]:
        """The kept faults of the kinds that end a run, in the order in which they were found."""
        return (f for f in self.kept if KINDS[f.kind].error)

    def text(self) -> str:
        """Counts per kind in one line, `2 zero-area box (row left out)`; `no faults` where there are none. Then the notes."""
        told = [f"{self.counts[k]} {k} ({KINDS[k].remedy})" for k in KINDS if self.counts[k]]
        return "; ".join([", ".join(told) or "no faults", *self.notes])
