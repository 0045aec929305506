"""Interaction of people in panoramas, in two stages: which pairs interact, then how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.config import AugmentConfig, InteractionRun
from ddptrain.data.augment.view import ImageView
from ddptrain.data.formats.jrdb import around_the_seam, people_of, read_jrdb
from ddptrain.data.samples.interaction import PairSamples, crops
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.data.tables.pairs import FEATURES, PairTable, find_pairs, geometry, is_candidate
from ddptrain.data.tables.people import PeopleTable
from ddptrain.errors import UserError
from ddptrain.models.interaction import CROPS, InteractionModel
from ddptrain.reporting import panorama
from ddptrain.structures import Batch
from ddptrain.system.printable import counted
from ddptrain.tasks.base import FileAnswer, Prediction
from ddptrain.tasks.inspection.base import DataSet, Part
from ddptrain.tasks.interaction.view import InteractionView
from ddptrain.tasks.logits.task import LogitsTask, probabilities
from ddptrain.tasks.tables import annotated, loss_weights

STAGE_1 = ("not interacting", "interacting")
CHUNK = 64
"""Pairs that are predicted at once."""


class InteractionTask(LogitsTask):
    """See `tasks.base.Task`. A sample is a pair of people."""

    config: InteractionRun
    noun = "pairs"
    unit = "pair"
    read_table = staticmethod(read_jrdb)
    view_class = InteractionView
    monitors = ("f1", "loss", "accuracy", "AP", "balanced_accuracy", "auc")
    channels = 3 * CROPS

    def __init__(self, config: InteractionRun) -> None:
        super().__init__(config)
        self.model_config = config.model
        self.stage = config.model.stage
        if self.stage == 1:
            self.classes = STAGE_1

    def read(self) -> None:
        train, val = self.datasets("train"), self.datasets("val")
        _refuse_shared_sequences(train, val)
        self.accept(train, val)
        samples, val_samples = self._samples(train, self.config.data.augment), self._samples(val)
        self.train, self.val_samples = samples, val_samples
        used = [i for i, s in enumerate(train) if s.used]
        self._weigh([samples.truth[i] for i in used], [samples.annotated[i] for i in used])
        self.sampler = self._sample(samples.truth)
        self.val_truth, self.val_annotated = val_samples.truth, val_samples.annotated
        if self.stage == 2 and self.config.init_from is None:
            self.notes.append("warning: stage 2 without init_from: its backbone starts from scratch, not from a run of stage 1")

    def _samples(self, sets: Sequence[DataSet], augment: AugmentConfig | None = None) -> PairSamples:
        people, pairs, truth = zip(*((s.own, s.table, self._truth(s.table)) for s in sets))
        known = np.ones((len(sets), 2), bool) if self.stage == 1 else annotated(sets)
        size, seed, weights = self.config.data.image_size, self.config.seed, loss_weights(sets)
        return PairSamples(people, known, size, augment, seed, weights=weights, pairs=pairs, truth=truth)

    def accept(self, train: Sequence[DataSet], val: Sequence[DataSet]) -> None:
        if self.stage == 2:
            super().accept(train, val)
            return
        self.val = [(s.config.name, len(s.table)) for s in val]
        self.notes += [f"warning: {line}" for line in _one_answer([s.table for s in train if s.used], [s.table for s in val])]

    def apply(self, space: LabelSpace, table: PeopleTable, part: Part) -> tuple[PairTable, str]:
        seed = self.config.seed if part == "train" else None
        pairs, removed = find_pairs(space.apply(table), self.config.data.pairs, self.stage, seed)
        return pairs, ", ".join(map(str, removed)) or "none"

    def notes_on(self, data: DataSet) -> list[str]:
        people: PeopleTable = data.own
        pairs: PairTable = data.table
        unlabelled = int((~people.labelled).sum())
        if unlabelled == len(people):
            raise UserError(
                f"{data.config.name}: none of its {counted(len(people), 'frame')} says who interacts, neither through "
                "H-interaction nor by social_group; learn from labels_2d_activity_social_stitched"
            )
        if not len(pairs):
            rules = f"(interacting + other pairs: {data.left_out})"
            raise UserError(f"{data.config.name}: no pair is left {rules}; check data.pairs and drop")
        return [
            f"{data.title}: {counted(len(people), 'frame')} of {counted(len(people.sequences), 'sequence')}, "
            f"{counted(len(people.boxes), 'person', 'people')}; {counted(unlabelled, 'frame')} without social labels; "
            f"{data.faults.text()}",
            f"{data.title}: left out (interacting + other pairs): {data.left_out}",
            f"{data.title}: {counted(len(pairs), 'pair')}, {int(pairs.interacting.sum())} of them interacting",
        ]

    def facts(self, data: DataSet) -> dict[str, Any]:
        people: PeopleTable = data.own
        return {
            "sequences": len(people.sequences),
            "people": len(people.boxes),
            "unlabelled_frames": int((~people.labelled).sum()),
            "pairs": len(data.table),
            "interacting": int(data.table.interacting.sum()),
        }

    def warnings(self, sets: Sequence[DataSet]) -> list[str]:
        return super().warnings(sets) if self.stage == 2 else []

    def _truth(self, pairs: PairTable) -> np.ndarray:
        """bool `[n, C]`. Stage 2: all classes of a pair with loss bce; else of several the one that stands first in
        `classes`."""
        if self.stage == 1:
            return np.stack([~pairs.interacting, pairs.interacting], 1)
        if self.several:
            return pairs.classes
        return np.eye(len(self.classes), dtype=bool)[pairs.classes.argmax(1)]

    def build_model(self) -> nn.Module:
        """The network of `config.model`, with the heads of both stages."""
        return InteractionModel(self.model_config, len(self.config.classes), len(FEATURES), self.config.data.image_size)

    def example_input(self) -> tuple[Tensor, ...]:
        """Two pairs: images float32 `[2, 9, S, S]` in 0..1 and geometry float32 `[2, G]`."""
        return *super().example_input(), torch.rand(2, len(FEATURES), generator=torch.Generator().manual_seed(1))

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Those of the stage's head, `[B, C]`."""
        out: dict[str, Tensor] = model(batch.unit_images(), batch.targets["geometry"])
        return out["interacting" if self.stage == 1 else "kind"]

    def predict_image(self, model: nn.Module, image: np.ndarray, device: torch.device, path: Path | None = None) -> Prediction:
        """`people` float32 `[p, 4]`, and of their candidate pairs `pairs` int64 `[n, 2]`, `interacting` float32 `[n]` (nan
        where it is not known) and `kinds` float32 `[n, classes]` (stage 1: no columns)."""
        if path is None:
            raise UserError(
                "predict: the people in a panorama are read from the labels that belong to its file; pass the path of the image"
            )
        people, _ = people_of(path)
        boxes = around_the_seam(np.array([p.box for p in people]), image.shape[1], image.shape[0])
        answers = list(self._pairs(model, image, boxes, device))
        columns = 0 if self.stage == 1 else len(self.classes)
        return {
            "people": boxes.astype(np.float32).reshape(-1, 4),
            "pairs": np.array([pair for pair, _, _ in answers], np.int64).reshape(-1, 2),
            "interacting": np.array([np.nan if p is None else p for _, p, _ in answers], np.float32),
            "kinds": np.array([kinds[:columns] for _, _, kinds in answers], np.float32).reshape(len(answers), columns),
        }

    def predict_file(self, model: nn.Module, path: Path, device: torch.device, score: float) -> FileAnswer:
        """All candidate pairs of a panorama in JRDB's layout, the probable ones first, and the panorama with the pairs of at
        least `score`.

        A run of stage 2 says how a pair interacts if it does; whether it does, too, where its backbone was frozen (else the
        head of stage 1 no longer fits the backbone).
        """
        people, left_out = people_of(path)
        image = self.read_file(path)
        size = (image.shape[1], image.shape[0])
        boxes = around_the_seam(np.array([p.box for p in people]), *size)
        tracks = [p.track for p in people]
        rows, lines = [], []
        answers = [(pair, self._answer(p, kinds)) for pair, p, kinds in self._pairs(model, image, boxes, device)]
        for (i, j), answer in sorted(answers, key=lambda pair: -pair[1]["probability"]):
            rows.append({"pair": [tracks[i], tracks[j]], **answer})
            if answer["probability"] >= score:
                lines.append((i, j, f"{answer.get('class', '')} {answer['probability']:.2f}".strip()))
        tracked = [{"track": t, "box": [round(float(v), 1) for v in box]} for t, box in zip(tracks, boxes)]
        picture = panorama.draw_pairs(image, boxes, lines)
        return {"width": size[0], "height": size[1], "people": tracked, "left_out": left_out, "pairs": rows}, picture

    def _pairs(
        self, model: nn.Module, image: np.ndarray, boxes: np.ndarray, device: torch.device
    ) -> Iterator[tuple[tuple[int, int], float | None, np.ndarray]]:
        """Of all candidates (rows of the two, probability that they interact or None, probabilities of the kinds)."""
        i, j = np.triu_indices(len(boxes), 1)
        a, b = boxes[i].astype(np.float64), boxes[j].astype(np.float64)
        size, view = (image.shape[1], image.shape[0]), ImageView.still(self.config.data.image_size)
        near = np.flatnonzero(is_candidate(a, b, size[0], self.config.data.pairs.distance_multiplier))
        both = self.stage == 1 or "backbone" in self.config.freeze
        for start in range(0, len(near), CHUNK):
            part = near[start : start + CHUNK]
            cut = np.stack([crops(image, boxes[[i[k], j[k]]], view)[0] for k in part])
            images = torch.from_numpy(cut).permute(0, 3, 1, 2).to(device).float() / 255
            out = model(images, torch.from_numpy(geometry(a[part], b[part], size)).to(device))
            logits = {name: value.float().cpu().numpy() for name, value in out.items()}
            interacting = np.exp(logits["interacting"] - np.logaddexp.reduce(logits["interacting"], 1)[:, None])[:, 1]
            kinds = probabilities(logits["kind"], self.several)
            for n, k in enumerate(part):
                yield (int(i[k]), int(j[k])), interacting[n] if both else None, kinds[n]

    def _answer(self, interacting: float | None, kinds: np.ndarray) -> dict[str, Any]:
        if self.stage == 1:
            return {"probability": round(float(interacting or 0), 5)}
        best = int(kinds.argmax())
        whether = {} if interacting is None else {"interacting": round(float(interacting), 5)}
        p = float(kinds[best]) * (1.0 if interacting is None else float(interacting))
        classes = {c: round(float(v), 5) for c, v in zip(self.classes, kinds)}
        return {"probability": round(p, 5), "class": self.classes[best], **whether, "classes": classes}


def _one_answer(train: Sequence[PairTable], val: Sequence[PairTable]) -> list[str]:
    """A warning where all validation pairs of stage 1 have the same answer.

    Raises:
        UserError: all training pairs have.
    """
    out = []
    for part, pairs in (("train", train), ("val", val)):
        answers = np.concatenate([p.interacting for p in pairs])
        if answers.all() or not answers.any():
            line = f"data.{part}: {'every' if answers.all() else 'no'} pair interacts"
            if part == "train":
                raise UserError(f"{line}, nothing can be learned; correct data.pairs, drop or the labels")
            out.append(f"{line}: whether a model recognizes who interacts cannot be measured")
    return out


def _refuse_shared_sequences(train: Sequence[DataSet], val: Sequence[DataSet]) -> None:
    for t in train:
        for v in val:
            shared = sorted(set(t.own.sequences) & set(v.own.sequences))
            if shared:
                raise UserError(
                    f"data: the sequence {shared[0]} is in train ({t.config.name}) and in val ({v.config.name}); frames of one "
                    "sequence are alike: give each sequence to one of them, by split or sequences"
                )
