"""What an agent has to do on its machine, as plain values: written once per start of a job, read by every machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STOP = "stop"
"""File in a job's folder: the user wants this start to end, also where nothing is there yet to hear a signal."""


@dataclass(frozen=True)
class Plan:
    """One start of a run's processes.

    Attributes:
        module: Python module whose `main(argv) -> int` every rank calls.
        arguments: its arguments.
        nproc: ranks per machine.
        nnodes: machines.
        cwd: working directory of the ranks; null for the agent's own.
        env: variables set in every rank before anything is imported.
        logs: folder of one log per machine, rank and restart; null: the ranks write to the agent's own output.
        restart: how often the job was requeued before.
        max_restarts: restarts in place after a lost rank.
        grace_s: seconds the ranks have for their save after a stop signal.
        lost_s: seconds without a word from another machine after which it is taken for lost.
        late_s: seconds that a machine may take to come.
        run_id: name of the rendezvous.
        token: secret by which an agent knows that a store is this job's.
        address: address of the machine that holds the store.
        host: node name of that machine; empty for the machine of the agent itself.
        ports: ports to try, in this order; 0 is any free one.
        addresses: node name → address, for the machines of the job.
        endpoint: `host:port` given by the user, for machines without Slurm; replaces address, host and ports.
        check: pre-flight of every machine before the ranks start.
        check_command: further shell command of the pre-flight; a machine where it fails is bad.
        gpus: GPUs every machine must have; 0 for none.
    """

    module: str
    arguments: tuple[str, ...]
    nproc: int = 1
    nnodes: int = 1
    cwd: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    logs: str | None = None
    restart: int = 0
    max_restarts: int = 0
    grace_s: float = 300.0
    lost_s: float = 60.0
    late_s: float = 300.0
    run_id: str = "ddptrain"
    token: str = ""
    address: str = "localhost"
    host: str = ""
    ports: tuple[int, ...] = (0,)
    addresses: dict[str, str] = field(default_factory=dict)
    endpoint: str | None = None
    check: bool = False
    check_command: str | None = None
    gpus: int = 0

    def dumps(self) -> str:
        """The plan as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def loads(cls, text: str) -> Plan:
        """The plan that `dumps` wrote."""
        values: dict[str, Any] = json.loads(text)
        for key in ("arguments", "ports"):
            values[key] = tuple(values[key])
        return cls(**values)


def write_atomic(path: Path, text: str) -> None:
    """Write a small file so that a reader on any machine sees the old or the new text, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def node_name(environ: Mapping[str, str] = os.environ) -> str:
    """Slurm's name of this machine, else the host's."""
    return environ.get("SLURMD_NODENAME") or os.uname().nodename.split(".")[0]


def threads_per_rank(nproc: int, environ: Mapping[str, str] = os.environ) -> int:
    """Cores of this machine (or of the Slurm task) shared out to its ranks, at least 1."""
    cores = environ.get("SLURM_CPUS_PER_TASK", "")
    if cores.isdigit():
        total = int(cores)
    elif hasattr(os, "sched_getaffinity"):
        total = len(os.sched_getaffinity(0))
    else:
        total = os.cpu_count() or 1
    return max(1, total // nproc)
