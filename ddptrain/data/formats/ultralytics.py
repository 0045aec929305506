"""A data.yaml of several folders as the `classes` and `data` of a run: one dataset for each folder of its `train` and
`val`, with the shares and depth folders that its extra keys `train_weights`, `train_depth` and `val_depth` ask for.

All of them list all classes, but a label file holds those that somebody drew: `annotated` of a dataset lists the classes that
its label files hold, in train and val together. Roots are absolute, so that the config works from any folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ddptrain.config import DetectionDataset
from ddptrain.data.formats.cache import read_cached
from ddptrain.data.formats.data_yaml import DataYaml, load_data_yaml, resolve_paths, resolve_split
from ddptrain.data.formats.files import images_below
from ddptrain.data.formats.texts import listed_names
from ddptrain.data.formats.yolo_folders import joined_folders
from ddptrain.data.inspect.statistics import FOLDERS
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError
from ddptrain.system.printable import counted, first_few

Weights = Literal["share", "multiplier"]
GENERIC = ("images", "train", "val", "valid", "test", "..", ".", "/")  # parts of a path that name no dataset


def data_section(file: Path, weights: Weights | None = None) -> dict[str, Any]:
    """`{"classes": …, "data": {"train": …, "val": …}}` as a config file holds them.

    `weights`: what the numbers of `train_weights` mean: `share`, the proportions of the drawn samples, or `multiplier`,
    how often each sample of a folder is drawn compared to others. `UserError` where they are given, `weights` is not,
    and the two readings differ; it says what each would give.
    """
    data = load_data_yaml(file)
    if data.names is None:
        raise UserError(f"{file}: has no names; list its classes there")
    lacking = [key for key in ("train", "val") if key not in data.splits]
    if lacking:
        raise UserError(f"{file}: has no {lacking[0]}; give its folder of images")
    train, val = _datasets(data, "train"), _datasets(data, "val")
    shares = _shares(data, weights)
    for dataset, share in zip(train, shares):
        dataset["share"] = share
    _add_annotated(data.names, [*train, *val])
    return {"classes": list(data.names), "data": {"train": train, "val": val}}


def unlabelled(section: dict[str, Any]) -> list[str]:
    """A line for each dataset of a `data_section` that does not label all classes, or not all in each of its folders."""
    out = []
    for part in ("train", "val"):
        for d in section["data"][part]:
            lacking = [c for c in section["classes"] if c not in d["annotated"]]
            if lacking:
                out.append(
                    f"{part} {d['name']}: its label files hold no {', '.join(lacking)}: unknown there, not background; where "
                    "it really has none, add them to annotated"
                )
            config = DetectionDataset.model_validate({k: v for k, v in d.items() if k != "annotated"})
            table, _ = read_cached(config, "drop")
            known, none = np.isin(table.names, d["annotated"]), np.zeros(len(table.names), np.int64)
            gaps = joined_folders(config, table).gaps(table, known, none, none)
            if gaps:
                shown = first_few(gaps, "folder", "; ", FOLDERS)
                out.append(
                    f"{part} {d['name']}: {shown}; what a folder shows without a label counts as "
                    f"background: make a list of images for each folder, and list them under {part} in {d['annotations']}"
                )
    return out


def _add_annotated(classes: Sequence[str], datasets: Sequence[dict[str, Any]]) -> None:
    """The classes that occur in all that has the name of the dataset; a part that shows none of one may be small."""
    occurring_in: dict[str, set[str]] = {}
    for d in datasets:
        table, _ = read_cached(DetectionDataset.model_validate(d), "drop")
        occurring = np.flatnonzero(table.samples_by_class()).tolist()
        occurring_in.setdefault(d["name"], set()).update(table.names[c] for c in occurring)
    for d in datasets:
        d["annotated"] = [c for c in classes if c in occurring_in[d["name"]]]


def _datasets(data: DataYaml, key: str) -> list[dict[str, Any]]:
    sources = resolve_split(data, key)
    depths = _depths(data, key, len(sources))
    root = data.file.parent.absolute()
    datasets: list[dict[str, Any]] = []
    for i, source in enumerate(sources):
        parts = [p for p in Path(data.splits[key][i]).with_suffix("").parts if p not in GENERIC]
        name = "_".join("_".join(parts).split()) or key
        if name in [d["name"] for d in datasets]:
            name = f"{name}_{i}"
        dataset = {"name": name, "format": "yolo", "root": str(root), "annotations": data.file.name}
        datasets.append({**dataset, "images": os.path.relpath(source, root)})
        if depths:
            datasets[i]["depth"] = os.path.relpath(depths[i], root)
    return datasets


def _depths(data: DataYaml, key: str, count: int) -> list[Path]:
    """Depth folders of a split, one for each of its folders; empty where the file has none."""
    value = data.content.get(f"{key}_depth")
    if value is None:
        return []
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(e, str) for e in entries):
        raise UserError(f"{data.file}: {key}_depth must be a path or a list of paths")
    if len(entries) != count:
        raise UserError(
            f"{data.file}: {key}_depth has {counted(len(entries), 'folder')} and {key} has {count}; give one for each"
        )
    return resolve_paths(data, f"{key}_depth", entries)


def _shares(data: DataYaml, weights: Weights | None) -> list[float]:
    """A share for each training folder; empty where the file has no `train_weights` (all samples count alike)."""
    given = data.content.get("train_weights")
    if given is None:
        return []
    numbers = given if isinstance(given, list) else [given]
    if not all(isinstance(n, (int, float)) and not isinstance(n, bool) and 0 <= n < float("inf") for n in numbers):
        raise UserError(f"{data.file}: train_weights must be a list of numbers that are 0 or above")
    sources = resolve_split(data, "train")
    if len(numbers) != len(sources):
        both = counted(len(numbers), "number"), counted(len(sources), "folder")
        raise UserError(f"{data.file}: train_weights has {both[0]} and train has {both[1]}; give one each")
    if not any(numbers):
        raise UserError(f"{data.file}: all train_weights are 0; at least one must be above")
    counts = [len(images_below(s, Faults())) if s.is_dir() else len(listed_names(s)) for s in sources]
    readings = {"share": list(numbers), "multiplier": [n * count for n, count in zip(numbers, counts)]}
    if weights is not None:
        return readings[weights]
    percentages = {name: _percentages(values) for name, values in readings.items()}
    if percentages["share"] != percentages["multiplier"]:
        raise UserError(
            f"{data.file}: train_weights {numbers} over folders of {counts} images can mean two things: shares of the"
            f" drawn samples ({percentages['share']}) or a multiplier for each sample ({percentages['multiplier']}); say which:"
            " share or multiplier (--weights)"
        )
    return readings["share"]


def _percentages(values: list[float]) -> str:
    total = sum(values) or 1
    return " : ".join(f"{100 * v / total:.1f} %" for v in values)
