"""What the detector reaches, ours and the usual package's in one run on one machine; or what each of some keys is worth.

    python -m venv peer && peer/bin/pip install ultralytics
    python benchmarks/accuracy.py --peer peer/bin/python [--seeds 0 1 2] [--jobs 2]
    python benchmarks/accuracy.py --rows benchmarks/ablation.yaml [NAME …] [--jobs 2] [CONFIG …]
    python benchmarks/accuracy.py --rows benchmarks/small_objects.yaml [NAME …] --final [--peer …] [--jobs 2] [CONFIG …]

CONFIG: by default BCCD at 320 pixels and the aerial vehicles at 416, 40 epochs each. The first form trains them as they are and
scores the images of `data.val`, also after every few epochs; `--peer` is a Python in whose environment the usual package is.
Its models (`--peer-models`, YOLO11n by default) are trained from their YAML, from scratch, on the same images and for as many
epochs, with its own defaults (batches of 16, whose gradients it adds up to 64). Both are scored by this package's AP after
their last epoch. The second form trains a row for each entry of a file (a name, and changes to the config) on a part of the
training images; another part of them, drawn by a fixed hash of the file's name, is scored. So the images of `data.val` choose
nothing. The third form trains rows as the first does: on all images, scored on those of `data.val`.

A quarter of a dataset without splits, drawn by the same hash, takes the place of `data.val`.

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
PEER = "usual package"
Results = dict[str, dict[int, Trained]]
"""By the name of a row and the seed."""


class DataSet:
    """The first dataset of a config's `data.train` and `data.val` in the YOLO layout, in links.

    Attributes:
        root: its folder, whose data.yaml splits the training images, or all of them where the dataset has no splits.
        parts: the images of the splits there.
        yaml: a data.yaml of what is trained on and scored in the end.
        scored: list of the images that are scored in the end: those of `data.val`, or `parts["val"]`.
    """

    def __init__(self, run: DetectionRun, folder: Path, share: float) -> None:
        (train, *others), (val, *more) = run.data.train, run.data.val
        if others or more or train.root != val.root or (train.split is None) != (val.split is None):
            raise SystemExit(f"{run.name}: must have one dataset, with a split for training and one for validation, or none")
        splits = None if train.split is None else (train.split, str(val.split))
        if not folder.exists():
            convert(train.format, "yolo", train.root, folder, splits=splits, names=train.names, on_fault="drop")
        names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
        own, *held = [f"images/{split}" for split in splits] if splits else ["images"]
        images = _images(folder / own)
        places = [int(sha256(p.name.encode()).hexdigest()[:8], 16) / 2**32 for p in images]
        kept = [p for p, at in zip(images, places) if HELD <= at < HELD + share * (1 - HELD)]
        self.parts = {"train": kept, "val": [p for p, at in zip(images, places) if at < HELD]}
        for name, listed in [*self.parts.items(), *(("scored", _images(folder / part)) for part in held)]:
            (folder / f"{name}.txt").write_text("".join(f"{p}\n" for p in listed))
        self.root, self.yaml, self.scored = folder, folder / "all.yaml", folder / ("scored.txt" if held else "val.txt")
        parts = {split: f"{split}.txt" for split in self.parts}
        everything = {"train": own, "val": held[0]} if held else parts
        self.yaml.write_text(yaml.safe_dump({"path": str(folder.resolve()), "names": names} | everything))
        (folder / "data.yaml").write_text(yaml.safe_dump({"names": names} | parts))


def _images(folder: Path) -> list[Path]:
    return sorted(p.absolute() for p in folder.iterdir())


def final(path: Path, rows: Mapping[str, Sequence[str]], options: argparse.Namespace) -> tuple[str, Results, list[Any]]:
    """The title, the results as they come, and the trainings that fill them, of ours and the usual package's."""
    run, content = _load(path), yaml.safe_load(path.read_text())
    out = options.out / run.name
    models = options.peer_models if options.peer else []
    results: Results = {name: {} for name in [*rows, *map(_peer_name, models)]}
    unsplit = run.data.val[0].split is None
    data = DataSet(run, out / "yolo", 1) if models or unsplit else None
    if data and unsplit:
        _use(content, run, data)
        path = out / "split.yaml"
        path.write_text(yaml.safe_dump(content))

    def own(name: str, seed: int) -> None:
        changes = [f"eval.every_epochs={options.every}", *options.set, *rows[name], f"seed={seed}"]
        results[name][seed] = train_own(content, changes, out / _folder(name, seed))

    def peer(model: str, seed: int) -> None:
        assert data is not None
        changes = {"model": model} | dict(change.split("=", 1) for change in options.peer_set)
        where = out / _folder(f"peer {Path(model).stem}", seed)
        results[_peer_name(model)][seed] = train_peer(options.peer, data.yaml, data.scored, run, seed, path, where, changes)

    each = [(peer, model) for model in models] + [(own, name) for name in rows]
    trainings = [partial(train, which, seed) for seed in options.seeds for train, which in each]
    title = f"{run.name}: {run.data.image_size} px, {run.train.epochs:g} epochs"
    return title, results, trainings


