"""The launcher's subcommands: launch, submit, jobs, logs, cancel, requeue, sweep. Hooked into `ddptrain/cli.py`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddptrain.errors import UserError
from ddptrain.system.printable import printable, say

SLURM_OPTIONS = {
    "nodes": (int, "machines"),
    "gpus-per-node": (int, "GPUs, and so ranks, per machine; 0 for a cluster without GPUs"),
    "ranks-per-node": (int, "ranks per machine (default: one per GPU)"),
    "cpus-per-task": (int, "CPU cores per machine"),
    "mem": (str, "memory per machine"),
    "time": (str, "time limit, such as 24:00:00"),
    "partition": (str, "partition"),
    "account": (str, "account"),
    "qos": (str, "quality of service"),
    "constraint": (str, "features the machines must have"),
    "exclude": (str, "machines not to use"),
    "container": (str, "command before Python on every machine, such as 'apptainer exec --nv image.sif'"),
    "python": (str, "Python on the machines"),
    "address": (str, "address of the first machine"),
    "max-restarts": (int, "restarts in place after a lost rank"),
    "max-stops": (int, "times the job is queued again after stops"),
    "max-crashes": (int, "times the job is queued again after crashes without progress"),
}


def add_commands(commands: Any) -> None:
    """Add the parsers to `argparse`'s subparsers; each sets `run` to its function."""
    p = commands.add_parser("launch", help="train with several ranks on this machine, or on machines started by hand")
    _add_config(p)
    p.add_argument("--nproc", type=int, required=True, metavar="N", help="ranks on this machine")
    p.add_argument("--nnodes", type=int, default=1, metavar="M", help="machines; start the same command on each")
    p.add_argument("--rdzv", metavar="HOST:PORT", help="where the machines meet: a port of one of them")
    p.add_argument("--rdzv-id", default="ddptrain", help="name of the meeting")
    p.add_argument("--max-restarts", type=int, default=0, help="restarts of all ranks after a lost one (default 0)")
    p.set_defaults(run=launch)

    p = commands.add_parser("submit", help="queue a run on Slurm")
    _add_config(p)
    _add_slurm(p)
    p.add_argument("--through", choices=("submitit", "sbatch"), default="submitit", help="who queues (default submitit)")
    p.set_defaults(run=submit)

    p = commands.add_parser("sweep", help="one run for each combination of values and seeds")
    p.add_argument("config", help="YAML config, or with --table a sweep's folder")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    p.add_argument("--grid", nargs="+", default=[], metavar="key=a,b", help="values to combine")
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds for each combination (default 1)")
    p.add_argument("--parallel", type=int, metavar="P", help="runs at once on Slurm (default: all)")
    p.add_argument("--local", action="store_true", help="run them here, one after the other")
    p.add_argument("--nproc", type=int, default=1, metavar="N", help="ranks of each local run (default 1)")
    p.add_argument("--table", action="store_true", help="only print the result table of a sweep")
    _add_slurm(p)
    p.set_defaults(run=sweep)

    p = commands.add_parser("jobs", help="list the jobs: what their runs say, what Slurm says")
    p.add_argument("-n", type=int, default=20, metavar="N", help="newest N (default 20)")
    p.set_defaults(run=jobs)

    p = commands.add_parser("logs", help="a job's log, the failing rank first")
    p.add_argument("job", help="Slurm's number, or the job's folder")
    p.add_argument("--rank", type=int, help="only this rank's logs")
    p.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")
    p.add_argument("-n", type=int, default=40, metavar="N", help="last N lines (default 40)")
    p.set_defaults(run=logs)

    p = commands.add_parser("cancel", help="save, then end a job")
    p.add_argument("job", help="Slurm's number, or the job's folder")
    p.add_argument("--now", action="store_true", help="leave it only the seconds Slurm gives")
    p.set_defaults(run=cancel)

    p = commands.add_parser("requeue", help="save a running job and queue it again; let an ended one go on")
    p.add_argument("job", help="Slurm's number, or the job's folder")
    p.set_defaults(run=requeue)


def _add_config(p: argparse.ArgumentParser) -> None:
    p.add_argument("config", type=Path, help="YAML config of the run")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config, such as train.epochs=10")


