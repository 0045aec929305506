"""What the built-in tasks share: datasets that are read as tables of labels, whose classes become those of the run."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddptrain.config import DatasetConfig, resolve
from ddptrain.config.data import MixingAugment
from ddptrain.data.augment.partners import Partners
from ddptrain.data.formats.build import check
from ddptrain.data.samples.base import ImageSamples
from ddptrain.data.tables.base import RowTable
from ddptrain.data.tables.contents import Contents
from ddptrain.data.tables.faults import Faults, OnFault
from ddptrain.data.tables.labels import LabelSpace, classes_of
from ddptrain.data.tables.windows import Tiles
from ddptrain.errors import UserError
from ddptrain.reporting.page import Section, details
from ddptrain.system.printable import counted
from ddptrain.tasks.base import Task, View
from ddptrain.tasks.inspection.base import DataSet, Inspection, Part
from ddptrain.tasks.inspection.classes import class_warnings, refuse_no_truth, report_classes
from ddptrain.tasks.inspection.twins import report_duplicates
from ddptrain.tasks.stream import run_length, shares_of

SHOWN_FAULTS = 50


class TableTask(Task):
    """A task whose datasets are tables of labels. Each dataset is read once, whoever asks first: an inspection, the search for
    its classes, or the training.

    Attributes:
        unit: what is labelled, see `inspection.classes.PLURALS`.
        masked: loss and metrics leave out the classes that a dataset does not label.
        channels: of the network's input image.
        view_class: makes the view of such a task.
    """

    unit: str
    val_samples: ImageSamples[Any]
    view_class: Callable[[Any], View]
    masked = True
    channels = 3

    @cached_property
    def tables(self) -> dict[tuple[Part, str], tuple[Any, Faults]]:
        """Tables and faults of the datasets that were read, by part and name."""
        return {}

    @staticmethod
    @abstractmethod
    def read_table(config: Any, on_fault: OnFault) -> tuple[Any, Faults]:
        """The table of one dataset with its own classes, and its faults."""

    def apply(self, space: LabelSpace, table: Any, part: Part) -> tuple[Any, str]:
        """What is learned or scored of a table, with classes of the run; and what was left out, in words."""
        return space.apply(table), ""

    def notes_on(self, data: DataSet) -> list[str]:
        """Lines for the log about a dataset; raises `UserError` where nothing of it can be learned or scored."""
        size = f"{counted(len(data.own), 'image')}, {counted(len(data.own.names), 'class', 'classes')}"
        return [f"{data.title}: {size}; {data.faults.text()}"]

    @abstractmethod
    def facts(self, data: DataSet) -> dict[str, Any]:
        """What an inspection says of a dataset, plain values by name; a float is a fraction of 1."""

    def inspect(self, images: int) -> Inspection:
        out = Inspection()
        sets = self._inspect_datasets(out)
        if sets:
            self.inspect_labels(sets, out)
            report_duplicates(sets, images, out)
        return out

    def inspect_labels(self, sets: Sequence[DataSet], out: Inspection) -> None:
        """Report how often each class is labelled, and what is probably not meant about it."""
        counts = np.array([s.table.samples_by_class() for s in sets])
        report_classes(sets, self.config.classes, counts, self.unit, out)
        out.warnings += self.warnings(sets)

    def with_classes(self) -> Task:
        if self.config.classes:
            return self
        datasets = self.config.data.train
        classes = classes_of(datasets, [self._table("train", d, "drop")[0] for d in datasets])
        if not classes:
            raise UserError(
                "classes: auto: no training dataset has a class that is neither ignored nor dropped; check ignore and drop"
            )
        named = type(self)(resolve(json.loads(self.config.model_dump_json()) | {"classes": list(classes)}))
        named.tables = self.tables
        return named

    def warnings(self, sets: Sequence[DataSet]) -> list[str]:
        """What is probably not meant in the datasets of train and val, a line each."""
        return class_warnings(self.config.classes, sets, self.unit, self.masked)

    def datasets(self, part: Part) -> list[DataSet]:
        """The datasets of `data.train` or `data.val`, with their notes and contents; with `data.overfit` both are the same few
        training images."""
        images = self.config.data.overfit
        source = part if images is None else "train"
        sets = [self._dataset(source, i, self.config.data.on_fault) for i in range(len(self._configs(source)))]
        if images is not None:
            sets = few_images(sets, images, part)
        self.notes += [line for s in sets for line in self.notes_on(s)]
        self.notes += [f"{s.title}: its loss is weighted by {w:g}" for s, w in zip(sets, loss_weights(sets)) if w != 1]
        self.contents = [*self.contents, *(Contents(part, s.own) for s in sets)]
        return sets

    def accept(self, train: Sequence[DataSet], val: Sequence[DataSet]) -> None:
        """Refuse datasets from which nothing can be learned, and note warnings about the others."""
        self.val = [(s.config.name, len(s.table)) for s in val]
        sets = [*train, *val]
        refuse_no_truth(self.config.train.patience, sets, self.unit)
        self.notes += [f"warning: {line}" for line in self.warnings(sets)]

    def tiles(self, sets: Sequence[DataSet], cut: Callable[[Any, Any, int], Tiles]) -> list[Tiles | None]:
        """The tiles of training datasets, with notes on them; None for those that are not cut.

        Args:
            cut: makes them from a table, the config and `data.image_size`.
        """
        out: list[Tiles | None] = []
        for s in sets:
            config = s.config.tiles
            tiles = None if config is None else cut(s.table, config, self.config.data.image_size)
            if tiles is not None:
                self.notes += [f"{s.title}: {line}" for line in tiles.notes]
                self.notes += [f"warning: {s.title}: {line}" for line in tiles.warnings]
            out.append(tiles)
        return out

    def partners(self, augment: MixingAugment, *kinds: str) -> Partners | None:
        """Where augmentations that mix images (keys of `data.augment`) take the others from, with a note on how long they do;
        None where none is asked for."""
        epoch = self.sampler.mixture.samples_per_epoch
        chances = {kind: chance for kind in kinds if (chance := getattr(augment, kind))}
        if not chances:
            return None
        train = self.config.train
        end = run_length(train, epoch) * train.global_batch
        until = max(0.0, end - augment.close_epochs * epoch)
        if until:
            text = " and ".join(f"{kind} in {chance:.0%}" for kind, chance in chances.items())
            self.notes.append(f"{text} of the samples, during the first {until / epoch:.4g} of {end / epoch:.4g} epochs")
        else:
            self.notes.append(
                f"warning: {' and '.join(f'no {kind}' for kind in chances)}: data.augment.close_epochs is as long as the run, "
                f"{augment.close_epochs:g} epochs of {end / epoch:.4g}; set it lower, or remove {' and '.join(chances)}"
            )
        return Partners(self.sampler.keys, epoch, until, augment.pool)

    @property
    def view(self) -> View:
        return self.view_class(self)

    def described(self, metrics: Mapping[str, float], about: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that any `Outcome` has, its images those of the validation datasets."""
        tables = self.val_samples.tables
        return {
            "classes": tuple(self.classes),
            "datasets": tuple(name for name, _ in self.val),
            "dataset": np.repeat(np.arange(len(tables)), [len(t) for t in tables]),
            "images": tuple(name.decode("utf-8", "surrogateescape") for t in tables for name in t.names_below_root()),
            "metrics": metrics,
            "about": about,
        }

    def example_input(self) -> tuple[Tensor, ...]:
        """Two images, float32 `[2, C, S, S]` in 0..1."""
        side = self.config.data.image_size
        return (torch.rand(2, self.channels, side, side, generator=torch.Generator().manual_seed(0)),)

    def _inspect_datasets(self, out: Inspection) -> list[DataSet]:
        """All datasets that can be read, a row of a table each; the others, and the faults of all, are reported."""
        sets: list[DataSet] = []
        rows, folded = [], []
        columns: list[str] = []
        facts = out.facts["datasets"] = []
        for part, number in [(p, i) for p in PARTS for i in range(len(self._configs(p)))]:
            d = self._configs(part)[number]
            try:
                self._report_faults(part, d, out)
                data = self._dataset(part, number, "drop")
            except UserError as e:
                out.errors.append(f"{part}: {e}")
                continue
            sets.append(data)
            own = self.facts(data)
            columns = [name.replace("_", " ") for name in own]
            cells = [f"{100 * value:.1f} %" if isinstance(value, float) else value for value in own.values()]
            rows.append([part, d.name, d.format, len(data.own), *cells, data.faults.text()])
            about = {"part": part, "name": d.name, "format": d.format, "images": len(data.own)}
            facts.append(about | own | {"faults": dict(data.faults.counts)})
            shown = [str(f) for f in data.faults.kept[:SHOWN_FAULTS]]
            if shown:
                total = counted(sum(data.faults.counts.values()), "fault")
                folded.append(details(f"{data.title}: {total}, {len(shown)} shown", shown))
        out.sections.append(Section("Datasets", [], ("part", "dataset", "format", "images", *columns, "faults"), rows, folded))
        return sets

    def _report_faults(self, part: Part, d: DatasetConfig, out: Inspection) -> None:
        """An error or a warning, as `data.on_fault` says, about the faults of one dataset that would end a run."""
        faults = self._table(part, d, "drop")[1]
        first = next(faults.errors(), None)
        if first is None:
            return
        line = f"{part} {d.name}: {faults.tally(error=True)}; the first: {first}"
        if self.config.data.on_fault == "error":
            out.errors.append(f"{line}; correct the files, or set data.on_fault=drop")
        else:
            out.warnings.append(line)

    def _configs(self, part: Part) -> tuple[DatasetConfig, ...]:
        return self.config.data.train if part == "train" else self.config.data.val

    def _table(self, part: Part, d: DatasetConfig, on_fault: OnFault) -> tuple[Any, Faults]:
        if (part, d.name) not in self.tables:
            self.tables[part, d.name] = self.read_table(d, on_fault)
        table, faults = self.tables[part, d.name]
        check(d, table, faults, on_fault)  # it may have been read before, whatever its faults
        return table, faults

    def _dataset(self, part: Part, number: int, on_fault: OnFault) -> DataSet:
        d = self._configs(part)[number]
        own, faults = self._table(part, d, on_fault)
        space = LabelSpace.build(self.config.classes, [d], [own])
        table, left_out = self.apply(space, own, part)
        return DataSet(part, number, d, table, space.annotated[0], own, faults, left_out)


