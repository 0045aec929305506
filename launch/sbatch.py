"""Submission through sbatch alone: the same script, the same agent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddptrain.errors import UserError
from launch import cluster, job, script
from launch.job import Job


def arguments(mine: Job) -> list[str]:
    """sbatch's options for a job, safe for any character."""
    return [f"--{k}" if v is True else f"--{k}={v}" for k, v in sorted(script.options(mine).items())]


def submit(mine: Job) -> str:
    """Queue a job; returns Slurm's number."""
    path = mine.path / "script.sh"
    path.write_text(script.render(mine))
    return queue([*arguments(mine), str(path)])


def queue(arguments: Sequence[str]) -> str:
    """Call sbatch without the variables of a surrounding job; returns Slurm's number."""
    return cluster.call(*cluster.clean(["sbatch", "--parsable", *arguments])).strip().split(";")[0]


def render(mine: Job) -> str:
    """The batch script with its options, as text that sbatch would take."""
    first, rest = script.render(mine).split("\n", 1)
    return "\n".join([first, *(f"#SBATCH {a}" for a in arguments(mine)), rest])


def create_here(argv: Sequence[str]) -> Job:
    """The job folder of the running job, for a script that was queued by hand (`slurm/train.sbatch`).

    The code is taken at the job's first start; a requeued job finds its folder again and changes nothing.

    Args:
        argv: `train CONFIG key=value …` | `array FOLDER key=value …` (the config is FOLDER/<index>.yaml) |
            `eval RUN key=value …`.
    """
    number = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:  # as the user knows it
        number = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    name = f"slurm-{number}"
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        found = job.find(number)
        if found.path.name != name:  # another cluster's job of the same number
            raise UserError(f"job {number}: its folder is not known any more; submit it again")
        return found
    if len(argv) < 2:
        raise UserError("give a config (train), a folder of configs (array) or a run (eval) after the script")
    kind, source, overrides = argv[0], argv[1], list(argv[2:])
    gpus = os.environ.get("SLURM_GPUS_ON_NODE", "0")
    here: dict[str, Any] = {
        "nodes": int(os.environ["SLURM_JOB_NUM_NODES"]),
        "gpus_per_node": int(gpus) if gpus.isdigit() else 0,
    }
    if kind == "eval":
        made = _evaluation(Path(source), overrides, here, name)
    else:
        index = os.environ.get("SLURM_ARRAY_TASK_ID", "0")
        config = f"{source}/{index}.yaml" if kind == "array" else source
        table = source if kind == "array" and (Path(source) / "sweep.json").is_file() else None
        made = job.create(config, overrides, here, table=table and str(Path(table).absolute()), folder_name=name, known=number)
    (made.path / "script.sh").write_text(script.render(made))
    job.register(made, number)
    return made


def _evaluation(run: Path, overrides: list[str], here: dict[str, Any], name: str) -> Job:
    if not run.exists():
        raise UserError(f"{run}: no such run; give a run folder or a checkpoint in it")
    root = run if run.is_dir() else next((p for p in run.parents if (p / "config.yaml").is_file()), run.parent)
    config = job.load(root / "config.yaml", overrides, here)
    made = Job(
        name=config.name,
        folder=str(job.new_folder(root.absolute(), name)),
        run=str(root.absolute()),
        module="ddptrain.cli",
        arguments=("eval", str(run.absolute()), *overrides),
        cwd=str(Path.cwd()),
        slurm=config.slurm.model_dump(mode="json"),
        cpus=config.slurm.cpus_per_task or 1,
        **job.pythons(config.slurm),
    )
    job.write(made)
    return made
