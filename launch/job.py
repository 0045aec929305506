"""A job's folder: everything a start on the cluster needs, written once at submission.

<run>/jobs/<name>/
    job.json            the Job below                   id            Slurm's number
    config.yaml         the config as it was            log.txt       the job's output, all ranks merged
    script.sh           the batch script                logs/         one log per machine, rank and restart
    code/               the code as it was              ends.json     how each start ended
    code.json diff.patch environment.json               plan.rN.json  what the agents of start N do
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddptrain.config import RunConfig, SlurmConfig, load_config, no_line
from ddptrain.config.batch import split_batch
from ddptrain.config.moved import check_moved
from ddptrain.config.text import parse_yaml
from ddptrain.errors import UserError
from launch import checks, cluster, snapshot
from launch.plan import write_atomic


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
        table: sweep folder whose result table is written when the run ends; null else.
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
        """Slurm's number; None before it is queued."""
        try:
            return (self.path / "id").read_text().strip()
        except FileNotFoundError:
            return None


def user_defaults(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The user's `slurm.yaml`, below `$XDG_CONFIG_HOME/ddptrain` or `~/.config/ddptrain`; empty without one."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    path = Path(home) / "ddptrain" / "slurm.yaml"
    if not path.is_file():
        return {}
    values = parse_yaml(path.read_text(encoding="utf-8"), str(path)) or {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: a mapping of keys of the slurm section is expected")
    return values


def load(config: str | Path, overrides: Sequence[str], options: Mapping[str, Any]) -> RunConfig:
    """The config with its `slurm` section filled up: options, then overrides, then the file, then the user's defaults."""
    given = load_config(config, overrides, tell=no_line).slurm.model_fields_set
    defaults = {k: v for k, v in user_defaults().items() if k not in given}
    return load_config(config, [*_as_overrides(defaults), *overrides, *_as_overrides(options)])


def _as_overrides(values: Mapping[str, Any]) -> list[str]:
    return [f"slurm.{key}={json.dumps(value)}" for key, value in values.items()]


def create(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    *,
    check_data: bool = True,
    table: str | None = None,
    folder_name: str | None = None,
    code: Path | None = None,
    known: str = "",
) -> Job:
    """Check a config and lay out its job folder; nothing is queued yet.

    Args:
        options: keys of the `slurm` section that come before all others.
        check_data: refuse data folders that are not there.
        table: see `Job`.
        code: a copy of the code to use, another job's; None takes a new one.
        known: see `refuse_second`.

    Raises:
        UserError: the config, the batch split, a data path, a second job for one run; nothing is written then.
    """
    config = load(config_path, overrides, options or {})
    check_moved(Path(config_path), config)
    split_batch(config.train.global_batch, config.train.micro_batch, config.slurm.nodes * config.slurm.ranks)
    checks.check_setup(config.slurm.setup)
    refuse_second(config.folder.absolute(), known)
    if check_data:
        checks.check_data(config, Path.cwd())
    folder = new_folder(config.folder.absolute(), folder_name, code)
    shutil.copyfile(config_path, folder / "config.yaml")
    arguments = ["train", str(folder / "config.yaml"), *overrides]
    if config.resume is None:
        arguments.append("resume=auto")
    job = Job(
        name=config.name,
        folder=str(folder),
        run=str(config.folder.absolute()),
        module="ddptrain.cli",
        arguments=tuple(arguments),
        cwd=str(Path.cwd()),
        slurm=config.slurm.model_dump(mode="json"),
        cpus=config.slurm.cpus_per_task or config.slurm.ranks * (config.data.workers + 1),
        **pythons(config.slurm),
        table=table,
    )
    write(job)
    return job


def pythons(slurm: SlurmConfig) -> dict[str, str]:
    """The two Pythons of a `Job`: inside a container it is not the one outside."""
    inside = slurm.python or ("python3" if slurm.container else sys.executable)
    return {"python": sys.executable if slurm.container else inside, "agent_python": inside}


def new_folder(run: Path, name: str | None = None, code: Path | None = None) -> Path:
    """A fresh job folder in a run folder, with the code in it; the names sort by time."""
    folder = run / "jobs" / (name or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
    (folder / "logs").mkdir(parents=True)
    if code:
        (folder / "code").symlink_to(code, target_is_directory=True)
    else:
        snapshot.take(folder)
    return folder


def discard(job: Job) -> None:
    """Remove a job folder that did not come into the queue, and the folders above it that it left empty."""
    shutil.rmtree(job.path)
    for parent in list(job.path.parents)[:3]:
        if any(parent.iterdir()):
            break
        parent.rmdir()


def refuse_second(run: Path, known: str = "") -> None:
    """Refuse a run that a job in the queue will train, or trains: two would write one folder.

    Args:
        known: numbers of jobs that may be there: this one's own, or those it waits for.

    Raises:
        UserError: names the job.
    """
    for folder in sorted(run.glob("jobs/*/job.json")):
        number = read(folder.parent).id
        state = cluster.job_state(number) if number and number not in re.findall(r"\w+", known) else None
        if state and state.state not in cluster.ENDED:
            raise UserError(
                f"{run}: job {number} ({state.state}) is this run already; let it go on, cancel it with "
                f"`ddptrain cancel {number}`, or choose another name=…"
            )


def write(job: Job) -> None:
    """Write `job.json`."""
    write_atomic(job.path / "job.json", json.dumps(asdict(job), indent=1) + "\n")


def read(folder: Path) -> Job:
    """The job of a folder."""
    values = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    return Job(**{**values, "arguments": tuple(values["arguments"])})


def registry(environ: Mapping[str, str] = os.environ) -> Path:
    """Where this user's jobs are listed: one file per Slurm number, below `$XDG_STATE_HOME` or `~/.local/state`."""
    home = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".local" / "state")
    return Path(home) / "ddptrain" / "jobs"


def register(job: Job, number: str) -> None:
    """Note the number Slurm gave, in the job's folder and in the user's list."""
    write_atomic(job.path / "id", number + "\n")
    registry().mkdir(parents=True, exist_ok=True)
    write_atomic(registry() / number, job.folder)


def find(number: str) -> Job:
    """The job with Slurm's number, or the one of a job folder.

    Raises:
        UserError: there is none.
    """
    if (Path(number) / "job.json").is_file():
        return read(Path(number))
    path = registry() / number
    if os.sep not in number and path.is_file() and (Path(path.read_text()) / "job.json").is_file():
        return read(Path(path.read_text()))
    known = ", ".join(sorted((p.name for p in registry().glob("[0-9]*")), key=_number)[-8:]) or "none"
    raise UserError(f"job {number}: not submitted by ddptrain from here; known: {known} (see ddptrain jobs)")


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("_"))


def all_jobs() -> list[Job]:
    """The user's jobs that still have a folder, oldest first."""
    found = []
    for path in sorted(registry().glob("[0-9]*"), key=lambda p: _number(p.name)):
        folder = Path(path.read_text())
        if (folder / "job.json").is_file():
            found.append(read(folder))
    return found
