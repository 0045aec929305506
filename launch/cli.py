"""The subcommands launch, submit, sweep, jobs, logs, cancel and requeue; `ddptrain/cli.py` adds them to its own."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ddptrain.errors import UserError
from ddptrain.system.printable import printable, say
from launch.options import endpoint, natural, positive, refuse_idle

SLURM_OPTIONS = {
    "nodes": (int, "machines"),
    "gpus-per-node": (int, "GPUs, and so ranks, per machine; 0 on a cluster without GPUs"),
    "ranks-per-node": (int, "ranks per machine (default: one per GPU)"),
    "cpus-per-task": (int, "CPU cores per machine"),
    "mem": (str, "memory per machine"),
    "time": (str, "time limit, such as 24:00:00"),
    "partition": (str, "partition"),
    "account": (str, "account"),
    "qos": (str, "quality of service"),
    "constraint": (str, "features that the machines must have"),
    "exclude": (str, "machines not to use"),
    "container": (str, "command before Python on every machine, such as 'apptainer exec --nv image.sif'"),
    "python": (str, "Python on the machines"),
    "address": (str, "address of the first machine"),
    "max-restarts": (int, "restarts in place after a rank was lost"),
    "max-stops": (int, "how often the job is requeued after stops"),
    "max-crashes": (int, "how often the job is requeued after crashes without progress"),
}


SLURM_ONLY = (
    "parallel", *(name.replace("-", "_") for name in SLURM_OPTIONS), "slurm", "srun", "setup", "env", "debug", "check", "after",
    "no_data_check",
)  # fmt: skip
"""Options of a sweep, as argparse names them, that only Slurm reads."""


def add_commands(commands: Any, compare: Callable[[Path], Sequence[str]]) -> None:
    """Add the parsers to `argparse`'s subparsers; each sets `run` to its function.

    Args:
        compare: gives verdicts on the combinations of a sweep in a folder, a line each.
    """
    p = commands.add_parser("launch", help="train with several ranks on this machine, or on several machines started by hand")
    _add_config(p)
    p.add_argument("--nproc", type=positive, required=True, metavar="N", help="ranks on this machine")
    p.add_argument("--nnodes", type=positive, default=1, metavar="M", help="number of machines; start the same command on each")
    p.add_argument("--rdzv", type=endpoint, metavar="HOST:PORT", help="a port of one of the machines, where all ranks meet")
    p.add_argument("--rdzv-id", help="name of the rendezvous (default ddptrain)")
    p.add_argument("--max-restarts", type=natural, default=0, help="restarts of all ranks after one was lost (default 0)")
    add_level(p)
    p.set_defaults(run=launch)

    p = commands.add_parser("submit", help="queue a run on Slurm")
    _add_config(p)
    _add_slurm(p)
    p.add_argument("--through", choices=("submitit", "sbatch"), default="submitit", help="what submits it (default submitit)")
    p.set_defaults(run=submit)

    p = commands.add_parser("sweep", help="train one run for each combination of values and seeds")
    p.add_argument("config", help="YAML config; with --table or --local also the folder of a sweep")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    p.add_argument("--grid", nargs="+", action="extend", default=[], metavar="key=a,b", help="values of a key to be combined")
    p.add_argument("--seeds", type=positive, metavar="N", help="seeds for each combination (default 1)")
    p.add_argument("--parallel", type=positive, metavar="P", help="runs at a time on Slurm (default: all)")
    p.add_argument("--local", action="store_true", help="train, or continue, the runs here, one after the other")
    p.add_argument("--nproc", type=positive, metavar="N", help="ranks of each local run (default 1)")
    p.add_argument("--table", action="store_true", help="only print the table of results")
    _add_slurm(p)
    p.set_defaults(run=sweep, compare=compare)

    p = commands.add_parser("jobs", help="list jobs with the state of their runs and of Slurm")
    p.add_argument("-n", type=positive, default=20, metavar="N", help="number of jobs, newest last (default 20)")
    p.set_defaults(run=jobs)

    p = commands.add_parser("logs", help="print a job's log, the failing rank first")
    p.add_argument("job", help="number or folder of the job")
    p.add_argument("--rank", type=int, help="only the logs of this rank")
    p.add_argument("-f", "--follow", action="store_true", help="follow the log until the job has ended")
    p.add_argument("-n", type=positive, default=40, metavar="N", help="number of lines (default 40)")
    p.set_defaults(run=logs)

    p = commands.add_parser("cancel", help="end a job after a save")
    p.add_argument("job", help="number or folder of the job")
    p.add_argument("--now", action="store_true", help="do not wait for a save longer than Slurm does")
    p.set_defaults(run=cancel)

    p = commands.add_parser("requeue", help="requeue a job, after a save if it is running")
    p.add_argument("job", help="number or folder of the job")
    p.set_defaults(run=requeue)


def _add_config(p: argparse.ArgumentParser) -> None:
    p.add_argument("config", type=Path, help="YAML config of the run")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config, such as train.epochs=10")


def add_level(p: argparse.ArgumentParser) -> None:
    """`-q` and `-v`, as overrides, which reach every rank."""
    for names, value, text in (
        (("-q", "--quiet"), "quiet", "print only warnings and the last line"),
        (("-v", "--verbose"), "verbose", "also print a line for every step"),
    ):
        override = f"monitor.console={value}"
        p.add_argument(*names, dest="level", action="store_const", const=[override], default=[], help=text)


def _add_slurm(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("Slurm (defaults: the config's slurm section, then ~/.config/ddptrain/slurm.yaml)")
    for name, (kind, text) in SLURM_OPTIONS.items():
        group.add_argument(f"--{name}", type=kind, help=text)
    group.add_argument("--slurm", action="append", default=[], metavar="key=value", help="any other parameter of sbatch")
    group.add_argument("--srun", action="append", default=[], metavar="key=value", help="any parameter of srun")
    group.add_argument("--setup", action="append", metavar="LINE", help="shell command that runs first: 'module load cuda'")
    group.add_argument("--env", action="append", default=[], metavar="NAME=value", help="environment variable of every rank")
    group.add_argument("--debug", action="store_true", default=None, help="make NCCL and torch log what they do")
    group.add_argument("--no-check", dest="check", action="store_false", default=None, help="skip the pre-flight")
    group.add_argument("--after", metavar="JOB", help="start once this job has finished its training")
    text = "do not look for the data folders on this machine"
    group.add_argument("--no-data-check", action="store_true", default=None, help=text)
    group.add_argument("--dry-run", action="store_true", help="print the script and let Slurm test it; queue nothing")


def slurm_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keys of the `slurm` section that the command line gives."""
    options = {k: getattr(args, k) for k in (n.replace("-", "_") for n in SLURM_OPTIONS)}
    options |= {"setup": args.setup, "debug": args.debug, "check": args.check}
    extra, env = _pairs(args.slurm, "--slurm"), _pairs(args.env, "--env")
    if bare := [name for name, value in env.items() if value is True]:
        raise UserError(f"--env {bare[0]}: write {bare[0]}=value")
    if args.after:
        if "dependency" in extra:
            raise UserError(
                f"--after {args.after}: --slurm dependency={extra['dependency']} is given, too; give one dependency, as in "
                f"--slurm dependency={extra['dependency']},afterok:{args.after}"
            )
        # otherwise a job whose condition can never come true stays in the queue forever
        extra |= {"dependency": f"afterok:{args.after}", "kill-on-invalid-dep": "yes"}
    options |= {"extra": extra or None, "srun": _pairs(args.srun, "--srun") or None, "env": env or None}
    return {k: v for k, v in options.items() if v is not None}


