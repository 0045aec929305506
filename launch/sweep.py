"""A sweep: one run for each combination of values and seeds, as an array job or one after the other, and its table."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddptrain.config import load_config, no_line
from ddptrain.config.aliases import canonical_key
from ddptrain.config.batch import split_batch
from ddptrain.config.text import dump_yaml
from ddptrain.errors import UserError
from ddptrain.system.files import write_text
from ddptrain.system.status import STOPPED
from launch import job, sbatch, submission
from launch.job import Job

METRICS = ("accuracy", "balanced_accuracy", "f1", "mIoU", "AP", "AP50", "AP75")


OWN_WAY = {
    "name": "each run is named after the sweep, which the override name=… names",
    "output": "all runs of a sweep are in one folder, which the override output=… sets",
    "seed": "--seeds N trains each combination with N seeds, from the config's seed on",
}
"""Keys that are no part of a grid, and what to do instead."""


def split_values(text: str) -> list[str]:
    """The values in `a,b`, as YAML texts. Commas inside brackets do not separate."""
    values, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            values.append("")
        else:
            values[-1] += character
    return [v.strip() for v in values]


def parse_grid(items: Sequence[str]) -> dict[str, list[str]]:
    """The values of each key in `key=a,b` texts, as YAML texts.

    Raises:
        UserError: an item is not of this form, or a key is listed twice or is no part of a grid.
    """
    grid: dict[str, list[str]] = {}
    for item in items:
        key, eq, text = item.partition("=")
        if not eq or not key or not text:
            raise UserError(f"--grid {item!r}: write key=value,value, such as optimizer.lr=0.01,0.02")
        if key in OWN_WAY:
            raise UserError(f"--grid {item!r}: {key} cannot be in a grid; {OWN_WAY[key]}")
        if twice := [k for k in grid if canonical_key(k) == canonical_key(key)]:
            also = "" if twice == [key] else f" (as {twice[0]})"
            raise UserError(f"--grid {item!r}: {key} is listed twice{also}; list all its values once")
        grid[key] = split_values(text)
        if "" in grid[key]:
            raise UserError(f"--grid {item!r}: a value is empty; remove a comma, or write null for no value")
    return grid


def overrides_in(items: Sequence[str]) -> list[str]:
    """The items behind `--grid` that are overrides, since they hold one value: argparse cannot tell them from a grid's."""
    return [item for item in items if "=" in item and len(split_values(item.partition("=")[2])) == 1]


def lay_out(
    config_path: Path, overrides: Sequence[str], grid: Mapping[str, Sequence[str]], seeds: int, ranks: int | None = None
) -> Path:
    """Write one config for each run: `<output>/<name>-sweep-N/0.yaml`, `1.yaml`, … and `sweep.json`.

    Every config is checked. Run i is named `<name>-sweep-N-<i>`.

    Args:
        seeds: number of seeds for each combination: the config's own and those after it.
        ranks: number of ranks of each run, over which its batches must divide; None where that is checked later.

    Raises:
        UserError: a combination is not a valid config, or two are the same; nothing is written then.
    """
    base = load_config(config_path, overrides, tell=no_line)
    given = {canonical_key(override.partition("=")[0]) for override in overrides}
    if twice := [key for key in grid if canonical_key(key) in given]:
        raise UserError(f"--grid {twice[0]}: the key is also set by an override; remove one of them")
    combinations = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    runs = [(c, base.seed + s) for c in combinations for s in range(seeds)]
    number = next(n for n in itertools.count(1) if not (Path(base.output) / f"{base.name}-sweep-{n}").exists())
    name = f"{base.name}-sweep-{number}"
    configs, entries = [], []
    known: dict[str, dict[str, str]] = {}
    for i, (values, seed) in enumerate(runs):
        own = [*overrides, *(f"{k}={v}" for k, v in values.items()), f"seed={seed}", f"name={json.dumps(f'{name}-{i}')}"]
        config = load_config(config_path, own)
        if ranks is not None:
            split_batch(config.train.global_batch, config.train.micro_batch, ranks)
        same = known.setdefault(config.model_dump_json(exclude={"name"}), values)
        if same is not values:
            raise UserError(f"--grid: {_shown(same)} and {_shown(values)} are the same run; remove one of them")
        # what neither the file nor an override sets stays unset, so that options of the submission still apply
        configs.append(dump_yaml(config.model_dump(mode="json", exclude_unset=True)))
        entries.append({"index": i, "values": values, "seed": seed, "run": str(config.folder.absolute())})
    folder = Path(base.output).absolute() / name
    folder.mkdir(parents=True)
    for i, text in enumerate(configs):
        (folder / f"{i}.yaml").write_text(text, encoding="utf-8")
    (folder / "sweep.json").write_text(json.dumps({"grid": {k: list(v) for k, v in grid.items()}, "runs": entries}, indent=1))
    return folder