def _add_slurm(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("Slurm (defaults: the config's slurm section, then ~/.config/ddptrain/slurm.yaml)")
    for name, (kind, text) in SLURM_OPTIONS.items():
        group.add_argument(f"--{name}", type=kind, help=text)
    group.add_argument("--slurm", action="append", default=[], metavar="key=value", help="any sbatch parameter")
    group.add_argument("--srun", action="append", default=[], metavar="key=value", help="any srun parameter")
    group.add_argument("--setup", action="append", metavar="LINE", help="shell line to run first, such as 'module load cuda'")
    group.add_argument("--env", action="append", default=[], metavar="NAME=value", help="variable of every rank")
    group.add_argument("--debug", action="store_true", default=None, help="make NCCL and torch tell what they do")
    group.add_argument("--no-check", dest="check", action="store_false", default=None, help="no pre-flight of the machines")
    group.add_argument("--after", metavar="JOB", help="start when this job has finished its training")
    group.add_argument("--no-data-check", action="store_true", help="data folders need not be visible here")
    group.add_argument("--dry-run", action="store_true", help="print the script and let Slurm judge it; queue nothing")


def slurm_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keys of the `slurm` section that the command line gives."""
    found = {k: getattr(args, k) for k in (n.replace("-", "_") for n in SLURM_OPTIONS)}
    found |= {"setup": args.setup, "debug": args.debug, "check": args.check}
    extra = _pairs(args.slurm, "--slurm")
    if args.after:
        # without it a job whose condition can never come true stays in the queue for ever
        extra |= {"dependency": f"afterok:{args.after}", "kill-on-invalid-dep": "yes"}
    found |= {"extra": extra or None, "srun": _pairs(args.srun, "--srun") or None, "env": _pairs(args.env, "--env") or None}
    return {k: v for k, v in found.items() if v is not None}


def _pairs(items: Sequence[str], option: str) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {}
    for item in items:
        key, eq, value = item.partition("=")
        if not key:
            raise UserError(f"{option} {item!r}: write key=value")
        found[key] = value if eq else True
    return found


def launch(args: argparse.Namespace) -> int:
    """Train through torchrun's agent."""
    from launch.torchrun import run

    given = {"nnodes": args.nnodes, "rdzv": args.rdzv, "rdzv_id": args.rdzv_id, "max_restarts": args.max_restarts}
    return run(args.config, args.overrides, args.nproc, **given)


def submit(args: argparse.Namespace) -> int:
    """Queue a run; prints its number, its log and what to do with it."""
    from launch import cluster, job, sbatch
    from launch import slurm as submitit

    way = submitit if args.through == "submitit" else sbatch
    if not args.dry_run and not cluster.present():
        raise UserError("sbatch: not found; run this where Slurm's commands are, or use ddptrain train --nproc N here")
    options = slurm_options(args)
    waits = str((options.get("extra") or {}).get("dependency", ""))
    mine = job.create(args.config, args.overrides, options, check_data=not args.no_data_check, known=waits)
    try:
        if args.dry_run:
            return _dry_run(mine, way.render(mine))
        number = way.submit(mine)
    except UserError:
        job.discard(mine)
        raise
    job.register(mine, number)
    say(f"job {number}: {mine.name}, {mine.options.nodes} x {mine.options.ranks} ranks")
    say(f"  run     {mine.run}")
    say(f"  log     {mine.folder}/log.txt")
    for verb, why in (("jobs", "how it stands"), (f"logs -f {number}", "watch it"), (f"cancel {number}", "save and end it")):
        print(f"  ddptrain {verb:<18} {why}")
    return 0


def _dry_run(mine: Any, text: str) -> int:
    """Print the script, let `sbatch --test-only` judge it where Slurm is there, and leave nothing behind."""
    import subprocess

    from launch import cluster, job

    print(text.rstrip("\n"))
    code = 0
    if cluster.present():
        path = mine.path / "script.sh"
        path.write_text(text)
        done = subprocess.run(cluster.clean(["sbatch", "--test-only", str(path)]), capture_output=True, text=True)
        print("# " + " ".join((done.stderr or done.stdout).split()))
        code = 2 if done.returncode else 0
    else:
        print("# Slurm is not here to judge it")
    job.discard(mine)
    return code


def sweep(args: argparse.Namespace) -> int:
    """Lay out a sweep and run it here or queue it."""
    from launch import sweep as sweeps

    if args.table:
        print(printable(sweeps.table(Path(args.config)), lines=True))
        return 0
    if args.dry_run:
        raise UserError("--dry-run: for ddptrain submit; a sweep's configs can be tried one by one")
    folder = sweeps.lay_out(Path(args.config), args.overrides, sweeps.parse_grid(args.grid), args.seeds)
    if args.local:
        code = sweeps.run_here(folder, args.nproc)
        print(printable(sweeps.table(folder), lines=True))
        return code
    options = slurm_options(args)
    number = sweeps.submit(folder, options, args.parallel, check_data=not args.no_data_check)
    say(f"job {number}: {len(list(folder.glob('[0-9]*.yaml')))} runs, configs in {folder}")
    print(f"  ddptrain jobs\n  ddptrain logs {number}_0\n  ddptrain sweep --table {shlex.quote(str(folder))}")
    return 0


def jobs(args: argparse.Namespace) -> int:
    """Print the table of jobs."""
    from launch.jobs import table

    print(table(args.n))
    return 0


def logs(args: argparse.Namespace) -> int:
    """Print a job's log."""
    from launch.jobs import show_logs

    return show_logs(args.job, rank=args.rank, follow=args.follow, lines=args.n)


def cancel(args: argparse.Namespace) -> int:
    """Save and end a job."""
    from launch import jobs

    print(jobs.cancel(args.job, now=args.now))
    return 0


def requeue(args: argparse.Namespace) -> int:
    """Save a job and queue it again."""
    from launch import jobs

    print(jobs.requeue(args.job))
    return 0