def _pairs(items: Sequence[str], option: str) -> dict[str, str | bool]:
    pairs: dict[str, str | bool] = {}
    for item in items:
        key, eq, value = item.partition("=")
        if not key:
            raise UserError(f"{option} {item!r}: write key=value")
        pairs[key] = value if eq else True
    return pairs


def launch(args: argparse.Namespace) -> int:
    """Train through torchrun's agent."""
    from launch.torchrun import run

    if args.nnodes == 1:
        refuse_idle(args, ("rdzv", "rdzv_id"), "with --nnodes 1")
    given = {"nnodes": args.nnodes, "rdzv": args.rdzv, "max_restarts": args.max_restarts}
    given |= {"rdzv_id": args.rdzv_id} if args.rdzv_id else {}
    return run(args.config, [*args.overrides, *args.level], args.nproc, **given)


def submit(args: argparse.Namespace) -> int:
    """Queue a run; prints its number, its log and the commands to watch it."""
    from launch import cluster, job, sbatch, submission, submitit

    way = submitit if args.through == "submitit" else sbatch
    if not args.dry_run and not cluster.present():
        raise UserError("sbatch: not found; run this where Slurm's commands are, or use ddptrain train --nproc N here")
    options = slurm_options(args)
    waits = str((options.get("extra") or {}).get("dependency", ""))
    mine = submission.create(args.config, args.overrides, options, check_data=not args.no_data_check, known=waits)
    try:
        if args.dry_run:
            return _dry_run(mine, way.render(mine))
        number = way.submit(mine)
    except UserError:
        submission.discard(mine)
        raise
    job.register(mine, number)
    say(f"job {number}: {mine.name}, {mine.options.nodes} x {mine.options.ranks} ranks")
    say(f"  run     {mine.run}")
    say(f"  log     {mine.folder}/log.txt")
    for verb, why in (("jobs", "its state"), (f"logs -f {number}", "follow its log"), (f"cancel {number}", "save and end it")):
        print(f"  ddptrain {verb:<18} {why}")
    return 0


