"""Run folders that are not where their config says: moved or renamed, so that `resume=auto` would start over elsewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ddptrain.config.run import RunConfig
from ddptrain.errors import UserError

LOOKED_AT = 200
"""Number of run folders, the newest first, among which a renamed one is looked for."""


def nothing_found(folder: Path) -> str:
    """What is reported where `resume=auto` finds no checkpoint in a run folder, with a run of this name that is elsewhere."""
    line = f"resume=auto: no checkpoint in {folder / 'checkpoints'}: a new run starts"
    moved = _renamed(folder)
    return line + (
        f"; {moved} holds a run of this name: continue it with output={moved.parent} name={moved.name}" if moved else ""
    )


def _renamed(folder: Path) -> Path | None:
    """A folder beside this one whose run had the name of this one."""
    try:
        folders = sorted(folder.parent.iterdir(), key=os.path.getmtime, reverse=True)[:LOOKED_AT]
    except OSError:
        return None
    return next((f for f in folders if f.name != folder.name and _name_in(f) == folder.name and _has_checkpoint(f)), None)


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("step_*.pt"))


def _name_in(folder: Path) -> str | None:
    """The name in the `config.yaml` of a run folder, which is its first line."""
    try:
        with open(folder / "config.yaml", encoding="utf-8") as file:
            name = re.match(r"name: *['\"]?([^'\"\s]+)", file.readline())
    except (OSError, UnicodeDecodeError):
        return None
    return name[1] if name else None


def check_moved(path: Path, config: RunConfig) -> None:
    """Refuse the config.yaml of a run folder that names another folder: the run was moved or renamed, and would start over
    in its old place.

    Raises:
        UserError: with the overrides by which it resumes where it is.
    """
    folder = path.resolve().parent
    auto = config.resume is not None and config.resume.source == "auto"
    if not (auto and path.name == "config.yaml" and _has_checkpoint(folder)):
        return
    if folder != config.folder.resolve() and not _has_checkpoint(config.folder):
        raise UserError(
            f"{path}: belongs to the run in {folder}, but names {config.folder}, which has no checkpoint: it was moved or "
            f"renamed; continue it with output={folder.parent} name={folder.name}, or start a new run with resume=null"
        )
