"""What the batch script does before and after srun, on the job's first machine, outside any container."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddptrain.config.slurm import no_room
from ddptrain.errors import UserError
from ddptrain.system.files import write_text
from ddptrain.system.printable import counted, printable
from ddptrain.system.status import FAILED, FINISHED, STOPPED, USER_ERROR, read_status
from launch import cluster, job, rendezvous
from launch.job import Job
from launch.plan import STOP, Plan

# not DETAIL: with it DDP of torch 2.14 ends in a segmentation fault
DEBUG = {"NCCL_DEBUG": "INFO", "TORCH_DISTRIBUTED_DEBUG": "INFO", "TORCH_CPP_LOG_LEVEL": "INFO"}
CANCEL = "cancel"
"""File in the job's folder: the user wants the job to end once it has saved."""


def restart_count(environ: Mapping[str, str] = os.environ) -> int:
    """How often Slurm has requeued this job."""
    return int(environ.get("SLURM_RESTART_COUNT") or 0)


def say(text: str) -> None:
    """One line in the job's log."""
    print(f"{time.strftime('%H:%M:%S')} job: {printable(text)}", flush=True)


def plan_path(folder: Path, restart: int) -> Path:
    """The plan that the agents of a start read."""
    return folder / f"plan.r{restart}.json"


def prepare(folder: Path) -> int:
    """Write the plan of this start: where the machines meet and what their agents run."""
    mine, restart, number = job.read(folder), restart_count(), os.environ["SLURM_JOB_ID"]
    slurm = mine.options
    state = cluster.job_state(number) if mine.arguments[:1] == ("train",) else None
    if state and (why := no_room(state.limit_s, slurm.signal_s)):  # a script queued by hand has its own limit
        raise UserError(f"job {number}: {why}")
    if restart:
        signalled = any("signal" in a for a in reports(folder, restart - 1))
        note_end(folder, restart - 1, "unsaved" if signalled else "lost", step_of(mine))
    nodes = cluster.hostnames(os.environ["SLURM_JOB_NODELIST"])
    addresses = {n: n if rendezvous.resolves(n) else cluster.node_address(n) for n in nodes}
    plan = Plan(
        module=mine.module,
        arguments=mine.arguments,
        nproc=slurm.ranks,
        nnodes=len(nodes),
        cwd=mine.cwd,
        env=(DEBUG if slurm.debug else {}) | slurm.env,
        logs=str(folder / "logs"),
        restart=restart,
        max_restarts=slurm.max_restarts,
        grace_s=slurm.grace_s,
        run_id=f"{number}.{restart}",
        token=secrets.token_hex(16),
        address=slurm.address or addresses[nodes[0]],
        host=nodes[0],
        ports=rendezvous.free_first(rendezvous.candidate_ports(f"{number}.{restart}")),
        addresses=addresses,
        check=slurm.check,
        check_command=slurm.check_command,
        gpus=slurm.gpus_per_node,
    )
    write_text(plan_path(folder, restart), plan.dumps())
    write_text(folder / f"status_before.r{restart}", _status_text(mine))
    where = f"{len(nodes)} x {slurm.ranks} ranks, at {plan.address}:{plan.ports[0]}"
    say(f"start {restart} of job {number} on {' '.join(nodes)}, {where}")
    return 0


