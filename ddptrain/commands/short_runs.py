"""Short real runs of one config in a temporary folder, each by ranks of its own, stopped after a few steps as by a signal."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from ddptrain.checkpoint.load import Checkpoint, load_checkpoint
from ddptrain.commands.float64 import in_float64
from ddptrain.config import RunConfig, load_config, no_line, resolve
from ddptrain.config.docs import to_yaml
from ddptrain.engine.stop import StopFlag
from ddptrain.errors import RunFailed
from ddptrain.system.ending import end_with
from ddptrain.system.printable import counted
from ddptrain.system.status import FINISHED, STOPPED

FLOAT64 = "float64"


class ShortRuns:
    """Short runs of one config in a folder.

    Args:
        config: what is trained.
        steps: length of a run.
        folder: an empty one.
        threads: of each rank on the CPU, the same for any number of ranks: it is part of the arithmetic.
    """

    def __init__(self, config: RunConfig, steps: int, folder: Path, threads: int) -> None:
        self.config, self.steps, self.folder, self.threads = config, steps, folder, threads
        self._common = [
            f"output={folder}",
            "resume=null",
            "eval.every_epochs=null",
            "eval.every_steps=null",
            "train.patience=null",
            f"checkpoint.every_steps={max(1, steps // 2)}",
            "checkpoint.keep_last=3",
            "monitor.trackers=[]",
            "monitor.images=0",
            "train.tf32=false",
        ]

    def run(self, what: str, *overrides: str, ranks: int = 1, steps: int | None = None, float64: bool = False) -> Checkpoint:
        """Train under other settings; `what` names the run. Returns its last checkpoint.

        Args:
            steps: length of this run.
            float64: compute in float64, whatever `train.precision` says.

        Raises:
            RunFailed: it ended with an error.
        """
        steps = steps or self.steps
        exact = ("train.precision=none", "data.workers=0") if float64 else ()
        what = f"{what}, {FLOAT64}" if float64 else what
        name = what.replace(", ", " ").replace(" ", "_")
        config = resolve(self.config.model_dump(mode="json"), [*self._common, f"name={name}", *overrides, *exact], tell=no_line)
        file = self.folder / f"{name}.yaml"
        file.write_text(to_yaml(config), encoding="utf-8")
        print(f"  {what}: {counted(steps, 'step')} …", flush=True)
        command = [sys.executable, "-m", "ddptrain.commands.short_runs", str(file), str(steps), *([FLOAT64] * float64)]
        logs = [self.folder / f"{name}.{rank}.txt" for rank in range(ranks)]
        processes = []
        for log, environ in zip(logs, environments(os.environ, ranks, self.threads)):
            with log.open("w") as out:
                processes.append(subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environ))
        codes = [process.wait() for process in processes]
        for code, log in zip(codes, logs):
            if code not in (FINISHED, STOPPED):
                lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
                raise RunFailed(f"{what}: ended with status {code}: {' | '.join(lines[-3:])}")
        return load_checkpoint(config.folder, print)


def environments(environ: Mapping[str, str], size: int, threads: int) -> list[dict[str, str]]:
    """The environments of `size` ranks on this machine, independent of the launcher that started this process."""
    own = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    plain = {k: v for k, v in environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_", *own))}
    plain["OMP_NUM_THREADS"] = str(threads)
    if size == 1:
        return [plain]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    plain |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    return [plain | {"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(size)]


def main(arguments: Sequence[str]) -> int:
    """One rank of a short run: the path of its config, the number of steps, and `float64` for that precision."""
    from ddptrain.engine.trainer import train

    path, steps, *precision = arguments
    config = load_config(path)
    with in_float64(config.task) if precision else nullcontext():
        return train(config, StopFlag(after=int(steps)))


if __name__ == "__main__":
    end_with(lambda: main(sys.argv[1:]))