def _shown(values: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def table(folder: Path) -> str:
    """The result table of a sweep in Markdown: a row for each combination, mean ± deviation over its seeds."""
    described = _described(folder)
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in described["runs"]:
        groups.setdefault(json.dumps(run["values"]), []).append(run)
    results = {run["index"]: _summary(Path(run["run"])) for run in described["runs"]}
    known = [m for m in METRICS if any(m in (r or {}) for r in results.values())] or ["AP"]
    lines = [_line([*described["grid"], "seeds", *known]), _line(["---"] * (len(described["grid"]) + 1 + len(known)))]
    for values, runs in groups.items():
        done = [r for run in runs if (r := results[run["index"]])]
        cells = [_spread([float(r[m]) for r in done if r.get(m) is not None]) for m in known]
        lines.append(_line([*json.loads(values).values(), f"{len(done)}/{len(runs)}", *cells]))
    return "\n".join(lines)


def _described(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "sweep.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: holds no sweep.json; give the folder that ddptrain sweep wrote") from None


def write_table(folder: Path) -> None:
    """Write the table of the runs so far to `table.md` in the sweep's folder."""
    write_text(folder / "table.md", table(folder) + "\n")


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(c) for c in cells) + " |"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.4f}"
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def _summary(run: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((run / "summary.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def run_here(folder: Path, nproc: int) -> int:
    """Train the runs of a sweep one after the other on this machine; those that have finished stay as they are.

    Returns:
        The highest exit status: 0 when all have finished; a stop ends the sweep with 75.
    """
    from launch.torchrun import run
    from launch.worker import again

    worst = 0
    for entry in _described(folder)["runs"]:
        path = folder / f"{entry['index']}.yaml"
        code = run(path, again(["train", str(path)])[2:], nproc)
        write_table(folder)
        if code == STOPPED:
            return code
        worst = max(worst, code)
    return worst


def submit(folder: Path, options: Mapping[str, Any], parallel: int | None, *, check_data: bool = True) -> str:
    """Queue the sweep as one array job; returns its number.

    Args:
        options: keys of the `slurm` section that take precedence over those of the config.
        parallel: runs at a time; None for all.
        check_data: refuse data folders that do not exist.

    Raises:
        UserError: one of the runs is refused, or Slurm refuses the job; nothing is left of the sweep then.
    """
    runs = _described(folder)["runs"]
    (folder / "scripts").mkdir()
    made: list[Job] = []
    try:
        for run in runs:
            code = Path(made[0].folder) / "code" if made else None
            path = folder / f"{run['index']}.yaml"
            made.append(submission.create(path, [], options, check_data=check_data, table=str(folder), code=code))
            (folder / "scripts" / f"{run['index']}.sh").write_text(sbatch.text(made[-1]))
        lines = ["#!/bin/bash", f'exec bash {shlex.quote(str(folder))}/scripts/"$SLURM_ARRAY_TASK_ID".sh', ""]
        (folder / "array.sh").write_text("\n".join(lines))
        array = f"--array=0-{len(runs) - 1}" + (f"%{parallel}" if parallel else "")
        number = sbatch.queue([*_shape(made), array, str(folder / "array.sh")])
    except UserError:
        shutil.rmtree(folder)
        for mine in made:
            submission.discard(mine)
        raise
    for run, mine in zip(runs, made):
        job.register(mine, f"{number}_{run['index']}")
    return number


def _shape(made: Sequence[Job]) -> list[str]:
    """The options of sbatch for all runs, with as many cores as the one that needs most."""
    wide = [replace(mine, cpus=max(m.cpus for m in made)) for mine in made]
    first, *others = ({k: v for k, v in sbatch.options(m).items() if k not in ("job-name", "output")} for m in wide)
    for other in others:
        if differing := sorted(k for k in {*first, *other} if first.get(k) != other.get(k)):
            raise UserError(
                f"--grid: the runs differ in sbatch's --{differing[0]}, and all runs of an array job have the same; submit "
                "them one by one with ddptrain submit"
            )
    return sbatch.arguments(wide[0])