def _status_text(mine: Job) -> str:
    try:
        return (Path(mine.run) / "status.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def step_of(mine: Job) -> int:
    """Steps of the run according to its newest status."""
    status = read_status(Path(mine.run))
    return status.step if status else 0


def ends(folder: Path) -> dict[str, dict[str, Any]]:
    """How each start ended, by its number: kind, step, signal, bad nodes, time.

    Kinds: "stopped" (saved), "unsaved" (asked to stop, but ended before it could save), "crashed", "bad node", "lost" (it
    had no time to report anything, or lost a machine).
    """
    try:
        return dict(json.loads((folder / "ends.json").read_text()))
    except FileNotFoundError:
        return {}


def note_end(folder: Path, restart: int, kind: str, step: int, bad: list[str] | None = None) -> None:
    """Record how a start ended; the first record of a start counts."""
    known = ends(folder)
    signals = [a["signal"] for a in reports(folder, restart) if "signal" in a]
    end = {"kind": kind, "step": step, "signal": "".join(signals[:1]), "bad": bad or [], "time": time.time()}
    known.setdefault(str(restart), end)
    write_text(folder / "ends.json", json.dumps(known, indent=1) + "\n")


def reports(folder: Path, restart: int) -> list[dict[str, Any]]:
    """The reports of a start's agents: node, check (result of the pre-flight), code, signal (the first that came)."""
    return [json.loads(p.read_text()) for p in sorted(folder.glob(f"agent.r{restart}.*.json"))]


def over_budget(mine: Job) -> str | None:
    """Why the job must not be queued again; None while it may.

    Stops have a budget of their own. Crashes are counted from the last one with a new checkpoint before it: a run that makes
    progress is never ended by them, one that does not soon is. Bad machines have a budget of the same size.
    """
    slurm, known = mine.options, [e for _, e in sorted(ends(mine.path).items(), key=lambda x: int(x[0]))]
    stops = sum(e["kind"] == "stopped" for e in known)
    if stops > slurm.max_stops:
        return f"it was stopped {counted(stops, 'time')} and slurm.max_stops is {slurm.max_stops}"
    crashes, before = 0, -1
    for end in known:
        if end["kind"] in ("crashed", "lost", "unsaved"):
            crashes, before = 1 if end["step"] > before else crashes + 1, end["step"]
    if crashes > slurm.max_crashes:
        return f"it crashed {counted(crashes, 'time')} without a new checkpoint and slurm.max_crashes is {slurm.max_crashes}"
    bad = sum(e["kind"] == "bad node" for e in known)
    if bad > slurm.max_crashes:
        return f"it met bad machines {counted(bad, 'time')} and slurm.max_crashes is {slurm.max_crashes}"
    return None


def judge(mine: Job, restart: int, code: int) -> tuple[str, int, list[str]]:
    """How a start ended: kind, exit status of the job if it ends now, bad machines.

    Args:
        code: srun's exit status.
    """
    folder = mine.path
    agents = reports(folder, restart)
    if any(a.get("code") == USER_ERROR for a in agents):
        return "mistake", USER_ERROR, []
    asked = [a["signal"] for a in agents if "signal" in a]
    if mine.arguments[:1] != ("train",):
        return ("finished", FINISHED, []) if code == 0 else ("unsaved" if asked else "crashed", FAILED, [])
    if code == STOPPED and not agents:  # the batch script received a stop before it started any agent
        return "stopped", STOPPED, []
    before = (folder / f"status_before.r{restart}").read_text(encoding="utf-8")
    now = read_status(Path(mine.run)) if _status_text(mine) != before else None
    if now and now.state == "finished" and code == 0:
        return "finished", FINISHED, []
    if now and now.state == "stopped":
        return "stopped", STOPPED, []
    plan = Plan.loads(plan_path(folder, restart).read_text(encoding="utf-8"))
    # an agent that was killed after its report (Slurm's signal came at its end) does not undo it
    if now and now.state == "finished" and {a["node"] for a in agents if a.get("code") == 0} == set(plan.addresses):
        return "finished", FINISHED, []
    bad = sorted(a["node"] for a in agents if a.get("check", "passed") != "passed")
    silent = sorted(set(plan.addresses) - {a["node"] for a in agents})
    if agents and not bad and plan.check and silent and not asked:
        bad = silent  # the others passed and waited for these
    if bad:
        return "bad node", FAILED, bad
    return "unsaved" if asked else "lost" if any("lost" in a for a in agents) else "crashed", FAILED, []


def finish(folder: Path, code: int) -> int:
    """After srun: end, or requeue the job where nobody else has decided about it.

    Returns:
        The job's exit status: 0 only when the training is finished, so that `afterok` holds.
    """
    mine, restart, number = job.read(folder), restart_count(), os.environ["SLURM_JOB_ID"]
    (folder / STOP).unlink(missing_ok=True)
    kind, status, bad = judge(mine, restart, code)
    if mine.table and kind == "finished":
        from launch import sweep

        sweep.write_table(Path(mine.table))
    if kind in ("finished", "mistake"):
        say(f"{'finished' if kind == 'finished' else 'a mistake in the command or config, see above'} (srun: {code})")
        return status
    note_end(folder, restart, kind, step_of(mine), bad)
    slurm_state = cluster.job_state(number)
    state = slurm_state.state if slurm_state else "unknown"
    words = "asked to stop, ended before it could save," if kind == "unsaved" else " ".join([kind, *bad])
    say(f"{words} at step {step_of(mine)} (srun: {code}, Slurm: {state})")
    if (folder / CANCEL).exists():
        say("cancelled by the user")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        cluster.call("scancel", number)  # from here on the job's state is CANCELLED, however this script ends
        return status
    # scancel, the time limit, scontrol requeue and a lost machine all show COMPLETING: someone else has decided
    if state != "RUNNING" or mine.arguments[:1] != ("train",):
        return status
    exclude = sorted({*bad, *cluster.hostnames(slurm_state.excluded)}) if bad and slurm_state else []
    why = over_budget(mine) or (too_few_left(mine, exclude, slurm_state.partition) if exclude and slurm_state else None)
    if why:
        say(f"not requeued: {why}")
        return status
    say("requeued" + (f", without {' '.join(exclude)}" if exclude else ""))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        cluster.requeue(number, exclude)  # ending now spares the job Slurm's KillWait
    except UserError as e:
        say(f"not requeued: {e}")
    return status


def too_few_left(mine: Job, exclude: list[str], partition: str) -> str | None:
    """Why a job without these machines could never start, and so would stay in the queue forever; None where it can."""
    try:
        left = len(cluster.machines(partition) - set(exclude))
    except UserError:
        return None
    if left >= mine.options.nodes:
        return None
    return f"without {' '.join(exclude)}, partition {partition} has {left} of the {mine.options.nodes} machines that are needed"


def main(argv: list[str]) -> int:
    """`prepare FOLDER` | `finish FOLDER CODE` | `create …` (see `launch.submission.create_here`)."""
    try:
        if argv[0] == "prepare":
            return prepare(Path(argv[1]))
        if argv[0] == "finish":
            for number in (signal.SIGUSR1, signal.SIGUSR2):  # the run has ended: a stop can no longer change how
                signal.signal(number, signal.SIG_IGN)
            return finish(Path(argv[1]), int(argv[2]))
        from launch import submission

        print(submission.create_here(argv[1:]).folder)
        return 0
    except UserError as e:
        print(f"ddptrain: error: {printable(str(e))}", file=sys.stderr, flush=True)
        return USER_ERROR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
