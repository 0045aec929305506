"""What an agent does on its machine, as plain values: written once per start of a job, read by every machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ddptrain.system.limits import available_cores

STOP = "stop"
"""File in a job's folder: the user wants this start to end, even before any process can receive a signal."""


@dataclass(frozen=True)
class Plan:
    """One start of a run's processes.

    Attributes:
        module: Python module whose `main(argv) -> int` every rank calls.
        arguments: its arguments.
        nproc: ranks per machine.
        nnodes: machines.
        cwd: working directory of the ranks; None for the agent's own.
        env: variables set in every rank before anything is imported.
        logs: folder of one log per machine, rank and restart; None: the ranks write to the agent's own output.
        restart: how often the job was requeued before.
        max_restarts: restarts in place after a lost rank.
        grace_s: seconds the ranks have for their save after a stop signal.
        lost_s: seconds of silence after which another machine counts as lost.
        late_s: seconds that a machine may take to join.
        run_id: name of the rendezvous.
        token: secret by which an agent recognises the store of this job.
        address: address of the machine that holds the store.
        host: node name of that machine; empty for the machine of the agent itself.
        ports: ports to try, in this order; 0 for any free one.
        addresses: address of each machine of the job, by node name.
        endpoint: `host:port` given by the user, for machines without Slurm; replaces address, host and ports.
        check: pre-flight of every machine before the ranks start.
        check_command: additional shell command of the pre-flight; a machine on which it fails is bad.
        gpus: GPUs that every machine must have.
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
        """The plan of a text that `dumps` made."""
        values: dict[str, Any] = json.loads(text)
        for key in ("arguments", "ports"):
            values[key] = tuple(values[key])
        return cls(**values)


def node_name(environ: Mapping[str, str] = os.environ) -> str:
    """Slurm's name for this machine, else its host name."""
    return environ.get("SLURMD_NODENAME") or os.uname().nodename.split(".")[0]


def threads_per_rank(nproc: int, environ: Mapping[str, str] = os.environ) -> int:
    """Cores of this machine (or of the Slurm task) for each of its ranks, at least 1."""
    cores = environ.get("SLURM_CPUS_PER_TASK", "")
    return max(1, (int(cores) if cores.isdigit() else available_cores()) // nproc)
