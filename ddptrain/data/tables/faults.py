"""What can be wrong with a dataset: the kinds, what is done about each, and where they were found."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ddptrain.system.printable import counted

OnFault = Literal["error", "drop"]


class Kind(NamedTuple):
    """A kind of fault.

    Attributes:
        error: it ends the run unless `data.on_fault` is `drop`, because what was meant is unknown or learning from the rest
            would mislead; the others are put right in the one possible way and counted.
        plural: of its name.
        remedy: what is done, under `drop` or always.
    """

    error: bool
    plural: str
    remedy: str


UNREAD_SUFFIXES = (
    ".heic", ".heif", ".gif", ".jfif", ".avif", ".jpe", ".jp2", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico",
    ".dib", ".exr", ".hdr", ".psd", ".svg", ".dng", ".nef", ".cr2", ".arw", ".raw", ".npy", ".npz", ".mat",
)  # fmt: skip
"""Suffixes that images and maps have in the field and that no reader takes; such files are counted, not left out in silence."""

KINDS: dict[str, Kind] = {
    "missing image": Kind(True, "missing images", "left out"),
    "empty class folder": Kind(True, "empty class folders", "left out"),
    "unreadable image": Kind(True, "unreadable images", "left out"),
    "size mismatch": Kind(True, "size mismatches", "image left out"),
    "image without label": Kind(True, "images without labels", "left out"),
    "image outside root": Kind(True, "images outside root", "left out"),
    "duplicate image id": Kind(True, "duplicate image ids", "all its images left out"),
    "second image of a frame": Kind(True, "second images of frames", "the first by name taken"),
    "shared label file": Kind(True, "shared label files", "all kept, each with its boxes"),
    "repeated entry of an image": Kind(True, "repeated entries of images", "kept once, with the boxes of all"),
    "duplicate annotation id": Kind(True, "duplicate annotation ids", "boxes kept"),
    "label without image": Kind(True, "labels without images", "left out"),
    "unreadable label": Kind(True, "unreadable labels", "image left out"),
    "unknown label in a mask": Kind(True, "masks with unknown labels", "its pixels made void"),
    "track without box": Kind(True, "tracks without boxes", "pair left out"),
    "malformed row": Kind(True, "malformed rows", "left out"),
    "non-finite number": Kind(True, "rows with non-finite numbers", "left out"),
    "unknown class": Kind(True, "rows of unknown classes", "left out"),
    "box in fractions": Kind(True, "boxes in fractions", "left out"),
    "box outside image": Kind(True, "boxes outside images", "clipped, or left out where nothing remains"),
    "box over the edge by 1 px or less": Kind(False, "boxes over the edge by 1 px or less", "clipped"),
    "zero-area box": Kind(False, "zero-area boxes", "left out"),
    "duplicate row": Kind(False, "duplicate rows", "kept once"),
    "duplicate image": Kind(False, "duplicate images", "kept once"),
    "image turned by EXIF": Kind(False, "images turned by EXIF", "read upright, labels too"),
    "segmentation without box": Kind(False, "segmentations without boxes", "box taken from the segmentation"),
    "box of an image left out": Kind(False, "boxes of images left out", "left out with it"),
    "image without label file": Kind(False, "images without label files", "image without label, kept as background"),
    "hidden file or folder": Kind(False, "hidden files or folders", "skipped"),
    "name with two suffixes": Kind(False, "names with two suffixes", "one of them taken"),
    "folder reached twice": Kind(False, "folders reached twice", "visited once"),
    **{f"{suffix} file": Kind(False, f"{suffix} files", "not read") for suffix in UNREAD_SUFFIXES},
    "damaged cache entry": Kind(False, "damaged cache entries", "dataset read again"),
}
"""Every kind, in the order in which counts are reported."""

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
    `notes`: what is not a fault but must be reported: what was read otherwise than one might think.
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

    def tally(self, error: bool) -> str:
        """Counts of the kinds that end a run, or of the others: `2 duplicate images, 1 malformed row`."""
        return ", ".join(self._count(kind) for kind in self.counts if KINDS[kind].error is error)

    def _count(self, kind: str) -> str:
        return counted(self.counts[kind], kind, KINDS[kind].plural)

    def text(self) -> str:
        """Counts per kind in one line, `2 zero-area boxes (left out)`; `no faults` where there are none. Then the notes."""
        counts = [f"{self._count(kind)} ({KINDS[kind].remedy})" for kind in KINDS if self.counts[kind]]
        return "; ".join([", ".join(counts) or "no faults", *self.notes])
