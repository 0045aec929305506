"""The command line: one function for each subcommand, which calls its module; heavy imports happen inside."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ddptrain.commands.arguments import build_parser
from ddptrain.commands.eval_arguments import read_arguments
from ddptrain.errors import RankFailed, RunFailed, UserError
from ddptrain.system.imports import quick_imports
from ddptrain.system.limits import few_files, open_file_limit
from ddptrain.system.printable import printable


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        The exit status: 0 done, 1 failed, 2 a user's mistake (reported in one line), 75 stopped by a signal
        and saved.
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    args.last = argv is None  # the process is this command, not a caller in Python
    # argparse takes positional arguments in one place only; overrides may stand before and behind options
    if rest and hasattr(args, "overrides") and all("=" in r and not r.startswith("-") for r in rest):
        args.overrides = [*args.overrides, *rest]
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may contain bytes that are not text
        sys.stdout.reconfigure(errors="backslashreplace")
    open_file_limit()
    try:
        run = args.run if callable(args.run) else COMMANDS[args.run]  # those of launch bring their functions
        return int(run(args))
    except UserError as e:
        if _speaks() or (not e.everywhere and _speaks("LOCAL_RANK", "SLURM_LOCALID")):
            print(f"ddptrain: error: {printable(str(e))}", file=sys.stderr)
        return 2
    except RunFailed as e:
        if isinstance(e, RankFailed) or _speaks():
            print(f"ddptrain: failed: {printable(str(e))}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader is gone; Python must not try to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ConnectionError, TimeoutError):  # of a network, not of a file
        raise
    except OSError as e:  # disk full, no permission, no such folder: the path says it all
        where = f"{e.filename}: " if e.filename is not None else ""
        line = f"{printable(f'{where}{e.strerror or e}')}; free space or give another path, and start again"
        if e.errno in (errno.EMFILE, errno.ENFILE):
            line = f"too many open files: {few_files()} and start again with resume=auto"
        print(f"ddptrain: failed: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # `train` has handlers of its own
        print("ddptrain: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _speaks(torchrun: str = "RANK", srun: str = "SLURM_PROCID") -> bool:
    """Whether this process reports an error that all ranks meet: rank 0 does."""
    return os.environ.get(torchrun, os.environ.get(srun, "0")) == "0"


def train(args: argparse.Namespace) -> int:
    """Train in this process (the only one, or a rank of torchrun or srun), or start the ranks."""
    from ddptrain.system.terminal import outlive_terminal

    outlive_terminal()
    check = ["--dry-run"] if args.dry_run else ["--overfit", str(args.overfit)] if args.overfit else []
    if args.nproc is not None:
        from launch.torchrun import run as launch

        return launch(args.config, [*args.overrides, *args.level], nproc=args.nproc, check=check)
    from ddptrain.config import load_config
    from ddptrain.config.moved import check_moved
    from ddptrain.engine.stop import StopFlag, watch_launcher

    with StopFlag(last=args.last) as stop:
        watch_launcher(stop)
        notes: list[str] = []
        run_config = load_config(args.config, [*args.overrides, *args.level], tell=notes.append)
        check_moved(Path(args.config), run_config)
        with quick_imports(args.last):
            from ddptrain.engine.trainer import train as train_run
        if not check:
            return train_run(run_config, stop, notes)
        from ddptrain.commands.trial import Trial

        trial = Trial(run_config, stop, notes)
        return trial.dry_run() if args.dry_run else trial.overfit(args.overfit)


def evaluate(args: argparse.Namespace) -> int:
    """Evaluate a run's weights, or predictions."""
    runs, overrides, output = read_arguments(args)
    if args.predictions is None:
        with quick_imports(args.last):
            from ddptrain.commands.evaluate import evaluate_run

        return evaluate_run(Path(runs[0]), overrides, output, args.weights, args.data)
    from ddptrain.commands.evaluate_predictions import evaluate_predictions

    names = args.names.split(",") if args.names else None
    return evaluate_predictions(args.predictions, args.truth, overrides, names, output)


def compare(args: argparse.Namespace) -> int:
    """Say which of two runs is better."""
    from ddptrain.commands.compare import compare_runs

    return compare_runs(args.runs, args.against, args.metric, args.seed, args.json)


def report(args: argparse.Namespace) -> int:
    """Write the report of a run's best weights, or the page of several runs."""
    words = [*args.runs, *args.overrides]
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    runs = [Path(word) for word in words if word not in overrides]
    if len(runs) != 1 and overrides:
        raise UserError(f"report: {overrides[0]}: {len(runs)} runs cannot take an override; give one run, or omit the override")
    with quick_imports(args.last):
        from ddptrain.commands.report import report_run, report_runs

    return report_run(runs[0], overrides, args.out) if len(runs) == 1 else report_runs(runs, args.out)