def ablation(path: Path, rows: Mapping[str, Sequence[str]], options: argparse.Namespace) -> tuple[str, Results, list[Any]]:
    """The same of some rows on a part of the training images."""
    run, content = _load(path), yaml.safe_load(path.read_text())
    out, results = options.out / run.name, Results((name, {}) for name in rows)
    data = DataSet(run, out / "yolo", options.part)
    _use(content, run, data)
    length = [f"train.epochs={options.epochs}"] if options.epochs else []

    def train(name: str, seed: int) -> None:
        changes = ["eval.every_epochs=null", *length, *options.set, *rows[name], f"seed={seed}"]
        folder = out / f"rows_{options.part:g}_{options.epochs or run.train.epochs:g}"
        results[name][seed] = train_own(content, changes, folder / _folder(name, seed))

    trainings = [partial(train, name, seed) for seed in options.seeds for name in rows]
    sizes = [len(images) for images in data.parts.values()]
    epochs = options.epochs or run.train.epochs
    title = f"{run.name}: {run.data.image_size} px, {epochs:g} epochs on {sizes[0]} images, scored on {sizes[1]} others"
    return title, results, trainings


def _use(content: dict[str, Any], run: DetectionRun, data: DataSet) -> None:
    """Make the parts of a dataset those of a config."""
    for part in ("train", "val"):
        content["data"][part] = [{"name": run.name, "format": "yolo", "root": str(data.root), "split": part}]


def _folder(name: str, seed: int) -> str:
    return f"{'_'.join(name.split())}_{seed}"


def _peer_name(model: str) -> str:
    return f"{PEER}, {Path(model).stem}"


def _load(path: Path) -> DetectionRun:
    run = load_config(path)
    assert isinstance(run, DetectionRun)
    return run


def table(title: str, results: Results) -> Iterator[str]:
    """A Markdown table of what has ended; AP in percent."""
    peer = next((by_seed for name, by_seed in results.items() if name.startswith(PEER)), {})
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
            passed = [t.passed(beaten / 100) for t in each] if not name.startswith(PEER) else []
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
    parser.add_argument("--peer-models", nargs="+", default=["yolo11n.yaml"], metavar="YAML", help="of that package")
    parser.add_argument("--peer-set", nargs="+", default=[], metavar="key=value", help="changes to its own defaults")
    parser.add_argument("--rows", nargs="+", metavar=("FILE", "NAME"), help="an ablation: YAML of names and lists of key=value")
    parser.add_argument("--final", action="store_true", help="train the rows on all images and score data.val")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--every", type=float, default=2, help="epochs between evaluations of ours that score data.val")
    parser.add_argument("--part", type=float, default=1, help="of the images that a row may train on, so many are taken")
    parser.add_argument("--epochs", type=float, help="of the rows, instead of the config's")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="changes to all trainings of ours")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    options = parser.parse_args()
    configs, rows = options.configs or CONFIGS, read_rows(options.rows) if options.rows else None
    on_part = rows is not None and not options.final
    if options.final and rows is None:
        parser.error("--final: is for rows; name their file with --rows")
    if on_part and options.peer:
        parser.error("--peer: is not trained on a part of the images; add --final, or leave it out")
    if not on_part and (options.part != 1 or options.epochs):
        parser.error("--part, --epochs: are for rows on a part of the images; use --set train.epochs=N, or leave them out")
    made = [ablation(c, rows, options) if rows and on_part else final(c, rows or {"ours": []}, options) for c in configs]
    report = options.out / ("ablation.md" if on_part else "accuracy.md")

    def then_report(training: Callable[[], None]) -> None:
        training()
        report.write_text("\n".join(line for title, results, _ in made for line in table(title, results)))

    all_of([partial(then_report, t) for _, _, trainings in made for t in trainings], options.jobs)
    print(report.read_text())


if __name__ == "__main__":
    main()