def few_images(sets: Sequence[DataSet], images: int, part: Part) -> list[DataSet]:
    """Training datasets with so many of their images, divided by their shares (at least one of each that is drawn), in the
    place of those of a part; what is never drawn is not evaluated.

    Raises:
        UserError: there are fewer, or the samples are not whole images.
    """
    if not all(isinstance(s.table, RowTable) for s in sets):
        raise UserError("data.overfit works only for detection and classification; remove it")
    drawn = [s for s in sets if s.config.share != 0]
    shares = shares_of([s.config for s in drawn]) or [float(len(s.table)) for s in drawn]
    counts = divide(images, shares)
    for s, count in zip(drawn, counts):
        if count > len(s.table):
            raise UserError(f"data.overfit: {images} takes {count} images of {s.config.name}, which has {len(s.table)}")
    few = {s.number: count for s, count in zip(drawn, counts)}
    return [
        s._replace(part=part, table=_spread(s.table, few.get(s.number))) for s in sets if s.number in few or part == "train"
    ]


def _spread(table: RowTable, count: int | None) -> RowTable:
    """A table with so many of its images, evenly spread; None for all."""
    if count is None:
        return table
    keep = np.zeros(len(table), bool)
    keep[np.arange(count) * len(table) // count] = True
    return table.keep_images(keep)


def divide(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers of at least 1 in about the ratio of some shares, that sum to `total` where it is large enough."""
    ends = [round(total * sum(shares[: i + 1]) / sum(shares)) for i in range(len(shares))]
    return [max(1, end - begin) for begin, end in zip([0, *ends], ends)]


PARTS: tuple[Part, ...] = ("train", "val")


def loss_weights(sets: Sequence[DataSet]) -> tuple[float, ...]:
    """The factor on the loss of the samples of each dataset; none where all are 1."""
    weights = tuple(s.config.loss_weight for s in sets)
    return weights if any(w != 1 for w in weights) else ()


def annotated(sets: Sequence[DataSet]) -> np.ndarray:
    """bool `[datasets, C]`: the classes that each dataset labels."""
    return np.array([s.annotated for s in sets])
