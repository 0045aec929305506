"""A job's folder, laid out at submission; what would fail later is refused here. Needs no torch, no GPU and no Slurm."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddptrain.config import DatasetConfig, RunConfig, SlurmConfig, load_config, no_line
from ddptrain.config.batch import split_batch
from ddptrain.config.moved import check_moved
from ddptrain.config.run import ResumeConfig
from ddptrain.config.text import parse_yaml
from ddptrain.errors import UserError
from launch import cluster, job, sbatch, source
from launch.job import Job


def user_defaults(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The user's `slurm.yaml`, below `$XDG_CONFIG_HOME/ddptrain` or `~/.config/ddptrain`; empty without one."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    path = Path(home) / "ddptrain" / "slurm.yaml"
    if not path.is_file():
        return {}
    values = parse_yaml(path.read_text(encoding="utf-8"), str(path)) or {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be a mapping of the keys of the slurm section, such as {{partition: gpu}}")
    return values


MAPPINGS = ("extra", "srun", "env")
"""Keys of the `slurm` section whose entries are each a setting of its own."""


def load(config: str | Path, overrides: Sequence[str], options: Mapping[str, Any]) -> RunConfig:
    """The config with its `slurm` section completed: options first, then overrides, the file, and the user's defaults.

    Raises:
        UserError: a mistake in one of them, or a dependency that another would replace.
    """
    own = load_config(config, overrides, tell=no_line).slurm
    defaults = user_defaults()
    values = {k: v for k, v in defaults.items() if k not in own.model_fields_set} | dict(options)
    for key in MAPPINGS:
        parts = [defaults.get(key, {}), getattr(own, key), options.get(key, {})]
        if all(isinstance(part, dict) for part in parts) and (parts[0] or parts[2]):
            values[key] = parts[0] | parts[1] | parts[2]
            before, now = (parts[0] | parts[1]).get("dependency"), parts[2].get("dependency")
            if key == "extra" and before and now and before != now:
                raise UserError(
                    f"slurm.extra.dependency: the settings have {before}, the options {now}, which would replace it; give one "
                    "dependency, its conditions joined by commas"
                )
    return load_config(config, [*overrides, *_as_overrides(values)])


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
    """Check a config and make its job folder; nothing is queued yet.

    Args:
        options: keys of the `slurm` section that take precedence over all others.
        check_data: refuse data folders that do not exist.
        table: see `Job`.
        code: another job's copy of the code, to be used again; None makes a new copy.
        known: see `refuse_second`.

    Raises:
        UserError: a mistake in the config, the batch split or a data path, or a second job for one run. Nothing is written
            then.
    """
    config = load(config_path, overrides, options or {})
    check_moved(Path(config_path), config)
    split_batch(config.train.global_batch, config.train.micro_batch, config.slurm.nodes * config.slurm.ranks)
    check_setup(config.slurm.setup)
    refuse_second(config.folder.absolute(), known)
    if check_data:
        check_starts(config.resume, config.init_from, config.folder)
        check_datasets("train", config.data.train)
        check_datasets("val", config.data.val)
    folder = new_folder(config.folder.absolute(), config.task, folder_name, code)
    shutil.copyfile(config_path, folder / "config.yaml")
    arguments = ["train", str(folder / "config.yaml"), *overrides]
    if config.resume is None:
        arguments.append("resume=auto")
    made = Job(
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
    job.write(made)
    return made


def pythons(slurm: SlurmConfig) -> dict[str, str]:
    """The two Pythons of a `Job`: inside a container it is another one than outside."""
    inside = slurm.python or ("python3" if slurm.container else sys.executable)
    return {"python": sys.executable if slurm.container else inside, "agent_python": inside}


def new_folder(run: Path, task: str, name: str | None = None, code: Path | None = None) -> Path:
    """A new job folder in a run folder, with the code in it, that of the task included; the names sort by time."""
    folder = run / "jobs" / (name or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
    (folder / "logs").mkdir(parents=True)
    if code:
        (folder / "code").symlink_to(code, target_is_directory=True)
    else:
        source.copy(folder)
    source.copy_task(folder / "code", task)
    return folder


def discard(mine: Job) -> None:
    """Remove the folder of a job that was not queued, and the folders above it that are now empty."""
    shutil.rmtree(mine.path)
    for parent in list(mine.path.parents)[:3]:
        if any(parent.iterdir()):
            break
        parent.rmdir()


def refuse_second(run: Path, known: str = "") -> None:
    """Refuse a run that a queued or running job trains already: two jobs would write to one folder.

    Args:
        known: numbers of jobs that do not count: this job's own, or those that it waits for.

    Raises:
        UserError: names the job.
    """
    for folder in sorted(run.glob("jobs/*/job.json")):
        number = job.read(folder.parent).id
        state = cluster.job_state(number) if number and number not in re.findall(r"\w+", known) else None
        if state and state.state not in cluster.ENDED:
            raise UserError(
                f"{run}: job {number} ({state.state}) is already training this run; let it continue, cancel it with "
                f"`ddptrain cancel {number}`, or choose another name=…"
            )


def check_starts(resume: ResumeConfig | None, init_from: str | None, folder: Path) -> None:
    """Refuse checkpoints that do not exist, as seen from the folder that the job will run in.

    Raises:
        UserError: names the key and the path.
    """
    source = resume.source if resume and resume.source != "auto" else None
    resumed = source or (resume and any((folder / "checkpoints").glob("*.pt")))  # a resumed run has no use for init_from
    for key, checkpoint in (("init_from", None if resumed else init_from), ("resume", source)):
        if checkpoint is not None and not Path(checkpoint).exists():
            raise UserError(f"{key}: {Path(checkpoint).absolute()} does not exist; give a run folder or a checkpoint in it")


def check_datasets(part: str, datasets: Sequence[DatasetConfig]) -> None:
    """Refuse data folders that do not exist, as seen from the folder that the job will run in.

    Raises:
        UserError: names the key and the path of the first.
    """
    for i, dataset in enumerate(datasets):
        root = Path(dataset.root).absolute()
        for key in ("root", "annotations", "images", "depth"):
            value = getattr(dataset, key, None)  # only some tasks know depth
            if value and not (root / value if key != "root" else root).exists():
                path = root if key == "root" else root / value
                raise UserError(
                    f"data.{part}.{i}.{key}: {dataset.name}: {path} does not exist; put the data there, correct the "
                    "path, or pass --no-data-check where only the compute nodes see it"
                )


def check_setup(lines: Sequence[str]) -> None:
    """Refuse shell commands that bash cannot parse, each by itself and as it stands in the script, whose next line it might
    swallow; without bash on this machine nothing is checked.

    Raises:
        UserError: names the first.
    """
    bash = shutil.which("bash")
    for i, line in enumerate(lines if bash else ()):
        tried = (
            subprocess.run([str(bash), "-n", "-c", text], capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
            for text in (line, f"{{\n{line}\n}}")
        )
        if done := next((t for t in tried if t.returncode or t.stderr), None):
            reason = done.stderr.strip().splitlines()[0].partition("line ")[2].partition(": ")[2]
            raise UserError(f"slurm.setup.{i}: {line!r} is not a complete shell command ({reason}); give each command an entry")


def create_here(argv: Sequence[str]) -> Job:
    """The folder of the running job, for a script that was queued by hand (`slurm/train.sbatch`).

    The code is copied when the job first starts; a requeued job finds its folder again and changes nothing.

    Args:
        argv: `train CONFIG key=value …` | `array FOLDER key=value …` (the config is FOLDER/<index>.yaml) |
            `eval RUN key=value …`.
    """
    number = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:  # the number that the user knows
        number = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    name = f"slurm-{number}"
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        made = job.find(number)
        if made.path.name != name:  # another cluster's job with the same number
            raise UserError(f"job {number}: its folder is no longer known; submit it again")
        return made
    if len(argv) < 2:
        raise UserError("give a config (train), a folder of configs (array) or a run (eval) after the script")
    kind, config, overrides = argv[0], argv[1], list(argv[2:])
    gpus = os.environ.get("SLURM_GPUS_ON_NODE", "0")
    here: dict[str, Any] = {
        "nodes": int(os.environ["SLURM_JOB_NUM_NODES"]),
        "gpus_per_node": int(gpus) if gpus.isdigit() else 0,
    }
    if kind == "eval":
        made = _evaluation(Path(config), overrides, here, name)
    else:
        table = None
        if kind == "array":
            folder, config = Path(config).absolute(), f"{config}/{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}.yaml"
            table = str(folder) if (folder / "sweep.json").is_file() else None
        made = create(config, overrides, here, table=table, folder_name=name, known=number)
    (made.path / "script.sh").write_text(sbatch.text(made))
    job.register(made, number)
    return made


def _evaluation(run: Path, overrides: list[str], here: dict[str, Any], name: str) -> Job:
    if not run.exists():
        raise UserError(f"{run}: does not exist; give a run folder or a checkpoint in it")
    root = run if run.is_dir() else next((p for p in run.parents if (p / "config.yaml").is_file()), run.parent)
    config = load(root / "config.yaml", overrides, here)
    made = Job(
        name=config.name,
        folder=str(new_folder(root.absolute(), config.task, name)),
        run=str(root.absolute()),
        module="ddptrain.cli",
        arguments=("eval", str(run.absolute()), *overrides),
        cwd=str(Path.cwd()),
        slurm=config.slurm.model_dump(mode="json"),
        cpus=config.slurm.cpus_per_task or 1,
        **pythons(config.slurm),
    )
    job.write(made)
    return made
