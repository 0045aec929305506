"""A job's folder, written at submission with all that a start on the cluster needs, and the list of a user's jobs.

<run>/jobs/<name>/
    job.json            the Job below                   id            Slurm's job number
    config.yaml         the config at submission        log.txt       the job's output, all ranks merged
    script.sh           the batch script                logs/         one log per machine, rank and restart
    code/               the code at submission          ends.json     how each start ended
    code.json diff.patch environment.json               plan.rN.json  what the agents of start N do
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddptrain.config import SlurmConfig
from ddptrain.errors import UserError
from ddptrain.system.files import write_text


@dataclass(frozen=True)
class Job:
    """A submission.

    Attributes:
        name: the run's name.
        folder: the job's folder, absolute.
        run: the run's folder, absolute.
        module, arguments: what every rank calls.
        cwd: working directory of the ranks, that of the submission.
        slurm: the resolved `slurm` section.
        cpus: cores per machine.
        python: Python of the batch script, outside any container.
        agent_python: Python of the agents and ranks.
        table: folder of the sweep whose result table is written when the run ends; None otherwise.
    """

    name: str
    folder: str
    run: str
    module: str
    arguments: tuple[str, ...]
    cwd: str
    slurm: dict[str, Any]
    cpus: int
    python: str
    agent_python: str
    table: str | None = None

    @property
    def options(self) -> SlurmConfig:
        """The resolved `slurm` section."""
        return SlurmConfig.model_validate_json(json.dumps(self.slurm))

    @property
    def path(self) -> Path:
        """The job's folder."""
        return Path(self.folder)

    @property
    def id(self) -> str | None:
        """Slurm's job number; None before the job is queued."""
        try:
            return (self.path / "id").read_text().strip()
        except FileNotFoundError:
            return None


def write(job: Job) -> None:
    """Write `job.json`."""
    write_text(job.path / "job.json", json.dumps(asdict(job), indent=1) + "\n")


def read(folder: Path) -> Job:
    """The job of a folder."""
    values = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    return Job(**{**values, "arguments": tuple(values["arguments"])})


def registry(environ: Mapping[str, str] = os.environ) -> Path:
    """Where this user's jobs are listed: one file per job number, below `$XDG_STATE_HOME` or `~/.local/state`."""
    home = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".local" / "state")
    return Path(home) / "ddptrain" / "jobs"


def register(job: Job, number: str) -> None:
    """Record the number that Slurm gave, in the job's folder and in the user's list."""
    write_text(job.path / "id", number + "\n")
    registry().mkdir(parents=True, exist_ok=True)
    write_text(registry() / number, job.folder)


def find(number: str) -> Job:
    """The job with this number, or in this folder.

    Raises:
        UserError: there is no such job.
    """
    if (Path(number) / "job.json").is_file():
        return read(Path(number))
    path = registry() / number
    if os.sep not in number and path.is_file() and (Path(path.read_text()) / "job.json").is_file():
        return read(Path(path.read_text()))
    if os.sep not in number and path.is_file():
        raise UserError(f"job {number}: its folder {path.read_text()} is gone; use Slurm's own commands, such as scancel")
    known = ", ".join(sorted((p.name for p in registry().glob("[0-9]*")), key=_number)[-8:]) or "none"
    raise UserError(f"job {number}: was not submitted by ddptrain from here; known: {known} (see ddptrain jobs)")


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("_"))


def all_jobs() -> list[Job]:
    """The user's jobs that still have a folder, oldest first."""
    entries = sorted(registry().glob("[0-9]*"), key=lambda p: _number(p.name))
    folders = (Path(entry.read_text()) for entry in entries)
    return [read(folder) for folder in folders if (folder / "job.json").is_file()]
