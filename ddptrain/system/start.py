"""`start.json` in a run folder: the checkpoint that the run was started from. It holds for every restart until the run has a
checkpoint of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ddptrain.config.run import ResumeConfig
from ddptrain.errors import UserError
from ddptrain.system.files import write_text

NAME = "start.json"


@dataclass(frozen=True)
class Start:
    """Where a run began.

    Attributes:
        source: checkpoint or run folder, absolute.
        allow: the differences from it that are accepted.
    """

    source: str
    allow: tuple[str, ...] = ()


def requested_start(resume: ResumeConfig | None) -> Start | None:
    """The start that a config asks for; None for the beginning or the run's own checkpoints."""
    if resume is None or resume.source == "auto":
        return None
    return Start(str(Path(resume.source).absolute()), resume.allow)


def write_start(folder: Path, start: Start) -> None:
    """Record in a run folder where the run began; raises `OSError`."""
    write_text(folder / NAME, json.dumps(asdict(start)) + "\n")


def read_start(folder: Path) -> Start | None:
    """Where the run of a folder began; None for one that began from scratch.

    Raises:
        UserError: the file is not such a record.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Start(str(content["source"]), tuple(map(str, content["allow"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as e:
        raise UserError(
            f"{path}: does not describe the start of a run ({e}); give the start again with resume=PATH, or delete the file"
        ) from None
