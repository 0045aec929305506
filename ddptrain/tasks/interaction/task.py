"""Interaction of people in panoramas, in two stages: which pairs interact, then how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.config import InteractionConfig, RunConfig
from ddptrain.data.augment.view import View
from ddptrain.data.formats.jrdb import around_the_seam, people_of, read_jrdb
from ddptrain.data.images.read import BadImage, read_image
from ddptrain.data.samples.interaction import PairSamples, crops
from ddptrain.data.tables.contents import Contents
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.data.tables.pairs import FEATURES, PairTable, find_pairs, geometry, is_candidate
from ddptrain.data.tables.people import PeopleTable
from ddptrain.errors import UserError
from ddptrain.models.interaction import InteractionModel
from ddptrain.reporting import panorama
from ddptrain.structures import Batch, Sample, SampleKey
from ddptrain.tasks.base import Prediction, file_name
from ddptrain.tasks.inspection.base import data_sets
from ddptrain.tasks.inspection.classes import class_warnings, refuse_no_truth
from ddptrain.tasks.labels import LabelModel, LabelTask

STAGE_1 = ("not interacting", "interacting")
CHUNK = 64
"""Pairs that are predicted at once."""


class InteractionPredictor(LabelModel):
    """The half of the task that needs no datasets."""

    def __init__(self, config: RunConfig) -> None:
        assert isinstance(config.model, InteractionConfig)
        self.stage = config.model.stage
        self.model_config = config.model
        super().__init__(config, STAGE_1 if self.stage == 1 else config.classes)

    def build_model(self) -> nn.Module:
        """The network of `config.model`, with both heads."""
        return InteractionModel(self.model_config, len(self.config.classes), len(FEATURES), self.config.data.image_size)

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Those of the stage's head, `[B, C]`."""
        out: dict[str, Tensor] = model(batch.images.float() / 255, batch.targets["geometry"])
        return out["interacting" if self.stage == 1 else "kind"]

    def predict_file(
        self, model: nn.Module, path: Path, device: torch.device, score: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """All candidate pairs of a panorama in JRDB's layout, the probable ones first, and the panorama with the pairs of at
        least `score`.

        A run of stage 2 says how a pair interacts if it does; whether it does, too, where its backbone was frozen (else the
        head of stage 1 no longer fits the backbone).
        """
        people, left_out = people_of(path)
        try:
            image = read_image(str(path), self.config.data.exif)
        except BadImage as e:
            raise UserError(str(e)) from None
        size = (image.shape[1], image.shape[0])
        boxes = around_the_seam(np.array([p.box for p in people]), *size)
        tracks = [p.track for p in people]
        found = self._pairs(model, image, boxes, device)
        rows, lines = [], []
        for (i, j), said in sorted(found, key=lambda f: -f[1]["probability"]):
            rows.append({"pair": [tracks[i], tracks[j]], **said})
            if said["probability"] >= score:
                lines.append((i, j, f"{said.get('class', '')} {said['probability']:.2f}".strip()))
        told = [{"track": t, "box": [round(float(v), 1) for v in box]} for t, box in zip(tracks, boxes)]
        picture = panorama.draw_pairs(image, boxes, lines)
        return {"width": size[0], "height": size[1], "people": told, "left_out": left_out, "pairs": rows}, picture

    def _pairs(
        self, model: nn.Module, image: np.ndarray, boxes: np.ndarray, device: torch.device
    ) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
        """(places of the two, what is said of them) of all candidates."""
        i, j = np.triu_indices(len(boxes), 1)
        a, b = boxes[i].astype(np.float64), boxes[j].astype(np.float64)
        size, view = (image.shape[1], image.shape[0]), View.still(self.config.data.image_size)
        near = np.flatnonzero(is_candidate(a, b, size[0], self.config.data.pairs.distance_multiplier))
        both = self.stage == 1 or "backbone" in self.config.freeze
        for start in range(0, len(near), CHUNK):
            part = near[start : start + CHUNK]
            cut = np.stack([crops(image, boxes[[i[k], j[k]]], view)[0] for k in part])
            images = torch.from_numpy(cut).permute(0, 3, 1, 2).to(device).float() / 255
            out = model(images, torch.from_numpy(geometry(a[part], b[part], size)).to(device))
            logits = {name: value.float().cpu().numpy() for name, value in out.items()}
            interacting = np.exp(logits["interacting"] - np.logaddexp.reduce(logits["interacting"], 1)[:, None])[:, 1]
            kinds = self.probabilities(logits["kind"])
            for n, k in enumerate(part):
                yield (int(i[k]), int(j[k])), self._said(interacting[n] if both else None, kinds[n])

    def _said(self, interacting: float | None, kinds: np.ndarray) -> dict[str, Any]:
        if self.stage == 1:
            return {"probability": round(float(interacting or 0), 5)}
        best = int(kinds.argmax())
        whether = {} if interacting is None else {"interacting": round(float(interacting), 5)}
        p = float(kinds[best]) * (1.0 if interacting is None else float(interacting))
        classes = {c: round(float(v), 5) for c, v in zip(self.classes, kinds)}
        return {"probability": round(p, 5), "class": self.classes[best], **whether, "classes": classes}


class InteractionTask(InteractionPredictor, LabelTask):
    """See `tasks.base.Task` for what each member means. A sample is a pair of people."""

    noun = "pairs"

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.notes: list[str] = []
        self.contents: list[Contents] = []
        tables, pairs, known = self._read("train", config.seed)
        val_tables, val_pairs, self.val_annotated = self._read("val", None)
        _refuse_shared_sequences(tables, val_tables)
        if self.stage == 2:
            sets = data_sets(config, "train", pairs, known) + data_sets(config, "val", val_pairs, self.val_annotated)
            refuse_no_truth(config, sets, "pair")
            self.notes += [f"warning: {line}" for line in class_warnings(config, sets, "pair", masked=self.several)]
        else:
            used = [p for d, p in zip(config.data.train, pairs) if d.share != 0]
            self.notes += [f"warning: {line}" for line in _one_answer(used, val_pairs)]
        self.monitors = ("f1", "loss", "accuracy", "AP", "balanced_accuracy", "auc")
        truth, self.val_truth = [self._truth(p) for p in pairs], [self._truth(p) for p in val_pairs]
        self.prepare(truth)
        self.sampler = self.stream(truth)
        size = config.data.image_size
        self.train = PairSamples(tables, pairs, truth, known, size, config.data.augment, config.seed)
        self.val_samples = PairSamples(val_tables, val_pairs, self.val_truth, self.val_annotated, size, None)
        self.val = [(d.name, len(p)) for d, p in zip(config.data.val, val_pairs)]
        if self.stage == 2 and config.init_from is None:
            self.notes.append("warning: stage 2 without init_from: its backbone starts anew and not from a run of stage 1")

    def _read(self, part: str, seed: int | None) -> tuple[list[PeopleTable], list[PairTable], np.ndarray]:
        datasets, data = getattr(self.config.data, part), self.config.data
        tables, pairs = [], []
        read = [read_jrdb(d, data.on_fault) for d in datasets]
        self.contents += [Contents(part, table) for table, _ in read]
        space = LabelSpace.build(self.config.classes, datasets, [t for t, _ in read])
        for d, (table, faults) in zip(datasets, read):
            if not table.labelled.any():
                raise UserError(
                    f"{d.name}: none of its {len(table)} frames tells who interacts, neither by H-interaction nor by "
                    "social_group; learn from labels_2d_activity_social_stitched"
                )
            found, removed = find_pairs(space.apply(table), data.pairs, self.stage, seed)
            told = ", ".join(map(str, removed)) or "none"
            self.notes += [
                f"{part} {d.name}: {len(table)} frames of {len(table.sequences)} sequences, {len(table.boxes)} people; "
                f"{int((~table.labelled).sum())} frames without social labels; {faults.text()}",
                f"{part} {d.name}: left out (interacting + other pairs): {told}",
                f"{part} {d.name}: {len(found)} pairs, {int(found.interacting.sum())} of them interacting",
            ]
            if not len(found):
                raise UserError(f"{d.name}: no pair is left (interacting + other pairs: {told}); check data.pairs and drop")
            tables.append(table)
            pairs.append(found)
        known = np.ones((len(datasets), 2), bool) if self.stage == 1 else space.annotated
        return tables, pairs, known

    def _truth(self, pairs: PairTable) -> np.ndarray:
        """bool `[n, C]`. Stage 2: all classes of a pair with loss bce; else of several the one that stands first in
        `classes`."""
        if self.stage == 1:
            return np.stack([~pairs.interacting, pairs.interacting], 1)
        if self.several:
            return pairs.classes
        return np.eye(len(self.classes), dtype=bool)[pairs.classes.argmax(1)]

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """The main metrics of each dataset, of all together, and of each class."""
        header, rows = super().summary(metrics)
        counts = sum(t.sum(0) for t in self.val_truth)
        for c, n in zip(self.classes, np.asarray(counts).tolist()):
            rows.append([f"  {c}", n, *(metrics.get(f"class/{c}/{k}") for k in header[2:])])
        return header, rows

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """The panorama around the pair with both boxes, above what the network sees; with a prediction, that in brackets."""
        samples = self.train if prediction is None else self.val_samples
        said = ", ".join(self.classes[k] for k in np.flatnonzero(sample.targets["classes"])) or "none"
        title = f"{file_name(samples, sample)}: {said}"
        if prediction is not None:
            p = self.probabilities(prediction["logits"][None])[0]
            title += f" ({self.classes[int(p.argmax())]} {p.max():.2f})"
        try:
            image = samples.read(SampleKey(*sample.key))
        except BadImage:
            image = None
        views = [np.ascontiguousarray(v) for v in np.split(sample.image, sample.image.shape[2] // 3, 2)]
        return panorama.strip(image, sample.targets["boxes"], views, title)


def _one_answer(train: Sequence[PairTable], val: Sequence[PairTable]) -> list[str]:
    """What is to be said where all pairs of stage 1 have the same answer.

    Raises:
        UserError: all training pairs have.
    """
    out = []
    for part, found in (("train", train), ("val", val)):
        answers = np.concatenate([p.interacting for p in found])
        if answers.all() or not answers.any():
            line = f"data.{part}: {'every' if answers.all() else 'no'} pair interacts"
            if part == "train":
                raise UserError(f"{line}, nothing can be learned; correct data.pairs, drop or the labels")
            out.append(f"{line}: whether a model tells who interacts cannot be measured")
    return out


def _refuse_shared_sequences(train: Sequence[PeopleTable], val: Sequence[PeopleTable]) -> None:
    for t in train:
        for v in val:
            shared = sorted(set(t.sequences) & set(v.sequences))
            if shared:
                raise UserError(
                    f"data: the sequence {shared[0]} is in train ({t.name}) and in val ({v.name}); frames of one sequence are "
                    "alike: give each sequence to one of them, by split or sequences"
                )
