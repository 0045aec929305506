"""The command line: one function for each subcommand, which calls its module; heavy imports happen inside."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

from ddptrain.errors import RankFailed, RunFailed, UserError
from ddptrain.system.limits import few_files, open_file_limit
from ddptrain.system.printable import printable
from ddptrain.version import __version__
from launch.cli import add_commands, positive


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets `run` to its function."""
    parser = argparse.ArgumentParser(
        prog="ddptrain",
        description="Train vision models on weighted mixtures of datasets. A run is a function of its config and its seed.",
    )
    parser.add_argument("--version", action="version", version=f"ddptrain {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_runs(commands)
    _add_data(commands)
    add_commands(commands, compare_sweep)
    return parser


def _add_config(p: argparse.ArgumentParser) -> None:
    p.add_argument("config", help="YAML config of the run")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config, such as train.epochs=10")


def _add_run(p: argparse.ArgumentParser, overrides: bool = False) -> None:
    p.add_argument("folder", type=Path, metavar="RUN", help="run folder, or a checkpoint in it")
    if overrides:
        p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the run's config")


def _add_runs(commands: Any) -> None:
    """Commands that make, use and verify runs."""
    p = commands.add_parser("train", help="train a run, or resume one (resume=auto)")
    _add_config(p)
    p.add_argument("--nproc", type=positive, metavar="N", help="start N ranks on this machine through torchrun")
    p.set_defaults(run=train)

    p = commands.add_parser("eval", help="evaluate a run on its validation datasets")
    _add_run(p, overrides=True)
    p.add_argument("--json", action="store_true", help="print all metrics as JSON")
    p.add_argument("--save", type=Path, metavar="FILE", help="write what compare reads there (default: RUN/evaluation.npz)")
    p.set_defaults(run=evaluate)

    p = commands.add_parser("report", help="write figures and text about a run's best weights (extra [report])")
    _add_run(p, overrides=True)
    p.add_argument("--out", type=Path, help="folder of the report (default: RUN/report)")
    p.set_defaults(run=report)

    p = commands.add_parser("compare", help="which of two runs, or of two sets of seeds, is better, with intervals")
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="two runs, a sweep's folder, or with --against one side")
    p.add_argument("--against", nargs="+", type=Path, default=[], metavar="RUN", help="the other side: runs of other seeds")
    p.add_argument("--metric", help="such as AP, AP50, class/car/AP, accuracy, mIoU (default: the task's first)")
    p.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    p.add_argument("--json", action="store_true", help="print the comparison as JSON")
    p.set_defaults(run=compare)

    p = commands.add_parser("predict", help="draw the predictions of a run on images")
    _add_run(p)
    p.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them and their subfolders")
    p.add_argument("--out", type=Path, help="folder for pictures and predictions.json (default: RUN/predictions)")
    p.add_argument("--score", type=float, default=0.25, help="draw detections with at least this score (default 0.25)")
    p.add_argument("--depth", type=Path, metavar="FOLDER", help="depth maps of the images, for a model that takes depth")
    p.add_argument("--limit", type=positive, metavar="N", help="use only N of the images, evenly spread")
    p.set_defaults(run=predict)

    p = commands.add_parser("export", help="export the weights of a run, or a graph that is checked against the model")
    _add_run(p)
    formats = ("safetensors", "torchscript", "onnx")
    p.add_argument("--format", choices=formats, default=formats[0], help="default safetensors")
    p.add_argument("--out", type=Path, help="the file (default: RUN/<name>.<format>)")
    p.set_defaults(run=export)

    p = commands.add_parser("verify", help="train a few steps in two ways that must give the same result, and compare")
    _add_config(p)
    way = p.add_mutually_exclusive_group(required=True)
    ways = {"resume": "resume from a checkpoint", "split": "use other ranks", "workers": "use other loader workers"}
    for name, text in ways.items():
        way.add_argument(f"--{name}", dest="way", action="store_const", const=name, help=text)
    p.add_argument("--steps", type=int, metavar="N", help="steps of each run (default 4, with --split 2)")
    p.set_defaults(run=verify)


