"""The arguments of every command; `run` of the parsed ones names the function of `ddptrain/cli.py`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ddptrain.commands.eval_arguments import add_eval
from ddptrain.version import __version__
from launch.cli import add_commands, add_level
from launch.options import fraction, natural, numbers, positive


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="ddptrain",
        description="Train vision models on weighted mixtures of datasets. A run is a function of its config and its seed.",
    )
    parser.add_argument("--version", action="version", version=f"ddptrain {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_runs(commands)
    _add_aids(commands)
    _add_comparisons(commands)
    _add_data(commands)
    _add_looks(commands)
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
    """Commands that make and use runs."""
    p = commands.add_parser("train", help="train a run, or resume one (resume=auto)")
    _add_config(p)
    p.add_argument("--nproc", type=positive, metavar="N", help="start N ranks on this machine through torchrun")
    add_level(p)
    checks = p.add_mutually_exclusive_group()
    checks.add_argument(
        "--dry-run",
        action="store_true",
        help="check two steps, one evaluation and one checkpoint; nothing is kept",
    )
    checks.add_argument(
        "--overfit", type=positive, metavar="N", help="check that the model can overfit N training images; nothing is kept"
    )
    p.set_defaults(run="train")

    add_eval(commands)

    p = commands.add_parser("report", help="write the report of a run, or of several (figures: extra [report])")
    p.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folder, or a checkpoint in it; several are compared with the first"
    )
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the run's config, for one run")
    p.add_argument("--out", type=Path, help="folder of the report (default: RUN/report)")
    p.set_defaults(run="report")

    p = commands.add_parser("predict", help="draw the predictions of a run on images")
    _add_run(p)
    p.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them and their subfolders")
    p.add_argument("--out", type=Path, help="folder for pictures and predictions.json (default: RUN/predictions)")
    p.add_argument("--score", type=fraction, default=0.25, help="draw detections with at least this score (default 0.25)")
    p.add_argument("--depth", type=Path, metavar="FOLDER", help="depth maps of the images, for a model that takes depth")
    p.add_argument("--tiles", type=positive, metavar="SIZE", help="predict in windows of SIZE x SIZE pixels (see eval.tiles)")
    p.add_argument("--limit", type=positive, metavar="N", help="use only N of the images, evenly spread")
    p.set_defaults(run="predict")

    p = commands.add_parser("export", help="export the weights of a run, or a graph that is checked against the model")
    _add_run(p)
    formats = ("safetensors", "torchscript", "onnx")
    p.add_argument("--format", choices=formats, default=formats[0], help="default safetensors")
    p.add_argument("--out", type=Path, help="the file (default: RUN/<name>.<format>)")
    p.set_defaults(run="export")


def _add_aids(commands: Any) -> None:
    """Commands that help to find out how to train."""
    p = commands.add_parser("lr-find", help="find a learning rate by a range test, with a picture (extra [report])")
    _add_config(p)
    p.add_argument("--steps", type=int, default=100, metavar="N", help="steps over which the rate rises (default 100)")
    p.add_argument("--low", type=float, default=1e-6, help="rate of the first step (default 1e-6)")
    p.add_argument("--high", type=float, default=1.0, help="rate of the last step (default 1)")
    p.add_argument("--out", type=Path, default=Path("lr-find.png"), help="picture to write (default lr-find.png)")
    p.set_defaults(run="lr_find")

    p = commands.add_parser("diagnose", help="why a loss does not fall, from a few updates on one batch")
    p.add_argument("source", type=Path, metavar="RUN|CONFIG", help="YAML config, run folder, or a checkpoint")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    p.set_defaults(run="diagnose")


def _add_comparisons(commands: Any) -> None:
    """Commands that compare and verify runs, and look into one."""
    p = commands.add_parser("compare", help="which of two runs, or of two sets of seeds, is better, with intervals")
    p.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="two runs, the folder of a sweep, or, with --against, one side"
    )
    p.add_argument("--against", nargs="+", type=Path, default=[], metavar="RUN", help="the other side: one or more runs")
    p.add_argument("--metric", help="such as AP, AP50, class/car/AP, accuracy, mIoU (default: the task's first)")
    p.add_argument("--seed", type=natural, default=0, help="of the draws (default 0)")
    p.add_argument("--json", action="store_true", help="print the comparison as JSON")
    p.set_defaults(run="compare")

    p = commands.add_parser("diff", help="what differs between two runs: settings, the first different step, tensors")
    p.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="run folder or checkpoint")
    p.set_defaults(run="diff")

    p = commands.add_parser("replay", help="replay one step of a run: its pictures, the loss of each sample, the gradients")
    _add_run(p)
    p.add_argument("--step", type=positive, required=True, metavar="N", help="the step, from 1")
    p.add_argument("--out", type=Path, help="folder for pictures and replay.json (default: RUN/replay)")
    p.add_argument("--images", type=int, default=64, metavar="N", help="pictures of the N largest losses (default 64)")
    p.set_defaults(run="replay")

    p = commands.add_parser("verify", help="train a few steps in two ways that must give the same result, and compare")
    _add_config(p)
    way = p.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "--ranks", type=numbers, metavar="1,2,4", help="train on each of these numbers of ranks, with the same micro batches"
    )
    ways = {"resume": "resume from a checkpoint", "split": "use other micro batches", "workers": "use other loader workers"}
    for name, text in ways.items():
        way.add_argument(f"--{name}", dest="way", action="store_const", const=name, help=text)
    p.add_argument("--steps", type=int, metavar="N", help="steps of each run (default 4, with --split 2)")
    p.set_defaults(run="verify")


def _add_looks(commands: Any) -> None:
    """Commands that look at what is there."""
    p = commands.add_parser("runs", help="list the runs below a folder: state, step, best metric, age, job")
    p.add_argument("folder", nargs="?", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    p.add_argument("--sort", choices=("age", "name", "state", "step", "best", "job"), default="age", help="default age")
    p.add_argument("--json", action="store_true", help="print the list as JSON")
    p.set_defaults(run="runs")

    p = commands.add_parser("completion", help="print a shell script that completes commands, options and keys")
    p.add_argument("shell", choices=("bash", "zsh", "fish"), help='to use it: eval "$(ddptrain completion bash)"')
    p.set_defaults(run="completion")


def _add_data(commands: Any) -> None:
    """Commands that check, print and make configs and datasets."""
    p = commands.add_parser("check", help="look for mistakes in a config and its datasets before training")
    _add_config(p)
    p.add_argument("--out", type=Path, default=Path("check.html"), help="page to write (default check.html)")
    p.add_argument("--images", type=natural, default=4000, metavar="N", help="open N images to find duplicates (0: all)")
    p.add_argument("--json", action="store_true", help="print everything as JSON")
    p.set_defaults(run="check")

    p = commands.add_parser("model", help="the network of a config: parameters, operations, receptive fields of its levels")
    _add_config(p)
    p.add_argument("--json", action="store_true", help="print everything as JSON")
    p.set_defaults(run="model")

    p = commands.add_parser("augment", help="draw augmented training samples")
    _add_config(p)
    p.add_argument("--grid", action="store_true", help="also draw a row for each augmentation alone, and one for all together")
    p.add_argument("--samples", type=positive, default=4, metavar="N", help="samples in each row (default 4)")
    p.add_argument("--out", type=Path, default=Path("augment.png"), help="the picture, .png or .jpg (default augment.png)")
    p.set_defaults(run="augment")

    p = commands.add_parser("pack", help="decode the images of a run ahead, for data.cache=disk")
    _add_config(p)
    p.set_defaults(run="pack")

    p = commands.add_parser("depth", help="make depth maps of images with a monocular model (extra [depth])")
    p.add_argument("images", type=Path, metavar="IMAGES", help="folder of images, or one image")
    p.add_argument("out", type=Path, metavar="OUT", help="folder of the 16-bit PNGs, for `depth` of a dataset")
    p.add_argument("--model", required=True, help="folder or name of a depth-estimation model of transformers")
    p.add_argument("--scale", type=float, help="values per unit of a metric model, such as 1000 for mm (default: per image)")
    p.add_argument("--exif", choices=["apply", "ignore"], default="apply", help="like the key `exif` of a dataset")
    p.set_defaults(run="depth")

    p = commands.add_parser("config", help="print all keys, a resolved config, or the JSON Schema")
    p.add_argument("config", nargs="?", help="YAML config to resolve; without one, all keys are described")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    p.add_argument("--schema", action="store_true", help="print the JSON Schema, for editors")
    p.add_argument("--data", type=Path, metavar="YAML", help="turn an Ultralytics data.yaml into classes and data of a config")
    p.add_argument("--weights", choices=["share", "multiplier"], help="what train_weights of that file mean")
    p.set_defaults(run="config")

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
    p.set_defaults(run="convert")


def compare_sweep(folder: Path) -> list[str]:
    """Verdicts on the combinations of a sweep against its first, a line each."""
    from ddptrain.commands.compare import compare_sweep

    return compare_sweep(folder)
