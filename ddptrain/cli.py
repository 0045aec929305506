"""The command line. Every subcommand is one function here that hands over to its module; heavy imports happen inside."""

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
from ddptrain.system.printable import printable, say
from ddptrain.version import __version__
from launch.cli import add_commands


def positive(text: str) -> int:
    """A number of things on the command line: 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


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
    add_commands(commands)
    return parser


def _add_runs(commands: Any) -> None:
    """What makes runs, uses them and tries them."""
    p = commands.add_parser("train", help="train, or go on with a run (resume=auto)")
    p.add_argument("config", help="YAML config of the run")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config, such as train.epochs=10")
    p.add_argument("--nproc", type=positive, metavar="N", help="start N ranks on this machine through torchrun")
    p.set_defaults(run=train)

    p = commands.add_parser("eval", help="evaluate a run on its validation datasets")
    p.add_argument("folder", type=Path, metavar="RUN", help="run folder, or a checkpoint in it")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the run's config")
    p.add_argument("--json", action="store_true", help="print all metrics as JSON")
    p.set_defaults(run=evaluate)

    p = commands.add_parser("report", help="write figures and text about a run's best weights (extra [report])")
    p.add_argument("folder", type=Path, metavar="RUN", help="run folder, or a checkpoint in it")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the run's config")
    p.add_argument("--out", type=Path, help="folder of the report (default: RUN/report)")
    p.set_defaults(run=report)

    p = commands.add_parser("predict", help="draw what a run finds in images")
    p.add_argument("folder", type=Path, metavar="RUN", help="run folder, or a checkpoint in it")
    p.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them and their subfolders")
    p.add_argument("--out", type=Path, help="folder for pictures and predictions.json (default: RUN/predictions)")
    p.add_argument("--score", type=float, default=0.25, help="draw detections from this score on (default 0.25)")
    p.add_argument("--depth", type=Path, metavar="FOLDER", help="depth maps of the images, for a model that takes depth")
    p.add_argument("--limit", type=positive, metavar="N", help="take only N images, evenly spread")
    p.set_defaults(run=predict)

    p = commands.add_parser("export", help="write a run's bare weights, or a graph, checked against the model")
    p.add_argument("folder", type=Path, metavar="RUN", help="run folder, or a checkpoint in it")
    formats = ("safetensors", "torchscript", "onnx")
    p.add_argument("--format", choices=formats, default="safetensors", help="default safetensors; the others hold a graph")
    p.add_argument("--out", type=Path, help="the file (default: RUN/<name>.<format>)")
    p.set_defaults(run=export)

    p = commands.add_parser("verify", help="try the promise on a config: a few steps both ways, then compare")
    p.add_argument("config", type=Path, help="YAML config of the run")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    way = p.add_mutually_exclusive_group(required=True)
    way.add_argument("--resume", dest="way", action="store_const", const="resume", help="going on from a checkpoint")
    way.add_argument("--split", dest="way", action="store_const", const="split", help="other ranks and accumulation")
    way.add_argument("--workers", dest="way", action="store_const", const="workers", help="other numbers of loader workers")
    p.add_argument("--steps", type=int, metavar="N", help="steps of each run (default 4, with --split 2)")
    p.set_defaults(run=verify)


def _add_data(commands: Any) -> None:
    """What looks at configs and datasets, and makes them."""
    p = commands.add_parser("check", help="look for mistakes in a config and its datasets before training")
    p.add_argument("config", help="YAML config of the run")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    p.add_argument("--out", type=Path, default=Path("check.html"), help="the page that is written (default check.html)")
    p.add_argument(
        "--images", type=int, default=4000, metavar="N", help="open N images to find duplicates (default 4000; 0: all)"
    )
    p.add_argument("--json", action="store_true", help="print everything as JSON")
    p.set_defaults(run=check)

    p = commands.add_parser("depth", help="make depth maps of images with a monocular model (extra [depth])")
    p.add_argument("images", type=Path, metavar="IMAGES", help="folder of images, or one image")
    p.add_argument("out", type=Path, metavar="OUT", help="folder of the 16-bit PNGs, for `depth` of a dataset")
    p.add_argument("--model", required=True, help="folder or name of a depth-estimation model of transformers")
    p.add_argument("--scale", type=float, help="values per unit of a metric model, such as 1000 for mm (default: per image)")
    p.add_argument("--exif", choices=["apply", "ignore"], default="apply", help="as the key `exif` of the dataset")
    p.set_defaults(run=depth)

    p = commands.add_parser("config", help="print all keys, a config as it is resolved, or the JSON Schema")
    p.add_argument("config", nargs="?", help="YAML config to resolve; without it all keys with their docs are printed")
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
    p.add_argument("--split", action="append", metavar="NAME", help="only this split; may be given several times")
    p.add_argument("--names", metavar="A,B,C", help="class names in the order of the ids, where the format has none")
    p.add_argument("--annotations", metavar="PATH", help="annotations relative to SRC, where not at the usual place")
    p.add_argument("--images", metavar="PATH", help="images relative to SRC, where not at the usual place")
    p.add_argument("--exif", choices=["apply", "ignore"], default="apply", help="as the dataset's key `exif`, for SRC and DST")
    p.add_argument("--drop", action="store_true", help="leave faulty images and rows out instead of refusing the dataset")
    p.add_argument("--copy", action="store_true", help="copy the images instead of linking them")
    p.set_defaults(run=convert)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        The exit status: 0 done, 1 failed, 2 a mistake of the user (told in one line), 75 stopped by a signal and saved.
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    args.last = argv is None  # a command of its own, not a call from Python
    # argparse takes positional arguments in one place only; overrides may stand before and behind options
    if rest and hasattr(args, "overrides") and all("=" in r and not r.startswith("-") for r in rest):
        args.overrides = [*args.overrides, *rest]
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold bytes that are no text
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
    except BrokenPipeError:
        # whoever read has left; Python must not try to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ConnectionError, TimeoutError):  # of a network, not of a place
        raise
    except OSError as e:  # disk full, no permission, no such folder: the place is all that is to be known
        if e.errno in (errno.EMFILE, errno.ENFILE):
            print(f"ddptrain: failed: too many open files: {few_files()} and start again with resume=auto", file=sys.stderr)
            return 1
        where = f"{e.filename}: " if e.filename is not None else ""
        line = printable(f"{where}{e.strerror or e}")
        print(f"ddptrain: failed: {line}; free or name another place and start again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # `train` has handlers of its own
        print("ddptrain: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _speaks(torchrun: str = "RANK", srun: str = "SLURM_PROCID") -> bool:
    """Of several ranks that fail alike, one speaks: that with number 0."""
    return os.environ.get(torchrun, os.environ.get(srun, "0")) == "0"


def train(args: argparse.Namespace) -> int:
    """Train in this process (a rank of torchrun or srun, or the only one), or start the ranks."""
    from ddptrain.config import load_config, no_line
    from ddptrain.config.moved import check_moved
    from ddptrain.system.terminal import outlive_terminal

    outlive_terminal()
    if args.nproc is not None:
        from launch.torchrun import run as launch

        check_moved(Path(args.config), load_config(args.config, args.overrides, tell=no_line))
        return launch(args.config, args.overrides, nproc=args.nproc)
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

    return evaluate_run(args.folder, args.overrides, args.json)


def report(args: argparse.Namespace) -> int:
    """Write the report of a run's best weights."""
    from ddptrain.commands.report import report_run

    return report_run(args.folder, args.overrides, args.out)


