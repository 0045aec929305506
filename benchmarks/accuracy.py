"""What the detector reaches, ours and the usual package's in one run on one machine; or what each of some keys is worth.

    python -m venv peer && peer/bin/pip install ultralytics
    python benchmarks/accuracy.py --peer peer/bin/python [--seeds 0 1 2] [--jobs 2]
    python benchmarks/accuracy.py --rows benchmarks/ablation.yaml [NAME …] [--jobs 2] [CONFIG …]

CONFIG: by default BCCD at 320 pixels and the aerial vehicles at 416, 40 epochs each. The first form trains them as they are and
scores the images of `data.val`, also after every few epochs; `--peer` is a Python in whose environment the usual package is,
whose YOLO11n is trained from its YAML, from scratch, on the same images and for as many epochs, with its own defaults (batches
of 16, whose gradients it adds up to 64). Both are scored by this package's AP after their last epoch. The second form trains a
row for each entry of a file (a name, and changes to the config) on a part of the training images; another part of them, drawn
by a fixed hash of the file's name, is scored. So the images of `data.val` choose nothing.

Each training is a process of its own with one thread, and its CPU time is what the system says. Whatever has ended is not
trained again, and the tables (Markdown, in the output folder) are written after each training.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from trained import Trained, all_of, train_own, train_peer

from ddptrain.commands.convert import convert
from ddptrain.config import DetectionRun, load_config

CONFIGS = [Path("configs/bench/bccd.yaml"), Path("configs/bench/aerial.yaml")]
HELD = 0.25
"""Part of the training images on which the rows of an ablation are scored."""
Results = dict[str, dict[int, Trained]]
"""By the name of a row and the seed."""


class DataSet:
    """The first dataset of a config's `data.train` and `data.val` in the YOLO layout, in links.

    Attributes:
        root: its folder, whose data.yaml splits the training images only.
        parts: the images of the splits there.
        yaml: a data.yaml of all images.
        scored: list of the images of `data.val`.
    """

    def __init__(self, run: DetectionRun, folder: Path, share: float) -> None:
        (train, *others), (val, *more) = run.data.train, run.data.val
        if others or more or train.root != val.root or None in (train.split, val.split):
            raise SystemExit(f"{run.name}: must have one dataset, with a split for training and one for validation")
        if not folder.exists():
            splits = (str(train.split), str(val.split))
            convert(train.format, "yolo", train.root, folder, splits=splits, names=train.names, on_fault="drop")
        names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
        self.root, self.yaml, self.scored = folder, folder / "all.yaml", folder / "scored.txt"
        own, scored = (f"images/{part.split}" for part in (train, val))
        everything = {"path": str(folder.resolve()), "train": own, "val": scored, "names": names}
        self.yaml.write_text(yaml.safe_dump(everything))
        images = _images(folder / own)
        places = [int(sha256(p.name.encode()).hexdigest()[:8], 16) / 2**32 for p in images]
        kept = [p for p, at in zip(images, places) if HELD <= at < HELD + share * (1 - HELD)]
        self.parts = {"train": kept, "val": [p for p, at in zip(images, places) if at < HELD]}
        for name, listed in [*self.parts.items(), ("scored", _images(folder / scored))]:
            (folder / f"{name}.txt").write_text("".join(f"{p}\n" for p in listed))
        parts = {split: f"{split}.txt" for split in self.parts}
        (folder / "data.yaml").write_text(yaml.safe_dump({"names": names} | parts))


def _images(folder: Path) -> list[Path]:
    return sorted(p.absolute() for p in folder.iterdir())


def against_peer(path: Path, options: argparse.Namespace) -> tuple[str, Results, list[Callable[[], None]]]:
    """The title, the results as they come, and the trainings that fill them, of ours and the usual package's."""
    run, content = _load(path), yaml.safe_load(path.read_text())
    out, every = options.out / run.name, [f"eval.every_epochs={options.every}"]
    results: Results = {"ours": {}} | ({"usual package": {}} if options.peer else {})
    data = DataSet(run, out / "yolo", 1) if options.peer else None

    def own(seed: int) -> None:
        changes = [*every, *options.set, f"seed={seed}"]
        results["ours"][seed] = train_own(content, changes, out / f"ours_{seed}")

    def peer(seed: int) -> None:
        assert data is not None
        where = out / f"peer_{seed}"
        changes = dict(change.split("=", 1) for change in options.peer_set)
        results["usual package"][seed] = train_peer(options.peer, data.yaml, data.scored, run, seed, path, where, changes)

    trainings = [partial(train, seed) for seed in options.seeds for train in ([peer] if data else []) + [own]]
    title = f"{run.name}: {run.data.image_size} px, {run.train.epochs:g} epochs"
    return title, results, trainings


