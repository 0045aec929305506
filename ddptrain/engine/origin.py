"""Which checkpoint a run starts from: its own newest one, the one that it was told, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ddptrain.checkpoint.load import Checkpoint, load_checkpoint, newest_checkpoint
from ddptrain.config import RunConfig
from ddptrain.errors import UserError
from ddptrain.system.lock import has_run
from ddptrain.system.start import Start, read_start, requested_start
from ddptrain.system.status import read_status


class Origin(NamedTuple):
    """Where a run starts.

    Attributes:
        checkpoint: None for a start from the beginning.
        start: what holds for restarts until the run has a checkpoint of its own.
        allow: the differences from the checkpoint that are accepted.
        fresh: what is left of the run's own checkpoints is put aside.
    """

    checkpoint: Checkpoint | None = None
    start: Start | None = None
    allow: tuple[str, ...] = ()
    fresh: bool = False


def find_origin(config: RunConfig, warn: Callable[[str], None]) -> Origin:
    """Look for the checkpoint that `resume` asks for.

    Raises:
        UserError: the folder is taken, the source holds no checkpoint, or none of the run's own can be read.
    """
    resume, folder = config.resume, config.folder
    if resume is None:
        if has_run(folder):
            raise UserError(f"{folder}: this run exists; go on with it by resume=auto, or choose another name=…")
        return Origin()
    start = requested_start(resume) or read_start(folder)
    if resume.source == "auto":
        newest = newest_checkpoint(folder / "checkpoints", warn)
        if newest is not None:
            return Origin(newest, start, resume.allow)
        fresh = _lost(folder)
        if fresh and "fresh" not in resume.allow:
            raise UserError(
                f"{folder / 'checkpoints'}: none of this run's checkpoints can be read{fresh}; bring one back, or give up what "
                f"it learned and start anew with resume=auto resume.allow=[fresh]"
            )
        if start is None or _is_own(Path(start.source), folder):
            return Origin(fresh=bool(fresh))
        warn(f"{folder}: has no checkpoint of its own yet: starts from {start.source}, as it was told first")
        allow = (*start.allow, *resume.allow)
        return Origin(load_checkpoint(Path(start.source), warn), start, allow, bool(fresh))
    assert start is not None
    source = Path(resume.source)
    if not _is_own(source, folder) and has_run(folder) and (_has_checkpoints(folder) or read_start(folder) != start):
        raise UserError(
            f"{folder}: this run exists and {source} is not in it; go on with it by resume=auto, or choose another name=…"
        )
    return Origin(load_checkpoint(source, warn), start, resume.allow)


def _lost(folder: Path) -> str:
    """What tells that a run had checkpoints, where none can be read; empty for one that never had any."""
    if _has_checkpoints(folder):
        return ", each is named above"
    status = read_status(folder)
    return f", and {status.checkpoint}, its last one, is gone" if status is not None and status.checkpoint else ""


def _has_checkpoints(folder: Path) -> bool:
    """Whether it has saved any: best.pt may have come along from the run that it goes on from."""
    checkpoints = folder / "checkpoints"
    return any(checkpoints.glob("step_*.pt")) or (checkpoints / "last.pt").is_symlink() or (checkpoints / "last.pt").exists()


def _is_own(source: Path, folder: Path) -> bool:
    return folder.resolve() in (source.resolve(), *source.resolve().parents)