def _add_data(commands: Any) -> None:
    """Commands that check, print and make configs and datasets."""
    p = commands.add_parser("check", help="look for mistakes in a config and its datasets before training")
    _add_config(p)
    p.add_argument("--out", type=Path, default=Path("check.html"), help="page to write (default check.html)")
    p.add_argument("--images", type=int, default=4000, metavar="N", help="open N images to find duplicates (0: all)")
    p.add_argument("--json", action="store_true", help="print everything as JSON")
    p.set_defaults(run=check)

    p = commands.add_parser("depth", help="make depth maps of images with a monocular model (extra [depth])")
    p.add_argument("images", type=Path, metavar="IMAGES", help="folder of images, or one image")
    p.add_argument("out", type=Path, metavar="OUT", help="folder of the 16-bit PNGs, for `depth` of a dataset")
    p.add_argument("--model", required=True, help="folder or name of a depth-estimation model of transformers")
    p.add_argument("--scale", type=float, help="values per unit of a metric model, such as 1000 for mm (default: per image)")
    p.add_argument("--exif", choices=["apply", "ignore"], default="apply", help="like the key `exif` of a dataset")
    p.set_defaults(run=depth)

    p = commands.add_parser("config", help="print all keys, a resolved config, or the JSON Schema")
    p.add_argument("config", nargs="?", help="YAML config to resolve; without one, all keys are described")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    p.add_argument("--schema", action="store_true", help="print the JSON Schema, for editors")
    p.add_argument("--data", type=Path, metavar="YAML", help="turn an Ultralytics data.yaml into classes and data of a config")
    p.add_argument("--weights", choices=["share", "multiplier"], help="what train_weights of that file mean")
    p.set_defaults(run=config)

    p = commands.add_parser("convert", help="convert a detection dataset to another format")
    p.add_argument("--from", dest="source", required=True, metavar="FORMAT", help="format of SRC")
    p.add_argument("--to", dest="target", required=True, metavar="FORMAT", help="format of DST")
    p.add_argument("src", metavar="SRC", help="folder of the dataset")
    p.add_argument("dst", metavar="DST", help="new folder")
    p.add_argument("--split", action="append", metavar="NAME", help="convert only this split; may be repeated")
    p.add_argument("--names", metavar="A,B,C", help="class names in the order of their ids, for a format without names")
    p.add_argument("--annotations", metavar="PATH", help="path of the annotations in SRC, if it is not the usual one")
    p.add_argument("--images", metavar="PATH", help="path of the images in SRC, if it is not the usual one")
    p.add_argument("--exif", choices=["apply", "ignore"], default="apply", help="like the key `exif` of SRC and DST")
    p.add_argument("--drop", action="store_true", help="leave out faulty images and rows instead of refusing the dataset")
    p.add_argument("--copy", action="store_true", help="copy the images instead of linking them")
    p.set_defaults(run=convert)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        The exit status: 0 done, 1 failed, 2 a mistake of the user (reported in one line), 75 stopped by a signal
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
        return int(args.run(args))
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
    if args.nproc is not None:
        from launch.torchrun import run as launch

        return launch(args.config, args.overrides, nproc=args.nproc)
    from ddptrain.config import load_config
    from ddptrain.config.moved import check_moved
    from ddptrain.engine.stop import StopFlag, watch_launcher

    with StopFlag(last=args.last) as stop:
        watch_launcher(stop)
        notes: list[str] = []
        run_config = load_config(args.config, args.overrides, tell=notes.append)
        check_moved(Path(args.config), run_config)
        from ddptrain.engine.trainer import train as train_run

        return train_run(run_config, stop, notes)


def evaluate(args: argparse.Namespace) -> int:
    """Evaluate a run's best weights."""
    from ddptrain.commands.evaluate import evaluate_run

    return evaluate_run(args.folder, args.overrides, args.json, args.save)


def compare(args: argparse.Namespace) -> int:
    """Say which of two runs is better."""
    from ddptrain.commands.compare import compare_runs

    return compare_runs(args.runs, args.against, args.metric, args.seed, args.json)


def compare_sweep(folder: Path) -> list[str]:
    """Verdicts on the combinations of a sweep against its first, a line each."""
    from ddptrain.commands.compare import compare_sweep

    return compare_sweep(folder)


def report(args: argparse.Namespace) -> int:
    """Write the report of a run's best weights."""
    from ddptrain.commands.report import report_run

    return report_run(args.folder, args.overrides, args.out)


def export(args: argparse.Namespace) -> int:
    """Write weights or a graph for use elsewhere."""
    from ddptrain.commands.export import export_run

    return export_run(args.folder, args.format, args.out)


def verify(args: argparse.Namespace) -> int:
    """Compare short runs that must give the same result."""
    from ddptrain.commands.verify import verify as verify_run
    from ddptrain.config import load_config

    return verify_run(load_config(args.config, args.overrides), args.way, args.steps)


def predict(args: argparse.Namespace) -> int:
    """Write pictures with detections, and predictions.json: 0, 1 where some images cannot be used, 2 where none can."""
    from ddptrain.commands.predict import predict_run

    return predict_run(args.folder, args.images, args.out, args.score, args.limit, args.depth)


def check(args: argparse.Namespace) -> int:
    """Look at a run before it is started: 0 where it can train, warnings or not, 1 where it cannot."""
    from ddptrain.commands.check import check_run
    from ddptrain.config import load_config

    return check_run(load_config(args.config, args.overrides), args.config, args.out, args.json, args.images)


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
