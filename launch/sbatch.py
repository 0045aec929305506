"""The batch script: prepare, one agent per machine, decide what comes next. Queued here by sbatch; submitit queues the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from ddptrain.system.status import STOPPED, USER_ERROR
from launch import cluster
from launch.job import Job
from launch.plan import STOP

_PLAIN = re.compile(r"[\w./+=@:,-]+")


def name_of(job: Job) -> str:
    """The job's name for Slurm, with characters replaced that may break the tools of a cluster."""
    return re.sub(r"[^\w.+=@:,-]", "_", job.name)


def options(job: Job, signal: str = "USR1") -> dict[str, str | int | bool]:
    """The sbatch parameters by their long names; True for one without a value.

    Tasks and GPUs are counted per machine: GPUs bound to a task cannot reach each other.
    """
    slurm = job.options
    given: dict[str, str | int | bool | None] = {
        "job-name": name_of(job),
        "nodes": slurm.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": slurm.gpus_per_node or None,
        "cpus-per-task": job.cpus,
        "mem": slurm.mem,
        "time": slurm.time,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "exclude": slurm.exclude,
        "signal": f"{signal}@{slurm.signal_s}",
        "requeue": True,
        "open-mode": "append",
        # for failures before the script has opened its own log; Slurm reads % and other signs as patterns
        "output": f"{job.folder}/slurm.txt" if _PLAIN.fullmatch(job.folder) else "/dev/null",
    }
    return {k: v for k, v in (given | slurm.extra).items() if v is not None and v is not False}


def setup(lines: Sequence[str]) -> list[str]:
    """The user's commands; a failing one ends the job, like any user's mistake."""
    script = []
    for line in lines:
        failure = f"ddptrain: error: slurm.setup: {' '.join(line.split())!r} failed with status"
        remedy = "correct the command, or add '|| true' where its failure does no harm"
        script += ["{", line, f'}} || {{ echo {shlex.quote(failure)} "$?; "{shlex.quote(remedy)} >&2; exit {USER_ERROR}; }}']
    return script


def head(job: Job) -> list[str]:
    """The lines before srun."""
    quote = shlex.quote
    finish = f"{quote(job.python)} -m launch.batch finish {quote(job.folder)}"
    return [
        "stop=",
        "trap stop=yes USR1 USR2 TERM  # the script outlives a stop: it decides what comes next",
        f"exec >>{quote(job.folder + '/log.txt')} 2>&1",
        *setup(job.options.setup),
        f"cd {quote(job.folder + '/code')} || exit 1",
        'export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"',
        "export SLURM_EXPORT_ENV=ALL  # otherwise steps of a job submitted with --export=NONE find no program",
        'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then',
        '  export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"  # some releases of srun do not inherit it',
        "fi",
        f"{quote(job.python)} -m launch.batch prepare {quote(job.folder)} || exit",
        f'if [ -n "$stop" ] || [ -e {quote(f"{job.folder}/{STOP}")} ]; then exec {finish} {STOPPED}; fi',
    ]


def srun(job: Job) -> list[str]:
    """The arguments of srun: one task per machine, all ended when one fails, all output to the batch script."""
    given = [f"--{k}" if v is True else f"--{k}={v}" for k, v in job.options.srun.items() if v is not False]
    return ["--ntasks-per-node=1", "--kill-on-bad-exit=1", "--wait=30", "--unbuffered", *given]


def python_command(job: Job) -> str:
    """The command that runs Python on every machine, in the container if there is one."""
    container = job.options.container
    return f"{container} {shlex.quote(job.agent_python)}" if container else shlex.quote(job.agent_python)


def tail(job: Job) -> list[str]:
    """The lines after srun."""
    return ["rc=$?", f'exec {shlex.quote(job.python)} -m launch.batch finish {shlex.quote(job.folder)} "$rc"']


def text(job: Job) -> str:
    """The whole script."""
    agent = f"srun {shlex.join(srun(job))} {python_command(job)} -m launch.agent {shlex.quote(job.folder)}"
    return "\n".join(["#!/bin/bash", *head(job), agent, *tail(job), ""])


def arguments(mine: Job) -> list[str]:
    """The options of sbatch for a job, safe for any character."""
    return [f"--{k}" if v is True else f"--{k}={v}" for k, v in sorted(options(mine).items())]


def submit(mine: Job) -> str:
    """Queue a job; returns its number."""
    path = mine.path / "script.sh"
    path.write_text(text(mine))
    return queue([*arguments(mine), str(path)])


def queue(arguments: Sequence[str]) -> str:
    """Call sbatch without the variables of a surrounding job; returns the job number."""
    return cluster.call(*cluster.clean(["sbatch", "--parsable", *arguments])).strip().split(";")[0]


def render(mine: Job) -> str:
    """The batch script with its options, as sbatch would accept it."""
    first, rest = text(mine).split("\n", 1)
    quoted = (f"{key}{eq}{shlex.quote(value) if eq else ''}" for key, eq, value in (a.partition("=") for a in arguments(mine)))
    return "\n".join([first, *(f"#SBATCH {a}" for a in quoted), rest])
