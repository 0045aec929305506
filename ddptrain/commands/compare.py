"""`ddptrain compare`: which of two runs is better, from their stored evaluations; needs neither a GPU nor torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.errors import UserError
from ddptrain.metrics.compare import Comparison, compare, in_words
from ddptrain.metrics.outcome import Outcome, read_outcome
from ddptrain.reporting.table import Table
from ddptrain.system.printable import counted, say, warn


def compare_runs(runs: Sequence[Path], against: Sequence[Path], metric: str | None, seed: int, as_json: bool) -> int:
    """Compare two sides, each one run or several that differ in their seeds, and print the verdict.

    Args:
        runs: the second side; without `against` two runs, first and second, or the folder of a sweep.
        against: the first side, which the others are compared with.
        metric: such as `AP50`, `class/car/AP` or `dataset/city/AP`; None for the task's first.
    """
    if not against and len(runs) == 1 and (runs[0] / "sweep.json").is_file():
        lines = compare_sweep(runs[0], metric, seed)
        if as_json:
            print(json.dumps({"text": lines}, indent=1))
        for line in lines if not as_json else ():
            say(line)
        return 0
    if not against and len(runs) != 2:
        raise UserError(
            f"compare: {counted(len(runs), 'run')} and nothing to compare with; give two runs, a sweep's folder, or "
            "several on each side as RUN … --against RUN …"
        )
    first, second = (list(against), list(runs)) if against else ([runs[0]], [runs[1]])
    names = _side(first), _side(second)
    sides = [_read(side) for side in (first, second)]
    metric, result = compare_sides(sides[0], sides[1], metric, seed)
    verdict = in_words(result, metric, *names)
    if as_json:
        print(json.dumps(_plain(result, metric, verdict), indent=1))
        return 0
    rows = [
        [str(path), of.about.get("step"), of.about.get("weights"), value]
        for paths, outcomes, values in zip((first, second), sides, (result.first, result.second))
        for path, of, value in zip(paths, outcomes, values)
    ]
    print(Table(("run", "step", "weights", metric), rows).text(4))
    for line in [*verdict, _basis(result, 1 if metric.startswith("dataset/") else len(sides[0][0].datasets))]:
        say(line)
    return 0


def compare_sweep(folder: Path, metric: str | None = None, seed: int = 0) -> list[str]:
    """A verdict for each combination of a sweep against its first, or a line that says why there is none."""
    described = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    groups: dict[str, list[Path]] = {}
    for run in described["runs"]:
        name = ", ".join(f"{k}={v}" for k, v in run["values"].items()) or "the config"
        groups.setdefault(name, []).append(Path(run["run"]))
    (first, base), *others = groups.items()
    lines = []
    for name, runs in others:
        try:
            used, result = compare_sides(_read(base), _read(runs), metric, seed)
        except UserError as e:
            lines.append(f"{name} against {first}: not compared: {e}")
        else:
            lines += in_words(result, used, f"[{first}]", f"[{name}]")
    return lines


def _side(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"[{' '.join(map(str, paths))}]"


def _read(paths: Sequence[Path]) -> list[Outcome]:
    return [read_outcome(path) for path in paths]


def compare_sides(first: Sequence[Outcome], second: Sequence[Outcome], metric: str | None, seed: int) -> tuple[str, Comparison]:
    """The metric and the comparison; raises `UserError` where the runs or the metric cannot be compared."""
    base = first[0]
    for other in [*first[1:], *second]:
        _refuse_others(base, other)
    weights = {str(o.about.get("weights")) for o in (*first, *second)}
    if len(weights) > 1:
        warn(f"compare: weights of different kinds ({', '.join(sorted(weights))}); ddptrain eval RUN evaluates the best ones")
    metric = metric or base.keys[0]
    part = next((d for d in base.datasets if metric.startswith(f"dataset/{d}/")), None)
    name = metric.removeprefix(f"dataset/{part}/")
    key = name.rsplit("/", 1)[-1]
    resampled = [key, *(f"class/{c}/{key}" for c in base.classes if base.kind == "boxes")]
    if key not in base.keys or name not in resampled or not all(metric in o.metrics for o in (*first, *second)):
        scopes = ("class/" + base.classes[0],) if base.kind == "boxes" else ()
        others = " or ".join(f"{scope}/{base.keys[0]}" for scope in (*scopes, f"dataset/{base.datasets[0]}"))
        raise UserError(
            f"--metric {metric}: cannot be resampled over images; give one of {', '.join(base.keys)}, or one such as {others}"
        )
    a, b = ([float(o.metrics[metric]) for o in side] for side in (first, second))
    if np.isnan([*a, *b]).any():
        raise UserError(f"--metric {metric}: is undefined in these evaluations: there is no ground truth")
    draws_a, draws_b = ([o.draws([key], seed, part=part)[name] for o in side] for side in (first, second))
    images = len(base.images) if part is None else int(base.of_dataset(part).sum())
    return metric, compare(a, b, draws_a, draws_b, images, seed)


def _refuse_others(a: Outcome, b: Outcome) -> None:
    """Raise where two evaluations are not of the same images, classes and truth."""
    again = "evaluate both on the same datasets (ddptrain eval RUN) and compare again"
    for what, mine, theirs in (("classes", a.classes, b.classes), ("datasets", a.datasets, b.datasets)):
        if list(mine) != list(theirs):
            raise UserError(f"compare: different {what}: {', '.join(mine)} and {', '.join(theirs)}; {again}")
    if list(a.images) != list(b.images):
        alone = next(iter(sorted(set(a.images) ^ set(b.images))), "none, but in another order")
        raise UserError(
            f"compare: different images: {len(a.images)} and {len(b.images)}, the first that only one has: {alone}; {again}"
        )
    if a.kind != b.kind or a.truth() != b.truth():
        raise UserError(f"compare: the same images with different labels; {again}")


def _basis(c: Comparison, datasets: int) -> str:
    seeds = (
        "" if len(c.first) + len(c.second) == 2 else f", {len(c.first)} and {len(c.second)} seeds (error {c.seed_error:.4f})"
    )
    images = f"{counted(c.images, 'image')} in {counted(datasets, 'dataset')}"
    return f"1000 paired draws of {images} (error {c.image_error:.4f}){seeds}"


def _plain(c: Comparison, metric: str, verdict: Sequence[str]) -> dict[str, Any]:
    return {
        "metric": metric,
        "first": list(c.first),
        "second": list(c.second),
        "difference": c.difference,
        "low": c.low,
        "high": c.high,
        "verdict": c.verdict,
        "images": c.images,
        "images_needed": c.images_needed(),
        "seeds_needed": c.seeds_needed(),
        "text": list(verdict),
    }