def _dry_run(mine: Any, text: str) -> int:
    """Print the script, let `sbatch --test-only` test it where there is Slurm, and leave nothing behind."""
    import subprocess

    from launch import cluster, submission

    print(text.rstrip("\n"))
    code = 0
    if cluster.present():
        path = mine.path / "script.sh"
        path.write_text(text)
        done = subprocess.run(cluster.clean(["sbatch", "--test-only", str(path)]), capture_output=True, text=True)
        print("# " + " ".join((done.stderr or done.stdout).split()))
        code = 2 if done.returncode else 0
    else:
        print("# Slurm is not on this machine, so the script was not tested")
    submission.discard(mine)
    return code


def sweep(args: argparse.Namespace) -> int:
    """Write the configs of a sweep, and train them here or queue them."""
    from launch import sweep as sweeps

    if args.table:
        _print_results(Path(args.config), args.compare)
        return 0
    if args.dry_run:
        raise UserError("--dry-run: sweep does not support it; try one config with ddptrain submit --dry-run")
    refuse_idle(args, *((SLURM_ONLY, "with --local") if args.local else (("nproc",), "without --local")))
    folder = Path(args.config)
    if args.local and folder.is_dir():
        refuse_idle(args, ("overrides", "grid", "seeds"), "on a sweep that continues")
    else:
        alone = sweeps.overrides_in(args.grid)
        grid = sweeps.parse_grid([item for item in args.grid if item not in alone])
        ranks = (args.nproc or 1) if args.local else None
        folder = sweeps.lay_out(folder, [*args.overrides, *alone], grid, args.seeds or 1, ranks)
    if args.local:
        code = sweeps.run_here(folder, args.nproc or 1)
        _print_results(folder, args.compare)
        return code
    options = slurm_options(args)
    number = sweeps.submit(folder, options, args.parallel, check_data=not args.no_data_check)
    say(f"job {number}: {len(list(folder.glob('[0-9]*.yaml')))} runs, configs in {folder}")
    print(f"  ddptrain jobs\n  ddptrain logs {number}_0\n  ddptrain sweep --table {shlex.quote(str(folder))}")
    return 0


def _print_results(folder: Path, compare: Callable[[Path], Sequence[str]]) -> None:
    from launch import sweep as sweeps

    print(printable(sweeps.table(folder), lines=True))
    try:
        lines = compare(folder)
    except ImportError as e:  # on a login node without numpy
        lines = [f"not compared: {e.name} is not installed here"]
    for line in lines:
        say(line)


def jobs(args: argparse.Namespace) -> int:
    """Print the table of jobs."""
    from launch.control import table

    print(table(args.n))
    return 0


def logs(args: argparse.Namespace) -> int:
    """Print a job's log."""
    from launch.control import show_logs

    return show_logs(args.job, rank=args.rank, follow=args.follow, lines=args.n)


def cancel(args: argparse.Namespace) -> int:
    """Save and end a job."""
    from launch import control

    print(control.cancel(args.job, now=args.now))
    return 0


def requeue(args: argparse.Namespace) -> int:
    """Save a job and queue it again."""
    from launch import control

    print(control.requeue(args.job))
    return 0
