"""Real ranks for tests: processes with torchrun's environment, forked from a server that has imported torch once."""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import random
import shutil
import socket
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ddptrain.checkpoint import files
from ddptrain.checkpoint.host_copy import copy_to_host
from ddptrain.checkpoint.load import newest_checkpoint
from ddptrain.system.ending import end_with

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["ddptrain.cli", "ddptrain.engine.trainer", "ddptrain.tasks.build"])


def free_port() -> int:
    """One that nobody listens at, below those that systems give to connections: it is still free a while later."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("", port))
            return port


def _rank(
    rank: int, size: int, port: int, log: str, environ: dict[str, str], figures: bool, target: Callable[..., Any], args: Any
) -> None:
    # the server has the environment of the first test that needed it
    os.environ.clear()
    os.environ.update(environ)
    if size > 1:
        os.environ.update(
            RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        )  # fmt: skip
    torch.set_num_threads(1)
    if not figures:
        sys.modules["matplotlib"] = None  # type: ignore[assignment]
    _write_to(log)
    end_with(lambda: target(*args) or 0)


def _write_to(log: str) -> None:
    """From here on, whatever this process prints goes to a file."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)


class Forked:
    """As `subprocess.Popen([sys.executable, "-m", MODULE, …], stdout=file, …, env=…)`, without the seconds of a start.

    Attributes:
        fault: Python code that breaks something in each of these processes before it runs the `main` of its module.
    """

    fault = ""

    def __init__(self, command: Sequence[str], stdout: Any, stderr: int, env: dict[str, str]) -> None:
        _, _, module, *arguments = command
        self._process = _SERVER.Process(target=_forked, args=(module, arguments, stdout.name, env, self.fault))
        self._process.start()

    def wait(self) -> int:
        self._process.join()
        return int(self._process.exitcode or 0)


def _forked(module: str, arguments: Sequence[str], log: str, environ: dict[str, str], fault: str) -> None:
    os.environ.clear()
    os.environ.update(environ)
    torch.set_num_threads(1)
    _write_to(log)
    exec(fault, {})
    end_with(lambda: importlib.import_module(module).main(arguments))


class Ranks:
    """Started ranks: `wait()` for their exit statuses, `text` for what they said."""

    def __init__(self, world_size: int, target: Callable[..., Any], *args: Any) -> None:
        port, self._log = free_port(), Path(tempfile.mkstemp(prefix="ranks-", suffix=".log")[1])
        figures = sys.modules.get("matplotlib", sys) is not None  # see the fixture of this name
        common = (world_size, port, str(self._log), dict(os.environ), figures, target, args)
        self.processes = [_SERVER.Process(target=_rank, args=(rank, *common)) for rank in range(world_size)]
        weakref.finalize(self, self._log.unlink, missing_ok=True)
        for p in self.processes:
            p.start()

    @property
    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self, timeout: float = 300) -> list[int]:
        for p in self.processes:
            p.join(timeout)
        codes = [p.exitcode for p in self.processes]
        for p in self.processes:
            if p.is_alive():
                p.kill()
        assert None not in codes, f"ranks hang: {codes}\n{self.text}"
        return [int(c) for c in codes if c is not None]


def command_line(arguments: Sequence[str]) -> int:
    """`ddptrain …` inside a rank."""
    from ddptrain.cli import main

    return main(list(arguments))


def train(world_size: int, config: Path, *overrides: str, expect: int = 0, timeout: float = 300) -> str:
    """`ddptrain train` on a number of ranks; returns what they printed."""
    ranks = Ranks(world_size, command_line, ["train", str(config), *overrides])
    codes = ranks.wait(timeout)
    assert codes == [expect] * world_size, f"{codes}\n{ranks.text}"
    return ranks.text


def _in_turn(cases: Sequence[tuple[int, str, Sequence[str]]]) -> int:
    for port, log, arguments in cases:
        os.environ["MASTER_PORT"] = str(port)
        _write_to(log)
        if code := command_line(arguments):
            return code
    return 0


def in_turn(world_size: int, cases: Sequence[Sequence[str]], timeout: float = 600) -> list[str]:
    """Several commands, one after the other, by one group of ranks, whose start costs more than a small run.

    Returns:
        What each of them said.
    """
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        logs = [Path(folder) / str(number) for number in range(len(cases))]
        ranks = Ranks(world_size, _in_turn, [(free_port(), str(log), case) for log, case in zip(logs, cases, strict=True)])
        codes = ranks.wait(timeout)
        texts = [log.read_text(errors="replace") for log in logs if log.exists()]
    assert codes == [0] * world_size, f"{codes} {cases[len(texts) - 1]}\n{texts[-1:]}"
    return texts


def final_state(run: Path) -> dict[str, Any]:
    """The newest checkpoint of a run."""
    warnings: list[str] = []
    newest = newest_checkpoint(run / "checkpoints", warnings.append)
    assert newest is not None, f"{run}: no checkpoint {warnings}"
    return newest.state


def summary(run: Path) -> dict[str, Any]:
    """Its summary.json."""
    return dict(json.loads((run / "summary.json").read_text()))


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest difference of two model states: absolute for values below 1, relative above."""
    assert a.keys() == b.keys()
    pairs = [(a[k].double(), b[k].double()) for k in a if a[k].numel()]
    return max(float(((x - y).abs() / x.abs().clamp(min=1.0)).max()) for x, y in pairs)


def relative_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest difference of two model states, relative to the largest value of each tensor, or to 1e-3."""
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max() / a[k].abs().max().clamp(min=1e-3)) for k in a if a[k].numel())


def equal(a: Any, b: Any, where: str = "") -> None:
    """Every tensor and number of two checkpoints is the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in ("config", "name"):
                equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            equal(x, y, f"{where}.{i}")
    else:
        assert a == b, where


def cut_back(run: Path, copy: Path, step: int) -> None:
    """What a run would have left behind, had it been killed right after the checkpoint of `step`."""
    shutil.copytree(run, copy, symlinks=True)
    folder = copy / "checkpoints"
    for path in folder.iterdir():
        if path.is_symlink() or int(path.name[5:13]) > step:
            path.unlink()
    assert (folder / f"step_{step:08d}.pt").is_file()


def save_checkpoint(folder: Path, state: dict[str, Any], step: int, best: bool = False) -> Path:
    """Save a state as a run does, in a folder that is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return files.save(folder, copy_to_host(state), step, best)