def export(args: argparse.Namespace) -> int:
    """Write weights or a graph for use elsewhere."""
    from ddptrain.commands.export import export_run

    return export_run(args.folder, args.format, args.out)


def verify(args: argparse.Namespace) -> int:
    """Compare short runs that must end alike."""
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
    import json

    from ddptrain.config import docs, load_config
    from ddptrain.config.schema import schema

    if args.schema:
        print(json.dumps(schema(), indent=2))
    elif args.data:
        import yaml

        from ddptrain.data.formats.ultralytics import data_section, unlabelled
        from ddptrain.data.tables.labels import named_like_regions

        section = data_section(args.data, args.weights)
        print(yaml.safe_dump(section, sort_keys=False, allow_unicode=True), end="")
        regions = [f"class {name} is named like an ignore region" for name in named_like_regions(section["classes"])]
        regions = [f"{line}; move it from classes to ignore of its datasets, unless it is a class" for line in regions]
        for line in [*regions, *unlabelled(section)]:
            print(f"ddptrain: note: {line}", file=sys.stderr)
    elif args.config:
        print(docs.to_yaml(load_config(args.config, args.overrides)), end="")
    else:
        print(docs.describe(), end="")
    return 0


def convert(args: argparse.Namespace) -> int:
    """Convert a dataset; a line for each split, with what the new format cannot hold."""
    from ddptrain.commands.convert import convert as convert_dataset

    done = convert_dataset(
        args.source,
        args.target,
        args.src,
        args.dst,
        splits=tuple(args.split) if args.split else None,
        annotations=args.annotations,
        images=args.images,
        names=tuple(args.names.split(",")) if args.names else None,
        exif=args.exif,
        on_fault="drop" if args.drop else "error",
        copy=args.copy,
    )
    for split in done:
        say(split.text())
    if args.exif == "ignore":
        say(f"read {args.dst} with exif: ignore, too: its images are the same files")
    return 0
