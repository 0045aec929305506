"""The arguments of `ddptrain eval`; imports nothing heavy, since the parser of every command is built with it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ddptrain.errors import UserError

SPLITS = ("dataset", "size", "folder")
SplitBy = Literal["dataset", "size", "folder"]


@dataclass(frozen=True)
class Output:
    """What becomes of the metrics beside the table.

    Attributes:
        json: True to print them as JSON instead of the table, or the file that they are written to.
        save: file for what `ddptrain compare` reads.
        predictions: file for all predictions, as `ddptrain predict` writes them.
        split_by: what a further table is split by.
    """

    json: bool | Path = False
    save: Path | None = None
    predictions: Path | None = None
    split_by: SplitBy | None = None


def add_eval(commands: Any) -> None:
    """The parser of `ddptrain eval`."""
    p = commands.add_parser("eval", help="evaluate a run, or the predictions of any detector, on validation datasets")
    p.add_argument("folder", nargs="?", metavar="RUN", help="run folder, or a checkpoint in it")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the run's config, or to that of --truth")
    p.add_argument("--data", type=Path, metavar="CONFIG", help="evaluate on data.val of this config instead of the run's")
    p.add_argument("--weights", metavar="WHICH", help="best (default), last, or the path of a checkpoint")
    p.add_argument(
        "--predictions", type=Path, metavar="FILE", help="evaluate these instead of a run: JSON, or a folder of text files"
    )
    p.add_argument("--truth", type=Path, metavar="CONFIG", help="with --predictions: config whose data.val is the truth")
    p.add_argument(
        "--names", metavar="A,B,C", help="with --predictions: class names in the order of their numbers in YOLO files"
    )
    p.add_argument("--protocol", action="append", default=[], metavar="NAME", help="visdrone, voc or uavdt, beside coco")
    p.add_argument("--split-by", choices=SPLITS, help="a further table by dataset, by size of objects, or by folder of images")
    p.add_argument("--json", nargs="?", const="", metavar="FILE", help="print all metrics as JSON, or write them to FILE.json")
    p.add_argument("--save", type=Path, metavar="FILE", help="file to write for ddptrain compare (default: RUN/evaluation.npz)")
    p.add_argument("--save-predictions", type=Path, metavar="FILE", help="file for all predictions, in predict's format")
    p.set_defaults(run="evaluate")


def read_arguments(args: argparse.Namespace) -> tuple[list[str], list[str], Output]:
    """The runs, the overrides and the output that are asked for.

    Raises:
        UserError: what is asked for does not go together.
    """
    words = [word for word in (args.folder, *args.overrides) if word is not None]
    given = args.json if args.json and not args.json.endswith(".json") else ""
    if given:  # what follows a bare --json is not its file
        words.append(given)
        args.json = ""
    runs, overrides = [w for w in words if "=" not in w], [w for w in words if "=" in w]
    if args.protocol:
        overrides.append(f"eval.protocols=[{', '.join(dict.fromkeys(['coco', *args.protocol]))}]")
    to_json: bool | Path = args.json is not None and (Path(args.json) if args.json else True)
    if args.predictions is not None:
        _refuse(bool(runs), "--predictions", "RUN")
        _refuse(args.data is not None or args.weights is not None, "--predictions", "--data and --weights; give --truth CONFIG")
        _refuse(args.save_predictions is not None, "--predictions", "--save-predictions: they are in a file already")
        if args.truth is None:
            raise UserError("eval: --predictions needs --truth CONFIG, whose data.val lists the datasets with the truth")
    else:
        if args.truth is not None or args.names is not None:
            raise UserError("eval: --truth and --names go with --predictions, not with a run")
        if given in runs and len(runs) > 1 and not Path(given).exists():
            raise UserError(f"eval: --json {given}: the name of the file must end in .json")
        if len(runs) != 1:
            raise UserError(f"eval: {len(runs) or 'no'} runs; give one run or checkpoint, or --predictions FILE --truth CONFIG")
    return runs, overrides, Output(to_json, args.save, args.save_predictions, args.split_by)


def _refuse(wrong: bool, beside: str, what: str) -> None:
    if wrong:
        raise UserError(f"eval: {beside} cannot be combined with {what}")
