"""The start that a run was given, `start.json` in its folder: it holds for every restart until the run has a checkpoint.

No torch here: the launcher reads it, too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ddptrain.config import RunConfig
from ddptrain.errors import UserError
from ddptrain.system.files import write_text

NAME = "start.json"


@dataclass(frozen=True)
class Start:
    """Where a run began.

    Attributes:
        source: checkpoint or run, absolute.
        allow: the differences from it that were accepted.
    """

    source: str
    allow: tuple[str, ...] = ()


def told_start(config: RunConfig) -> Start | None:
    """The start that a config asks for; None for one from the beginning or from the run's own checkpoints."""
    if config.resume is None or config.resume.source == "auto":
        return None
    return Start(str(Path(config.resume.source).absolute()), config.resume.allow)


def write_start(folder: Path, start: Start) -> None:
    """Note in a run folder where the run began; raises `OSError`."""
    write_text(folder / NAME, json.dumps(asdict(start)) + "\n")


def read_start(folder: Path) -> Start | None:
    """Where the run of a folder began; None for one that began anew.

    Raises:
        UserError: the file is no such note.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Start(str(content["source"]), tuple(map(str, content["allow"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as e:
        raise UserError(
            f"{path}: not the start of a run ({e}); name the start again with resume=PATH, or delete the file"
        ) from None
