"""Tables, remarks and figures of tasks whose network gives logits over classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.metrics import classification as metric
from ddptrain.metrics.curves import counts_of_answers
from ddptrain.metrics.outcome import Outcome
from ddptrain.reporting import charts, pictures, report
from ddptrain.reporting import curves as figures
from ddptrain.reporting.run_page.parts import Section
from ddptrain.reporting.table import Table
from ddptrain.reporting.trackers.base import MOST_CLASSES, Counts, Watched
from ddptrain.structures import Sample
from ddptrain.tasks.base import Prediction, Predictions
from ddptrain.tasks.intervals import intervals_of
from ddptrain.tasks.logits.sections import SHOWN, WORST, contradictions, logits_sections
from ddptrain.tasks.logits.task import LogitsTask, probabilities
from ddptrain.tasks.view import TableView

SHEET = 1300
"""Width of a sheet of pictures in pixels."""
COLLAPSED = 0.97
"""Part of the samples with the same answer from which on a classifier counts as collapsed."""


class LogitsView(TableView):
    """The view of a `LogitsTask`."""

    task: LogitsTask

    def title(self, sample: Sample, prediction: Prediction | None) -> str:
        """The names of a sample's file and of its classes; with a prediction, that in brackets."""
        classes = ", ".join(self.classes[k] for k in np.flatnonzero(sample.targets["classes"]).tolist()) or "none"
        title = f"{self.file_name(sample, prediction)}: {classes}"
        if prediction is None:
            return title
        p = probabilities(prediction["logits"][None], self.task.several)[0]
        return f"{title} ({self.classes[int(p.argmax())]} {p.max():.2f})"

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """The main metrics of each dataset and of all together."""
        keys = [k for k in ("accuracy", "top5", "balanced_accuracy", "f1", "AP", "auc", "loss") if k in metrics]
        return ["dataset", self.task.noun, *keys], self.rows(metrics, keys)

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        """A classifier that gives nearly all samples the same answer is named."""
        answer = metric.constant_answer(metrics, self.classes, "recall", "balanced_accuracy", COLLAPSED)
        if answer is None:
            return []
        share = metrics["one_answer"]
        return [
            f"the classifier has collapsed: it answers {answer} for {share:.0%} of the {self.task.noun}; its accuracy of "
            f"{metrics['accuracy']:.1%} is that class's share, its balanced accuracy is {metrics['balanced_accuracy']:.1%}"
        ]

    def sections(self, predictions: Predictions, outcome: Outcome | None) -> Sequence[Section]:
        """Curves, confusion, and where model and labels disagree."""
        assert outcome is not None
        return logits_sections(self.task, predictions, self.names(outcome))

    def _save_worst(self, folder: Path, predictions: Predictions) -> None:
        """Pictures of the samples about which model and label disagree most; of none, an old picture goes."""
        keys = [c.key for c in contradictions(self.task, predictions)[:SHOWN]]
        drawn = [self.picture(self.task.val_samples[k], predictions[k.dataset][k.index]) for k in keys]
        if drawn:
            pictures.save(folder / WORST, pictures.grid(drawn, columns=min(len(drawn), max(1, SHEET // drawn[0].shape[1]))))
        else:
            (folder / WORST).unlink(missing_ok=True)

    def watched(self, predictions: Predictions, metrics: Mapping[str, float]) -> Watched:
        answers = self.task.answers(predictions)
        found = {c: Counts(*counts_of_answers(*answers.of(i))) for i, c in enumerate(self.classes[:MOST_CLASSES])}
        of = self.task.calibration(answers)
        drawn = {"calibration": charts.reliability(of.precision, of.number, of.error)}
        if not self.task.several:
            confused = metric.confusion_matrix(answers.truth.argmax(1), answers.p.argmax(1), len(self.classes))
            drawn["confusion matrix"] = charts.matrix(confused, self.classes, self.classes)
        return Watched({f"class/{name}": counts for name, counts in found.items()}, drawn)

    def report(self, folder: Path, predictions: Predictions, history: Mapping[str, Sequence[float]]) -> None:
        """Curves, confusion matrix, distributions of probabilities, precision over recall, and all numbers as text."""
        task = self.task
        self._save_worst(folder, predictions)
        answers = task.answers(predictions)
        report.training_curves(folder / "training_curves.png", history, list(dict.fromkeys(task.monitors)))
        if not task.several:
            matrix = metric.confusion_matrix(answers.truth.argmax(1), answers.p.argmax(1), len(self.classes))
            report.confusion(folder / "confusion_matrix.png", matrix, self.classes)
        report.probability_distributions(folder / "probability_distributions.png", *answers, self.classes)
        of_class = {c: answers.of(i) for i, c in enumerate(self.classes)}
        curves = {c: metric.precision_recall(*of) for c, of in of_class.items()}
        report.pr_curve(folder / "pr_curve.png", curves)
        areas = {c: (*metric.roc(*of), metric.auc(*of)) for c, of in of_class.items()}
        figures.roc_curves(folder / "roc_curve.png", areas)
        figures.reliability(folder / "calibration.png", *task.calibration(answers))
        metrics = task.metrics(predictions)
        outcome = self.task.outcome(predictions, metrics, {})
        tables = [Table(*self.summary(metrics)), *([] if outcome is None else [intervals_of(outcome)])]
        report.text(folder / "evaluation_report.txt", tables, metrics, self.remarks(metrics))