def export(args: argparse.Namespace) -> int:
    """Write weights or a graph for use elsewhere."""
    with quick_imports(args.last):
        from ddptrain.commands.export import export_run

    return export_run(args.folder, args.format, args.out)


def verify(args: argparse.Namespace) -> int:
    """Compare short runs that must give the same result."""
    with quick_imports(args.last):
        from ddptrain.commands.verify import verify as verify_run
    from ddptrain.config import load_config

    return verify_run(load_config(args.config, args.overrides), args.way or "ranks", args.steps, args.ranks or ())


def diff(args: argparse.Namespace) -> int:
    """Compare two runs: 0 where they are equal, 1 where they differ."""
    from ddptrain.commands.diff import diff_runs

    return diff_runs(*args.runs)


def replay(args: argparse.Namespace) -> int:
    """Replay a step of a run: 0, or 1 where it is not the step that the run recorded."""
    with quick_imports(args.last):
        from ddptrain.commands.replay import replay_run

    return replay_run(args.folder, args.step, args.out, args.images)


def lr_find(args: argparse.Namespace) -> int:
    """Propose a learning rate: 0, or 1 where none was found."""
    with quick_imports(args.last):
        from ddptrain.commands.lr_find import find_rate

    return find_rate(args.config, args.overrides, args.steps, args.low, args.high, args.out)


def diagnose(args: argparse.Namespace) -> int:
    """Say why a loss does not fall: 0 where nothing is wrong with an update, 1 where something is."""
    with quick_imports(args.last):
        from ddptrain.commands.diagnose import diagnose as diagnose_source

    return diagnose_source(args.source, args.overrides)


def predict(args: argparse.Namespace) -> int:
    """Write pictures with detections, and predictions.json: 0, 1 where some images cannot be used, 2 where none can."""
    with quick_imports(args.last):
        from ddptrain.commands.predict import predict_run

    return predict_run(args.folder, args.images, args.out, args.score, args.limit, args.depth, args.tiles)


def check(args: argparse.Namespace) -> int:
    """Look at a run before it is started: 0 where it can train, warnings or not, 1 where it cannot."""
    with quick_imports(args.last):
        from ddptrain.commands.check import check_run
    from ddptrain.config import load_config

    return check_run(load_config(args.config, args.overrides), args.config, args.out, args.json, args.images)


def runs(args: argparse.Namespace) -> int:
    """List runs."""
    from ddptrain.commands.runs import list_runs

    return list_runs(args.folder, args.sort, args.json)


def completion(args: argparse.Namespace) -> int:
    """Print a script for a shell."""
    from ddptrain.commands.completion import print_completion

    return print_completion(args.shell)


def model(args: argparse.Namespace) -> int:
    """Print the network of a config in numbers."""
    from ddptrain.commands.model import describe_model

    return describe_model(args.config, args.overrides, args.json)


def augment(args: argparse.Namespace) -> int:
    """Draw what the augmentation of a config does."""
    with quick_imports(args.last):
        from ddptrain.commands.augment import show_augmentation

    return show_augmentation(args.config, args.overrides, args.out, args.grid, args.samples)


def pack(args: argparse.Namespace) -> int:
    """Decode the images of a run ahead."""
    with quick_imports(args.last):
        from ddptrain.commands.pack import pack_run

    return pack_run(args.config, args.overrides)


def depth(args: argparse.Namespace) -> int:
    """Write a depth map for every image."""
    from ddptrain.commands.depth import write_depth

    return write_depth(args.images, args.out, args.model, args.scale, args.exif)


def config(args: argparse.Namespace) -> int:
    """Print the documentation of all keys, the JSON Schema, a data.yaml as a config, or a resolved config."""
    from ddptrain.commands.config import print_config

    return print_config(args.config, args.overrides, schema=args.schema, data=args.data, weights=args.weights)


def convert(args: argparse.Namespace) -> int:
    """Convert a dataset; a line for each split, with what the new format cannot hold."""
    from ddptrain.commands.convert import report_conversion

    own = {key: getattr(args, key) for key in ("annotations", "images", "exif", "copy")}
    own["splits"] = tuple(args.split) if args.split else None
    own["names"] = tuple(args.names.split(",")) if args.names else None
    own["on_fault"] = "drop" if args.drop else "error"
    return report_conversion(args.source, args.target, args.src, args.dst, **own)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    f.__name__: f
    for f in (
        train,
        evaluate,
        compare,
        report,
        export,
        verify,
        diff,
        replay,
        lr_find,
        diagnose,
        predict,
        check,
        runs,
        completion,
        model,
        augment,
        pack,
        depth,
        config,
        convert,
    )
}
"""By their names."""
