"""Ranks on this machine, or on several that the user starts by hand: `ddptrain train --nproc`, `ddptrain launch`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddptrain.config import load_config, no_line
from ddptrain.config.batch import split_batch
from ddptrain.config.moved import check_moved
from ddptrain.errors import UserError
from ddptrain.system.status import FAILED, exit_status, read_status


def run(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    nproc: int = 1,
    *,
    nnodes: int = 1,
    rdzv: str | None = None,
    rdzv_id: str = "ddptrain",
    max_restarts: int = 0,
    grace_s: float = 300.0,
    check: Sequence[str] = (),
) -> int:
    """Train with `nproc` ranks on this machine; with `nnodes` > 1, start the same command on each machine.

    Args:
        config_path, overrides: as for `ddptrain train`.
        rdzv: `host:port` of one of the machines, the same on all; required when `nnodes` > 1.
        rdzv_id: name of the rendezvous, for several runs on the same machines.
        max_restarts: restarts of all ranks, from the newest checkpoint, after one was lost.
        grace_s: seconds for the save after a stop signal.
        check: option of a check that leaves no run folder.

    Returns:
        0 finished, 75 stopped by a signal with a saved checkpoint, 1 failed, 2 a user's mistake.

    Raises:
        UserError: the config, the batch split or the arguments are wrong.
    """
    config = load_config(config_path, overrides, tell=no_line)
    check_moved(Path(config_path), config)
    split_batch(config.train.global_batch, config.train.micro_batch, max(nnodes * nproc, 1))
    code = start(
        ["train", str(config_path), *overrides, *check],
        nproc,
        nnodes=nnodes,
        rdzv=rdzv,
        rdzv_id=rdzv_id,
        max_restarts=max_restarts,
        grace_s=grace_s,
    )
    if code or check or (nnodes > 1 and not config.folder.exists()):  # a machine that does not share the run folder
        return code
    return outcome(config.folder)


def start(arguments: Sequence[str], nproc: int, *, module: str = "ddptrain.cli", **options: Any) -> int:
    """Run any subcommand of ddptrain (`["eval", …]`) with `nproc` ranks; options are those of `run`.

    Returns:
        0 when all ranks ended well, 2 after a user's mistake, else 1.
    """
    from launch.agent import Agent
    from launch.plan import Plan

    nnodes, rdzv = options.get("nnodes", 1), options.get("rdzv")
    if nproc < 1 or nnodes < 1:
        raise UserError(f"--nproc {nproc} --nnodes {nnodes}: both must be integers ≥ 1")
    if nnodes > 1 and not (rdzv and ":" in rdzv):
        raise UserError(f"--nnodes {nnodes}: requires --rdzv HOST:PORT, the same on all machines")
    plan = Plan(
        module=module,
        arguments=tuple(arguments),
        nproc=nproc,
        nnodes=nnodes,
        endpoint=rdzv if nnodes > 1 else None,
        run_id=options.get("rdzv_id", "ddptrain"),
        max_restarts=options.get("max_restarts", 0),
        grace_s=options.get("grace_s", 300.0),
    )
    return Agent(plan).run()


def outcome(folder: Path) -> int:
    """The exit status of a run all of whose ranks ended well, from its status."""
    status = read_status(folder)
    return exit_status(status.state, "single") if status else FAILED
