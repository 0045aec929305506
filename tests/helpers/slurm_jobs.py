"""A user's place at a private cluster: submits small runs and waits for what becomes of them."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from private_slurm import PrivateSlurm, missing, wait_for

from ddptrain.config import SlurmConfig
from ddptrain.system.status import read_status
from launch import job, sbatch, source, submission, submitit
from launch.job import Job

HERE = Path(__file__).parent
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def need_slurm() -> None:
    """Skip in words where Slurm is not installed; in CI that is a failure."""
    if lacking := missing():
        words = f"no Slurm here, {', '.join(lacking)} lacking: apt-get install slurm-wlm munge"
        pytest.fail(words) if os.environ.get("CI") == "true" else pytest.skip(words)


class Jobs:
    """A user's place at a cluster."""

    def __init__(self, cluster: PrivateSlurm, code: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster, self.code, self.folder = cluster, code, folder
        for key, value in cluster.environ.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "no-config"))
        monkeypatch.setenv("PYTHONPATH", f"{source.source_root()}:{HERE}")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.chdir(folder)

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, *error: object) -> None:
        self.cluster.run("scancel", "-f", "-u", str(os.getuid()), check=False)
        wait_for("idle nodes", self.cluster._idle, 180)

    def prepare(
        self, name: str = "run", *, nodes: int = 2, ranks: int = 1, run: dict[str, object] | None = None, **slurm: Any
    ) -> Job:
        """The job folder of a small run of gloo_run.py; `run` are its options, the rest keys of the slurm section."""
        folder = self.folder / name
        options = ["train", str(folder), *(f"{k}={v}" for k, v in (run or {}).items()), "resume=auto"]
        given = {"nodes": nodes, "gpus_per_node": 0, "ranks_per_node": ranks, "time": "20:00", "check": False} | slurm
        place = submission.new_folder(folder, "detection", code=self.code)
        mine = Job(
            name=Path(name).name, folder=str(place), run=str(folder), module="gloo_run",
            arguments=tuple(options), cwd=str(self.folder), slurm=SlurmConfig.model_validate(given).model_dump(mode="json"),
            cpus=2, python=sys.executable, agent_python=sys.executable,
        )  # fmt: skip
        job.write(mine)
        return mine

    def gloo(self, name: str = "run", *, way: ModuleType = sbatch, **options: Any) -> Submitted:
        """Prepare and submit a small run."""
        return self.submit(self.prepare(name, **options), way)

    def both(self, name: str = "run", **options: Any) -> list[Submitted]:
        """The same small run submitted both ways, to run side by side."""
        return [self.gloo(f"{name}-{way.__name__.split('.')[-1]}", way=way, **options) for way in (sbatch, submitit)]

    def submit(self, mine: Job, way: ModuleType = sbatch) -> Submitted:
        number = way.submit(mine)
        job.register(mine, number)
        return Submitted(self.cluster, mine, number)


class Submitted:
    """A job in the queue."""

    def __init__(self, cluster: PrivateSlurm, mine: Job, number: str) -> None:
        self.cluster, self.job, self.id = cluster, mine, number
        self.run, self.folder = Path(mine.run), mine.path

    def show(self) -> dict[str, str]:
        text = self.cluster.run("scontrol", "-o", "show", "job", self.id, attempts=5)
        return dict(t.split("=", 1) for t in text.split() if "=" in t)

    @property
    def log(self) -> str:
        """All that the job said."""
        path = self.folder / "log.txt"
        early = self.folder / "slurm.txt"
        return (path.read_text() if path.exists() else "") + (early.read_text() if early.exists() else "")

    def until(self, pattern: str, timeout_s: float = 180) -> str:
        """Wait for a line in the log."""

        def found() -> object:
            if self.show()["JobState"] in ENDED and not re.search(pattern, self.log, re.MULTILINE):
                raise AssertionError(f"ended without {pattern!r}:\n{self.log}")
            return re.search(pattern, self.log, re.MULTILINE)

        try:
            wait_for(f"line {pattern!r}", found, timeout_s)
        except TimeoutError as e:
            raise AssertionError(f"{e}\n{self.show()}\n{self.log}") from None
        return self.log

    def training(self, start: int = 0, step: int = 3) -> Submitted:
        """Wait until this start of the job trains."""
        ranks = int(self.job.slurm["nodes"]) * self.job.options.ranks
        try:
            wait_for("start", lambda: len(list((self.folder / "logs").glob(f"r{start}.*.log"))) >= ranks, 180)
            for log in (self.folder / "logs").glob(f"r{start}.*.log"):
                wait_for(f"{log} to start", lambda log=log: "start rank" in log.read_text(), 180)
            time.sleep(0.1 * step)
        except TimeoutError as e:
            raise AssertionError(f"{e}\n{self.show()}\n{self.log}") from None
        return self

    def end(self, timeout_s: float = 280) -> tuple[str, int]:
        """Wait for the end; returns Slurm's state and how often the job was queued again."""
        try:
            wait_for("end", lambda: self.show()["JobState"] in ENDED, timeout_s)
        except TimeoutError as e:
            raise AssertionError(f"{e}\n{self.show()}\n{self.log}") from None
        shown = self.show()
        return shown["JobState"], int(shown["Restarts"])

    @property
    def status(self) -> str:
        found = read_status(self.run)
        assert found, self.log
        return found.state

    @property
    def weights(self) -> str:
        """Digest of the final weights."""
        return (self.run / "weights").read_text()
