"""Jobs after submission: list them, read their logs, cancel and requeue them. Works without Slurm's accounting."""

from __future__ import annotations

import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path

from ddptrain.errors import UserError
from ddptrain.system.printable import age, printable
from ddptrain.system.status import read_status
from launch import batch, cluster, job, logs
from launch.job import Job
from launch.plan import STOP


def table(limit: int = 20) -> str:
    """The newest jobs, one a line: the run's own status, then Slurm's."""
    rows: list[tuple[str, ...]] = [("JOB", "NAME", "RUN", "STEP", "SLURM", "STARTS", "MACHINES", "AGE", "REASON")]
    rows += [tuple(map(printable, _row(mine))) for mine in job.all_jobs()[-limit:]]
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in rows)


def _row(mine: Job) -> tuple[str, ...]:
    number = mine.id or "?"
    slurm = cluster.job_state(number)
    status = read_status(Path(mine.run))
    # a status from before this submission is another job's
    if status and datetime.fromisoformat(status.time).timestamp() < (mine.path / "job.json").stat().st_mtime - 1:
        status = None
    starts = len(list(mine.path.glob("plan.r*.json")))
    ends = [end for _, end in sorted(batch.ends(mine.path).items(), key=lambda x: int(x[0]))]
    state, reason = (status.state, status.reason) if status else ("-", "")
    running = slurm is not None and slurm.state == "RUNNING"
    if ends and not running and state in ("-", "running"):  # it had no time to report it itself
        state, reason = ends[-1]["kind"], " ".join(ends[-1]["bad"]) or ends[-1].get("signal", "")
    elif state == "-" and slurm is not None and slurm.state == "FAILED":
        reason = _last_error(mine)
    elif ends and state == "stopped":
        reason = ends[-1].get("signal") or reason  # the ranks only know what the agent forwards
    return (
        number,
        mine.name,
        state,
        (_newest_step(mine) if running else "") or (f"{status.step}/{status.steps}" if status else "-"),
        slurm.state if slurm else "unknown",
        str(starts),
        slurm.nodes if slurm else "",
        age(time.time() - (mine.path / "job.json").stat().st_mtime),
        reason or (slurm.reason if slurm else ""),
    )


def _newest_step(mine: Job) -> str:
    """The last step in the log of a running job; its status only knows that of the last checkpoint."""
    try:
        with open(mine.path / "log.txt", "rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - 4096))
            steps = re.findall(rb"\bstep (\d+/\d+)", f.read())
    except FileNotFoundError:
        return ""
    return steps[-1].decode() if steps else ""


def _last_error(mine: Job) -> str:
    """The last mistake reported in the job's log; empty where there is none."""
    errors = [line for line in _last(mine.path / "log.txt", 200) if "ddptrain: error: " in line]
    return errors[-1].partition("ddptrain: error: ")[2] if errors else ""


def show_logs(number: str, *, rank: int | None = None, follow: bool = False, lines: int = 40) -> int:
    """Print a job's log: first how the failing rank ended, then the last lines of all ranks, or of one.

    Args:
        rank: only the logs of this rank, from all starts in order.
        follow: keep printing until the job has ended, or until Ctrl-C.
    """
    mine = job.find(number)
    folder = mine.path / "logs"
    if rank is not None:
        files = [x for x in logs.rank_logs(folder) if x.rank == rank]
        if not files and not follow:
            raise UserError(f"job {number}: there is no log of rank {rank} in {folder}")
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
    """The last lines of the rank that failed first, unless the job recovered and has finished."""
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
    polled = time.monotonic()
    try:
        while True:
            tail.show(sys.stdout)
            if time.monotonic() - polled > 5:
                polled = time.monotonic()
                state = cluster.job_state(mine.id or "")
                if state is None or state.state in cluster.ENDED:
                    tail.show(sys.stdout, end=True)
                    return
            time.sleep(0.3)
    except KeyboardInterrupt:
        return


def cancel(number: str, *, now: bool = False) -> str:
    """End a job; a running one saves first, unless `now` leaves it only the seconds that Slurm itself grants."""
    mine = job.find(number)
    slurm_id = mine.id or number
    state = cluster.job_state(slurm_id)
    if state and state.state in cluster.ENDED:
        return f"job {slurm_id} has already ended ({state.state})"
    if now or state is None or state.state != "RUNNING":
        cluster.call("scancel", slurm_id)
        return f"job {slurm_id} is cancelled"
    (mine.path / batch.CANCEL).touch()
    _stop(mine, slurm_id)
    return f"job {slurm_id} saves, then is cancelled"


def _stop(mine: Job, slurm_id: str) -> None:
    (mine.path / STOP).touch()  # Slurm delivers a signal only to running steps
    cluster.call("scancel", "--signal=USR1", slurm_id)


def requeue(number: str) -> str:
    """Requeue a job; a running one saves first, one that has ended resumes from its newest checkpoint."""
    mine = job.find(number)
    slurm_id = mine.id or number
    state = cluster.job_state(slurm_id)
    (mine.path / batch.CANCEL).unlink(missing_ok=True)
    if state and state.state == "RUNNING":
        _stop(mine, slurm_id)
        return f"job {slurm_id} saves, then is requeued"
    if state and state.state == "PENDING":
        return f"job {slurm_id} is already queued"
    try:
        cluster.call("scontrol", "requeue", slurm_id)
    except UserError as e:
        raise UserError(
            f"job {slurm_id}: {e}; submit it again with resume=auto to continue from its newest checkpoint"
        ) from None
    return f"job {slurm_id} is requeued"
