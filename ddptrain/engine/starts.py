"""`starts.jsonl` in a run folder: a line of JSON for each start of the run, so that a reader knows what it ran on, and how to
run it again."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ddptrain.distributed import World
from ddptrain.reporting.run_page.folder import STARTS
from ddptrain.system.limits import available_cores
from ddptrain.version import __version__

_SLURM = ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_JOB_PARTITION")


def note_start(folder: Path, world: World, step: int, record: Mapping[str, Any]) -> None:
    """Add the line of this process, rank 0 of `world`, which begins at `step`. Raises `OSError`."""
    start = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "step": step,
        "command": _command(sys.argv[0], sys.argv[1:]),
        "folder": os.getcwd(),
        "version": __version__,
        "ranks": world.size,
        "ranks_here": world.local_size,
        "launcher": world.launcher,
        "slurm": {key: os.environ[key] for key in _SLURM if key in os.environ},
        **_machine(world.device),
        "record": dict(record),
    }
    with (folder / STARTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(start, ensure_ascii=False) + "\n")


def _command(program: str, arguments: Sequence[str]) -> str:
    """The command as it was typed; empty where something else, such as a launcher or a user's program, started this process."""
    typed = Path(program).name == "ddptrain" or Path(program).parts[-2:] == ("ddptrain", "__main__.py")
    return shlex.join(["ddptrain", *arguments]) if typed else ""


def _machine(device: torch.device) -> dict[str, Any]:
    """Host, processor, memory and GPU of this rank."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    machine: dict[str, Any] = {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": available_cores(),
        "memory_gb": round(pages * size / 2**30, 1),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine |= {"gpu": properties.name, "gpu_memory_gb": round(properties.total_memory / 2**30, 1)}
        machine["cuda"] = torch.version.cuda
    return machine
