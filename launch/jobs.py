"""Jobs after submission: list them, read their logs, cancel, queue again. Works without Slurm's accounting."""

from __future__ import annotations

import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path

from ddptrain.errors import UserError
from ddptrain.system.printable import printable
from ddptrain.system.status import read_status
from launch import batch, cluster, job, logs
from launch.job import Job
from launch.plan import STOP


def table(limit: int = 20) -> str:
    """The newest jobs, one a line: what the run's own status says, then what Slurm says."""
    rows: list[tuple[str, ...]] = [("JOB", "NAME", "RUN", "STEP", "SLURM", "STARTS", "MACHINES", "AGE", "REASON")]
    rows += [tuple(map(printable, _row(mine))) for mine in job.all_jobs()[-limit:]]
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in rows)


def _row(mine: Job) -> tuple[str, ...]:
    number = mine.id or "?"
    slurm = cluster.job_state(number)
    status = read_status(Path(mine.run))
    # a status from before this job was submitted is another job's
    if status and datetime.fromisoformat(status.time).timestamp() < (mine.path / "job.json").stat().st_mtime - 1:
        status = None
    starts = len(list(mine.path.glob("plan.r*.json")))
    ends = [end for _, end in sorted(batch.ends(mine.path).items(), key=lambda x: int(x[0]))]
    state, reason = (status.state, status.reason) if status else ("-", "")
    running = slurm is not None and slurm.state == "RUNNING"
    if ends and not running and state in ("-", "running"):  # it had no time to say so itself
        state, reason = ends[-1]["kind"], " ".join(ends[-1]["bad"]) or ends[-1].get("signal", "")
    elif state == "-" and slurm is not None and slurm.state == "FAILED":
        reason = _last_error(mine)
    elif ends and state == "stopped":
        reason = ends[-1].get("signal") or reason  # what the agent was told; the ranks only know what it told them
    return (
        number,
        mine.name,
        state,
        (_newest_step(mine) if running else "") or (f"{status.step}/{status.steps}" if status else "-"),
        slurm.state if slurm else "unknown",
        str(starts),
        slurm.nodes if slurm else "",
        _age(time.time() - (mine.path / "job.json").stat().st_mtime),
        reason or (slurm.reason if slurm else ""),
    )


def _newest_step(mine: Job) -> str:
    """The step that a running job's log told last; its status knows the last checkpoint's."""
    try:
        with open(mine.path / "log.txt", "rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - 4096))
            found = re.findall(rb"\bstep (\d+/\d+)", f.read())
    except FileNotFoundError:
        return ""
    return found[-1].decode() if found else ""


def _last_error(mine: Job) -> str:
    """The last mistake that the job's log tells; empty where there is none."""
    found = [line for line in _last(mine.path / "log.txt", 200) if "ddptrain: error: " in line]
    return found[-1].partition("ddptrain: error: ")[2] if found else ""


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def show_logs(number: str, *, rank: int | None = None, follow: bool = False, lines: int = 40) -> int:
    """Print a job's log: first how the failing rank ended, then the last lines of all ranks or of one.

    Args:
        rank: only this rank's logs, those of all starts in their order.
        follow: go on printing until the job has ended, or Ctrl-C.
    """
    mine = job.find(number)
    folder = mine.path / "logs"
    if rank is not None:
        files = [x for x in logs.rank_logs(folder) if x.rank == rank]
        if not files and not follow:
            raise UserError(f"job {number}: no log of rank {rank} in {folder}")
        for x in files:
            print(f"==> start {x.restart}.{x.attempt}, {x.node}, rank {x.rank}")
            print(*_last(x.path, lines) or ["(nothing)"], sep="\n")
    else:
        _show_failure(mine)
        print(f"==> {mine.path / 'log.txt'}")
        print(*_last(mine.path / "log.txt", lines) or ["(nothing yet)"], sep="\n")
    if follow:
        tail = (
            logs.Tail(folder, f"*.rank{rank}.log", skip=True)
            if rank is not None
            else logs.Tail(mine.path, "log.txt", skip=True)
        )
        _follow(mine, tail)
    return 0


def _show_failure(mine: Job) -> None:
    """The last lines of the rank that failed first, but for a job that got over it and has finished."""
    status, failure = read_status(Path(mine.run)), logs.root_failure(mine.path / "logs")
    if failure and not (status and status.state == "finished"):
        who, how = failure
        print(f"==> rank {who.rank} on {who.node} failed first (start {who.restart}.{who.attempt}): {how}")
        for line in _last(who.path.with_suffix(".log"), 20):
            print(f"    {line}")


def _last(path: Path, count: int) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def _follow(mine: Job, tail: logs.Tail) -> None:
    asked = time.monotonic()
    try:
        while True:
            tail.show(sys.stdout)
            if time.monotonic() - asked > 5:
                asked = time.monotonic()
                state = cluster.job_state(mine.id or "")
                if state is None or state.state in cluster.ENDED:
                    tail.show(sys.stdout, end=True)
                    return
            time.sleep(0.3)
    except KeyboardInterrupt:
        return


def cancel(number: str, *, now: bool = False) -> str:
    """End a job: a running one saves first; `now` leaves it only the seconds that Slurm's own cancel leaves."""
    mine = job.find(number)
    slurm_id = mine.id or number
    state = cluster.job_state(slurm_id)
    if state and state.state in cluster.ENDED:
        return f"job {slurm_id} has ended already ({state.state})"
    if now or state is None or state.state != "RUNNING":
        cluster.call("scancel", slurm_id)
        return f"job {slurm_id} is cancelled"
    (mine.path / batch.CANCEL).touch()
    _stop(mine, slurm_id)
    return f"job {slurm_id} saves, then it is cancelled"


def _stop(mine: Job, slurm_id: str) -> None:
    (mine.path / STOP).touch()  # Slurm delivers a signal only to steps that run already
    cluster.call("scancel", "--signal=USR1", slurm_id)


def requeue(number: str) -> str:
    """Queue a job again: a running one saves first; one that has ended goes on from its newest checkpoint."""
    mine = job.find(number)
    slurm_id = mine.id or number
    state = cluster.job_state(slurm_id)
    if state and state.state == "RUNNING":
        _stop(mine, slurm_id)
        return f"job {slurm_id} saves, then it is queued again"
    if state and state.state == "PENDING":
        return f"job {slurm_id} is in the queue already"
    (mine.path / batch.CANCEL).unlink(missing_ok=True)
    try:
        cluster.call("scontrol", "requeue", slurm_id)
    except UserError as e:
        raise UserError(
            f"job {slurm_id}: {e}; submit it again with resume=auto, it goes on from its newest checkpoint"
        ) from None
    return f"job {slurm_id} is queued again"