def ablation(path: Path, rows: Mapping[str, Sequence[str]], options: argparse.Namespace) -> tuple[str, Results, list[Any]]:
    """The same of some rows."""
    run, content = _load(path), yaml.safe_load(path.read_text())
    out, results = options.out / run.name, Results((name, {}) for name in rows)
    data = DataSet(run, out / "yolo", options.part)
    for part in ("train", "val"):
        content["data"][part] = [{"name": run.name, "format": "yolo", "root": str(data.root), "split": part}]
    length = [f"train.epochs={options.epochs}"] if options.epochs else []

    def train(name: str, seed: int) -> None:
        changes = ["eval.every_epochs=null", *length, *options.set, *rows[name], f"seed={seed}"]
        folder = out / f"rows_{options.part:g}_{options.epochs or run.train.epochs:g}"
        results[name][seed] = train_own(content, changes, folder / f"{'_'.join(name.split())}_{seed}")

    trainings = [partial(train, name, seed) for seed in options.seeds for name in rows]
    sizes = [len(images) for images in data.parts.values()]
    epochs = options.epochs or run.train.epochs
    title = f"{run.name}: {run.data.image_size} px, {epochs:g} epochs on {sizes[0]} images, scored on {sizes[1]} others"
    return title, results, trainings


def _load(path: Path) -> DetectionRun:
    run = load_config(path)
    assert isinstance(run, DetectionRun)
    return run


def table(title: str, results: Results) -> Iterator[str]:
    """A Markdown table of what has ended; AP in percent."""
    peer = results.get("usual package", {})
    beaten, first = _mean_ap(peer), _mean_ap(next(iter(results.values())))
    head = ["", "AP", "to the first", "AP50", "APs", "AP by seed", "CPU s"]
    head += ["passed at epoch", "after CPU s", "of its CPU time"] if peer else []
    yield from (title, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head))
    for name, by_seed in results.items():
        if not by_seed:
            continue
        each = [by_seed[seed] for seed in sorted(by_seed)]
        cpu = statistics.mean(t.cpu for t in each)
        cells, own = [_mean(each, metric) for metric in ("AP", "AP50", "APs")], _mean_ap(by_seed)
        cells.insert(1, f"{own - first:+.1f}" if first is not None and own is not None else "")
        cells += [", ".join(f"{100 * t.metrics['AP']:.1f}" for t in each), f"{cpu:.0f}"]
        if beaten is not None:
            passed = [t.passed(beaten / 100) for t in each] if name == "ours" else []
            known = [p for p in passed if p is not None]
            if known and len(known) == len(passed):
                epoch, seconds = (statistics.mean(values) for values in zip(*known))
                part = seconds / statistics.mean(t.cpu for t in peer.values())
                cells += [f"{epoch:.0f}", f"{seconds:.0f}", f"{100 * part:.0f} %"]
            else:
                cells += ["never" if passed else "", "", ""]
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def _mean_ap(by_seed: Mapping[int, Trained]) -> float | None:
    return 100 * statistics.mean(t.metrics["AP"] for t in by_seed.values()) if by_seed else None


def _mean(each: Sequence[Trained], metric: str) -> str:
    values = [100 * t.metrics[metric] for t in each if metric in t.metrics]
    return f"{statistics.mean(values):.1f}" if values else ""


def read_rows(words: Sequence[str]) -> dict[str, list[str]]:
    """The rows of a file, or of those only that are named after it."""
    path, *names = words
    rows = yaml.safe_load(Path(path).read_text())
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise SystemExit(f"--rows: {unknown[0]} is not in {path}, which has {', '.join(rows)}")
    return {name: list(rows[name] or ()) for name in names or rows}


def main() -> None:
    parser = argparse.ArgumentParser(description="AP and CPU time, beside the usual package's, or of rows of changes.")
    parser.add_argument("configs", nargs="*", type=Path, metavar="CONFIG")
    parser.add_argument("--peer", metavar="PYTHON", help="of an environment with the usual package")
    parser.add_argument("--peer-set", nargs="+", default=[], metavar="key=value", help="changes to its own defaults")
    parser.add_argument("--rows", nargs="+", metavar=("FILE", "NAME"), help="an ablation: YAML of names and lists of key=value")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--every", type=float, default=2, help="epochs between evaluations of ours beside the peer")
    parser.add_argument("--part", type=float, default=1, help="of the images that a row may train on, so many are taken")
    parser.add_argument("--epochs", type=float, help="of the rows, instead of the config's")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="changes to all trainings of ours")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    options = parser.parse_args()
    configs, rows = options.configs or CONFIGS, read_rows(options.rows) if options.rows else None
    made = [against_peer(c, options) if rows is None else ablation(c, rows, options) for c in configs]
    report = options.out / ("accuracy.md" if rows is None else "ablation.md")

    def then_report(training: Callable[[], None]) -> None:
        training()
        report.write_text("\n".join(line for title, results, _ in made for line in table(title, results)))

    all_of([partial(then_report, t) for _, _, trainings in made for t in trainings], options.jobs)
    print(report.read_text())


if __name__ == "__main__":
    main()
