"""Images that appear twice, or in two datasets of a run: duplicates and leaks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ddptrain.data.images.read import BadImage, read_image
from ddptrain.data.inspect.duplicates import Images, Twins, find_twins
from ddptrain.data.tables.images import ImageTable
from ddptrain.reporting.page import Section, details
from ddptrain.system.printable import counted
from ddptrain.tasks.inspection.base import DataSet, Inspection


def report_duplicates(sets: Sequence[DataSet], images: int, out: Inspection) -> None:
    """A section and warnings on images that appear twice or in both parts; a table has a `path` of each image."""
    chosen = _chosen(sets, images)
    looked_at, total = sum(map(len, chosen)), sum(len(s.images) for s in sets)
    undecoded: list[str] = []
    twins = find_twins([_images(s, which) for s, which in zip(sets, chosen)], undecoded=undecoded)
    section = Section("Duplicates and leaks", columns=("images of", "also in", "looked at", "equal files", "look the same"))
    if looked_at < total:
        section.lines.append(f"{looked_at} of {counted(total, 'image')} were opened; --images 0 opens all.")
    if not twins:
        section.lines.append("None found.")
    section.rows = [[t.second, t.first, t.looked_at, t.equal, t.alike] for t in twins]
    for t in twins:
        where = f"within {t.second}" if t.first == t.second else f"{t.second} in {t.first}"
        section.figures.append(details(f"{where}: examples", [f"{b} = {a}" for a, b in t.examples]))
    out.sections.append(section)
    out.facts["duplicates"] = [t._asdict() | {"examples": [list(pair) for pair in t.examples]} for t in twins]
    for t in twins:
        report_twins(t, out)
    bad = [line for path in undecoded if (line := _why_not(path))]
    if bad:
        which = counted(len(bad), "image cannot", "images cannot")
        limits = "data.max_bad_samples and eval.max_bad_images say how many may be"
        out.warnings.append(f"{which} be decoded, and would be replaced ({limits}); correct the files; the first: {bad[0]}")


def _why_not(path: str) -> str:
    """Why training cannot read an image; empty where it can."""
    try:
        read_image(path)
    except BadImage as e:
        return str(e)
    return ""


def report_twins(t: Twins, out: Inspection) -> None:
    """A warning about images that are in two datasets, or twice in one."""
    images, example = counted(t.looked_at, "image"), " = ".join(t.examples[0][::-1])
    what = f"{t.equal} equal and {t.alike} that look the same, such as {example}"
    if t.first.startswith("train ") and t.second.startswith("val "):
        leaked = counted(t.equal + t.alike, "is", "are")
        out.warnings.append(f"leak: of {images} of {t.second}, {leaked} also in {t.first}: {what}")
    elif t.equal:
        copies = counted(t.equal, "is a copy", "are copies")
        where = "of others in it" if t.first == t.second else f"of images of {t.first}"
        out.warnings.append(f"duplicates: of {images} of {t.second}, {copies} {where}, such as {example}")


def _images(s: DataSet, which: np.ndarray) -> Images:
    pixels = getattr(s.images, "pixels", None) if isinstance(s.images, ImageTable) else None
    return Images(s.title, [s.images.path(int(i)) for i in which], None if pixels is None else pixels[which])


def _chosen(sets: Sequence[DataSet], images: int) -> list[np.ndarray]:
    """The images of each dataset that are opened: evenly spread, but first those whose file, or else whose size, is
    that of an image on the other side."""
    sizes, val = [len(s.images) for s in sets], [s.part == "val" for s in sets]
    quota = _quota(sizes, val, images)
    if quota == sizes:
        return [np.arange(n) for n in sizes]
    with ThreadPoolExecutor(16) as pool:  # on network storage the time goes into waiting
        files = [np.array(list(pool.map(_file, _images(s, np.arange(n)).paths)), np.int64) for s, n in zip(sets, sizes)]
    out = [np.zeros(0, np.int64)] * len(sets)
    for part in (True, False):
        # training images are held against the validation images that were chosen
        others = np.concatenate([f if part else f[which] for f, which, v in zip(files, out, val) if v != part] or [_NONE])
        for i in (i for i, v in enumerate(val) if v == part):
            alike = np.where(np.isin(files[i][:, 1], others[:, 1]), 2, np.isin(files[i][:, 0], others[:, 0]))
            out[i] = _pick(np.where(files[i][:, 0] > 0, alike, 0), quota[i])
    return out


_NONE = np.zeros((0, 2), np.int64)


def _file(path: str) -> tuple[int, int]:
    """Size of a file, and a number that is the same for all links to it; zeros where it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, hash((status.st_dev, status.st_ino))


def _pick(level: np.ndarray, quota: int) -> np.ndarray:
    """`quota` indices, those of a high level first, evenly spread over each level."""
    out: list[np.ndarray] = []
    for value in (2, 1, 0):
        own = np.flatnonzero(level == value)
        out.append(own[_spread(len(own), min(len(own), quota - sum(map(len, out))))])
    return np.sort(np.concatenate(out))


def _quota(sizes: Sequence[int], val: Sequence[bool], images: int) -> list[int]:
    """How many images of each dataset are opened: validation sets first, for a leak is found only where both are."""
    if not images or sum(sizes) <= images:
        return list(sizes)
    held = sum(n for n, v in zip(sizes, val) if v)
    for_val = min(held, images // 2)
    rest = sum(sizes) - held
    for_train = min(rest, images - for_val)
    return [n * for_val // held if v else n * for_train // rest for n, v in zip(sizes, val)]


def _spread(total: int, quota: int) -> np.ndarray:
    """`quota` indices evenly over `total`."""
    return np.arange(quota) * total // max(quota, 1)
