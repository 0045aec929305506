"""Checkpoint files: written whole or not at all, with a checksum; the links to them; which of them stay.

    runs/<name>/checkpoints/
        step_00000100.pt             one dictionary of plain types (FORMAT), read with `weights_only=True`
        step_00000100.pt.sha256      its checksum as `sha256sum -c` reads it, in place before the checkpoint is
        step_00000200.pt
        step_00000200.pt.sha256
        last.pt -> step_00000200.pt  relative symbolic links, swapped by one rename: free, and never half-written.
        best.pt -> step_00000100.pt  What they point to is not pruned. Copies where a file system has no links
        best_loss.pt -> step_0000…   the same for each further metric that the config names
        .step_00000300.pt.tmp        a save that was cut off; the next prune removes it
        aside/                       checkpoints of a course that the run has left, and the best checkpoints of the run
                                     it was resumed from

A save writes under the temporary name, flushes the file, puts the checksum and then the checkpoint in place by renames,
flushes the folder, and only then swaps the links. Equal states give equal bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, cast

import torch

from ddptrain.system.files import sync_folder, write_text

FORMAT = "ddptrain checkpoint 1"

_NAME = re.compile(r"step_\d+\.pt")


def save(folder: Path, state: dict[str, Any], step: int, best: bool = False, links: Sequence[str] = ()) -> Path:
    """Write a checkpoint and wait until it is on disk.

    Args:
        folder: the folder of checkpoints.
        state: what `copy_to_host` returned.
        step: steps made, ≥ 0; a checkpoint of the same step is replaced.
        best: let `best.pt` point to it, too.
        links: further names that point to it, `best_<metric>.pt`.

    Returns:
        The path of the checkpoint.

    Raises:
        OSError: disk full, no permission …; the earlier checkpoints are untouched.
    """
    path = path_of(folder, step)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            hashed = _Hashed(file)
            try:
                torch.save(state | {"format": FORMAT, "step": step}, cast("IO[bytes]", hashed))
            except Exception:
                if hashed.error is not None:
                    raise hashed.error from None
                raise
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path, hashed.sha256.hexdigest())
    except BaseException:
        with suppress(OSError):  # the folder may be what is gone
            temporary.unlink()
        raise
    for link in ("last.pt", *(("best.pt",) if best else ()), *links):
        point(folder / link, path.name)
    sync_folder(folder)
    return path


def point_to(folder: Path, step: int, links: Sequence[str]) -> bool:
    """Let links point to an earlier save of a step, which has the same weights; False where there is none, or it fails."""
    path = path_of(folder, step)
    with suppress(OSError):  # what has failed the save may fail this, too
        if path.exists():
            for link in links:
                point(folder / link, path.name)
            return True
    return False


def prune(folder: Path, keep_last: int, keep_every: int | None = None) -> None:
    """Delete old checkpoints and the remains of saves that were cut off. Not to be called during a save.

    What `last.pt`, `best.pt` and `best_<metric>.pt` point to stays.

    Args:
        keep_last: number of the newest that stay, ≥ 1.
        keep_every: those whose step is a multiple of this stay for good; None: no such rule.
    """
    paths = checkpoints_in(folder)
    kept = set(paths[-keep_last:]) | {link.resolve() for link in (folder / "last.pt", *best_links(folder))}
    kept |= {p for p in paths if keep_every and step_of(p) % keep_every == 0}
    for path in paths:
        if path not in kept and path.resolve() not in kept:
            path.unlink()
    for sidecar in folder.glob("step_*.pt.sha256"):
        if not sidecar.with_suffix("").exists():
            sidecar.unlink()
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink()


def set_aside(folder: Path, step: int, course: Literal["later", "at", "others"] = "later") -> int:
    """Move checkpoints of a course that the run leaves to `aside/`: those later than `step`, the one at it, or all others.
    `best.pt` and its kind follow their checkpoints, `last.pt` goes back to the newest that remains. Returns their number."""
    paths = checkpoints_in(folder)
    left = [p for p in paths if {"later": step_of(p) > step, "at": step_of(p) == step, "others": step_of(p) != step}[course]]
    bests = {link: link.resolve() for link in best_links(folder)}
    for path in left:
        aside = _place_aside(folder, path, step_of(path))
        for end in (".sha256", ""):
            if path.with_name(path.name + end).exists():
                os.replace(path.with_name(path.name + end), aside.with_name(aside.name + end))
        for link, target in bests.items():
            if target == folder.resolve() / path.name:
                point(link, f"aside/{aside.name}")
    if left:
        (folder / "last.pt").unlink(missing_ok=True)
        if remain := [p for p in paths if p not in left]:
            point(folder / "last.pt", remain[-1].name)
        sync_folder(folder)
    return len(left)


def carry(folder: Path, link: str, source: Path, step: int) -> None:
    """Copy a checkpoint of another run, or of another count of steps, into `aside/`, where no start looks for the newest one,
    and let `link` point to it."""
    aside = _place_aside(folder, source, step)
    for end in (".sha256", ""):
        if source.with_name(source.name + end).is_file() and source.resolve() != aside.resolve():
            shutil.copyfile(source.with_name(source.name + end), aside.with_name(aside.name + end))
    point(folder / link, f"aside/{aside.name}")
    sync_folder(folder)


def _place_aside(folder: Path, source: Path, step: int) -> Path:
    """A path in `aside/` that is free, or that of the same checkpoint: `step_00000020.pt`, `step_00000020-2.pt` …"""
    path, known = path_of(folder / "aside", step), recorded_checksums(source)
    path.parent.mkdir(exist_ok=True)
    places = (path if n == 1 else path.with_stem(f"{path.stem}-{n}") for n in count(1))
    return next(p for p in places if not p.exists() or known & recorded_checksums(p))


class _Hashed:
    """A file that `torch.save` writes front to back, with the checksum of what went by."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            self._file.write(data)
        except OSError as e:
            self.error = e  # torch reports a failed write as an internal error of its zip writer
            raise
        self.sha256.update(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()


def _replace(temporary: Path, path: Path, digest: str) -> None:
    """Put a checkpoint in place. At every moment what stands at `path` agrees with a line of its checksum file."""
    sidecar = path.with_name(path.name + ".sha256")
    before = sorted(recorded_checksums(path) - {digest}) if path.exists() else []
    write_text(sidecar, "".join(f"{d}  {path.name}\n" for d in [digest, *before]))
    os.replace(temporary, path)
    sync_folder(path.parent)
    if before:
        write_text(sidecar, f"{digest}  {path.name}\n")


def point(link: Path, target: str) -> None:
    """Let a link point to a file, relative to its folder, by one rename."""
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(target)
    except OSError as e:
        if e.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
        shutil.copyfile(link.with_name(target), temporary)  # a file system without links
    os.replace(temporary, link)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def recorded_checksums(path: Path) -> set[str]:
    """The checksums in the file beside a checkpoint; empty if there is no such file."""
    sidecar = path.with_name(path.name + ".sha256")
    if not sidecar.is_file():
        return set()
    return {line.split()[0] for line in sidecar.read_text(encoding="utf-8", errors="replace").splitlines() if line}


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step_{step:08d}.pt"


def step_of(path: Path) -> int:
    """The step of a checkpoint by its name, which may have a number behind it in `aside/`."""
    return int(path.stem.removeprefix("step_").partition("-")[0])


def best_links(folder: Path) -> list[Path]:
    """`best.pt` and `best_<metric>.pt`, those that are there."""
    return sorted((*folder.glob("best.pt"), *folder.glob("best_*.pt")))


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted((p for p in folder.glob("step_*.pt") if _NAME.fullmatch(p.name)), key=step_of)
