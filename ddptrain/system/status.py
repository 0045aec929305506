"""The state of a run and the exit status of a process.

Rank 0 alone writes `status.json` in the run folder, in one move: at the start, with every checkpoint and at the end.

    {"state": "running", "step": 100, "steps": 4000, "time": "2025-01-31T12:00:00+00:00", "reason": "",
     "checkpoint": "checkpoints/step_00000100.pt"}

Exit statuses:

    0   FINISHED    the run reached its last step; or, for a rank under torchrun or srun, it stopped on a signal with a
                    saved checkpoint: a rank that ends with anything else is restarted by torchrun and fails the job,
                    so there the launcher reads `status.json` and turns `stopped` into 75 itself
    1   FAILED      an error, or the last checkpoint could not be written
    2   USER_ERROR  a user error, reported in one line
    75  STOPPED     a signal ended the run early and a checkpoint is saved: try again later (EX_TEMPFAIL of sysexits.h)
    128+n           a second signal n ended the process at once, without a save
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, get_args

from ddptrain.errors import UserError
from ddptrain.system.files import write_text

FINISHED, FAILED, USER_ERROR, STOPPED = 0, 1, 2, 75

State = Literal["running", "stopped", "finished", "failed"]


@dataclass(frozen=True)
class Status:
    """The content of `status.json`.

    Attributes:
        state: "running", "stopped" (early, with a saved checkpoint), "finished" or "failed".
        step: steps done.
        steps: steps of the whole run.
        time: when it was written, ISO 8601 in UTC.
        reason: why it stopped or failed, in one line; empty otherwise.
        checkpoint: the newest checkpoint, relative to the run folder; None before the first.
    """

    state: State
    step: int
    steps: int
    time: str
    reason: str = ""
    checkpoint: str | None = None


def write_status(folder: Path, state: State, step: int, steps: int, reason: str = "", checkpoint: Path | None = None) -> None:
    """Write `status.json` in a run folder, in one move.

    Args:
        checkpoint: the newest checkpoint, a path inside `folder`.

    Raises:
        OSError: the folder is not writable; the old status stays.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    relative = None if checkpoint is None else checkpoint.relative_to(folder).as_posix()
    status = Status(state, step, steps, now, " ".join(reason.split()), relative)
    write_text(folder / "status.json", json.dumps(asdict(status)) + "\n")


def read_status(folder: Path) -> Status | None:
    """The status in a run folder; None where there is none yet.

    Raises:
        UserError: the file is not a status.
    """
    path = folder / "status.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if unknown := [key for key in content if key not in Status.__dataclass_fields__]:
            raise ValueError(f"unknown key {unknown[0]!r}")
        status = Status(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as e:
        raise UserError(
            f"{path}: is not the status of a ddptrain run ({e}); delete it, and the run will write a new one"
        ) from None
    if status.state not in get_args(State):
        raise UserError(f"{path}: unknown state {status.state!r}; the states are {', '.join(get_args(State))}")
    return status


def exit_status(state: State, launcher: str) -> int:
    """The status a process ends with (see the module's docstring).

    Args:
        launcher: "torchrun", "srun" or "single" (`World.launcher`); a launcher reporting for its ranks says "single".
    """
    if state == "finished":
        return FINISHED
    if state == "stopped":
        return STOPPED if launcher == "single" else FINISHED
    return FAILED
