"""What the page of a run says of an evaluation with logits; the same numbers as the figures of `LogitsView.report`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ddptrain.metrics import classification as metric
from ddptrain.reporting.run_page.parts import Chart, Matrix, Numbers, Part, Picture, Section, Text, line
from ddptrain.structures import SampleKey
from ddptrain.tasks.base import Predictions
from ddptrain.tasks.logits.task import Answers, LogitsTask, probabilities, stacked
from ddptrain.tasks.parts import DRAWN, calibration_bars

LISTED, SHOWN = 40, 12
"""Contradictions that are listed, and samples that are shown."""
WORST = "worst_images.jpg"


class Contradiction(NamedTuple):
    """A sample about which the model and the label disagree most.

    Attributes:
        key: of the sample.
        label: the class that the label names or, where a sample has several classes, denies.
        real: whether the label names it.
        answer: the class that the model is most sure of.
        probability: that the model gives to the class `label`.
    """

    key: SampleKey
    label: int
    real: bool
    answer: int
    probability: float


def contradictions(task: LogitsTask, predictions: Predictions) -> list[Contradiction]:
    """The samples with a wrong answer, the one first whose label the model thinks least likely."""
    found = []
    for number, (of_dataset, truth) in enumerate(zip(predictions, task.val_truth)):
        p = probabilities(stacked(of_dataset), task.several)
        known = task.val_annotated[number] if task.several else np.ones(len(task.classes), bool)
        off = np.where(known & (truth if not task.several else True), np.abs(truth - p), -1)
        for row, label in enumerate(off.argmax(1).tolist()):
            answer = int(p[row].argmax())
            wrong = off[row, label] > 0.5 if task.several else answer != label
            if wrong:
                key = SampleKey(0, number, sorted(of_dataset)[row])
                found.append(Contradiction(key, label, bool(truth[row, label]), answer, float(p[row, label])))
    return sorted(found, key=lambda c: (-abs(c.real - c.probability), c.key))


def logits_sections(task: LogitsTask, predictions: Predictions, name: Callable[[SampleKey], str]) -> list[Section]:
    """Curves, confusion, and where model and labels disagree; `name` tells that of a sample's file."""
    answers = task.answers(predictions)
    sections = [Section("confidence", "Precision, recall and confidence", list(_confidence(task, answers)))]
    if not task.several:
        matrix = metric.confusion_matrix(answers.truth.argmax(1), answers.p.argmax(1), len(task.classes))
        sections.append(Section("confusion", "Confusion", [Matrix(task.noun, task.classes, matrix.tolist())]))
    errors = list(_errors(task, contradictions(task, predictions), name))
    return [*sections, Section("errors", "Errors and suspected labels", errors)]


def _confidence(task: LogitsTask, answers: Answers) -> Iterator[Part]:
    counts = answers.truth.sum(0)
    order = sorted(int(k) for k in np.argsort(-counts, kind="stable")[:DRAWN] if counts[k])
    found = {k: metric.precision_recall(*answers.of(k)) for k in order}
    if len(task.classes) > DRAWN:
        yield Text(f"The {DRAWN} classes with the most {task.noun} are drawn.")
    names = {k: f"{task.classes[k]}, AP {ap:.3f}" for k, (_, _, ap) in found.items()}
    lines = [line(names[k], recall, precision) for k, (recall, precision, _) in found.items()]
    yield Chart("precision over recall", "recall", "precision", lines, x_range=(0, 1), y_range=(0, 1.02))
    areas = {k: f"{task.classes[k]}, area {metric.auc(*answers.of(k)):.3f}" for k in order}
    lines = [line(areas[k], *metric.roc(*answers.of(k))) for k in order]
    yield Chart("ROC", "false positive rate", "true positive rate", lines, x_range=(0, 1), y_range=(0, 1.02))
    yield calibration_bars(task.calibration(answers))


def _errors(task: LogitsTask, found: Sequence[Contradiction], name: Callable[[SampleKey], str]) -> Iterator[Part]:
    total = sum(n for _, n in task.val)
    yield Text(
        f"{len(found):,} of {total:,} {task.noun} have a wrong answer. First come those whose label the model thinks least "
        "likely: either the model is wrong, or the label."
    )
    rows = []
    for c in found[:LISTED]:
        label = task.classes[c.label] if c.real else f"not {task.classes[c.label]}"
        rows.append([task.val[c.key.dataset][0], name(c.key), label, task.classes[c.answer], c.probability])
    yield Numbers(("dataset", "file", "label", "answer", "probability of the label's class"), rows)
    yield Picture(WORST, "the first of them: file and label, and in brackets the answer with its probability")
