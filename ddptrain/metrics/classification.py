"""Metrics of classification: by the best class, by the order of scores, and what is confused with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.arrays import Metrics, mean_known

F64 = NDArray[np.float64]


def softmax(logits: NDArray[np.floating]) -> F64:
    """Probabilities `[n, C]` of logits `[n, C]`."""
    e = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def confusion_matrix(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """int64 `[classes, classes]`: rows are the truth, columns the answers."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def roc(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[F64, F64]:
    """False and true positive rate, from (0, 0) to (1, 1), one point for each distinct score, falling; nan without
    positives or negatives."""
    hits, alarms = _by_score(scores, truth)[:2]
    with np.errstate(invalid="ignore"):
        return np.append(0, alarms) / np.float64((~truth).sum()), np.append(0, hits) / np.float64(truth.sum())


def auc(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties by half; nan without one
    of them."""
    if truth.all() or not truth.any():  # nothing known at all is a sum of nothing, 0
        return float("nan")
    x, y = roc(scores, truth)
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum())


def precision_recall(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[F64, F64, float]:
    """Recall, precision and average precision (the sum of precision times the step in recall, without interpolation)
    over the distinct scores, falling; nan without positives."""
    hits, alarms, _ = _by_score(scores, truth)
    with np.errstate(invalid="ignore"):
        recall = hits / np.float64(truth.sum())
        precision = hits / (hits + alarms)
    return recall, precision, float((np.diff(recall, prepend=0.0) * precision).sum()) if truth.any() else float("nan")


def _by_score(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[F64, F64, F64]:
    """Hits and false alarms down to each distinct score, and the scores, falling."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order].astype(np.float64)
    ends = np.flatnonzero(np.diff(falling, append=-np.inf))
    right = truth[order].astype(np.float64)
    return right.cumsum()[ends], (1 - right).cumsum()[ends], falling[ends]


def single_label(logits: NDArray[np.floating], truth: NDArray[np.integer], classes: Sequence[str]) -> Metrics:
    """Metrics of images of one class each.

    Args:
        logits: `[n, C]`.
        truth: int `[n]`.
        classes: names of the C classes.

    Returns:
        `accuracy`, `top5` (with more than 5 classes), `balanced_accuracy` (mean recall), `f1`, `AP` and `auc` (means over
        the classes with truth), `loss` (mean cross entropy), `one_answer` (the part of the images that got the most
        frequent answer), and `precision`, `recall`, `balanced_accuracy` (mean of recall and specificity), `f1`, `AP`, `auc`
        of each class.
    """
    k, n = len(classes), len(truth)
    p = softmax(logits)
    predicted = logits.argmax(1)
    matrix = confusion_matrix(truth, predicted, k)
    out: Metrics = {"accuracy": float((predicted == truth).mean())}
    if k > 5:
        # the rank of the truth; of equal scores the first class is taken, as argmax does
        own = logits[np.arange(n), truth][:, None]
        ahead = (logits > own) | ((logits == own) & (np.arange(k) < truth[:, None]))
        out["top5"] = float((ahead.sum(1) < 5).mean())
    per_class = _per_class(p, np.arange(k) == truth[:, None], matrix)
    out["balanced_accuracy"] = mean_known(per_class["recall"])
    out |= {name: mean_known(per_class[name]) for name in ("f1", "AP", "auc")}
    log_p = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    out["loss"] = float(-log_p[np.arange(n), truth].mean())
    out["one_answer"] = float(matrix.sum(0).max() / n)
    return out | {f"class/{c}/{name}": float(values[i]) for name, values in per_class.items() for i, c in enumerate(classes)}


def multi_label(
    logits: NDArray[np.floating], truth: NDArray[np.bool_], known: NDArray[np.bool_], classes: Sequence[str]
) -> Metrics:
    """Metrics of images of any number of classes, each class on the images where it is known.

    Args:
        logits: `[n, C]`; a class is predicted from 0 (probability 0.5) on.
        truth: bool `[n, C]`.
        known: bool `[n, C]`.

    Returns:
        `AP`, `auc`, `f1`, `balanced_accuracy` (means over the classes), `f1_micro`, `accuracy` (of single entries),
        `loss` (mean binary cross entropy), and `precision`, `recall`, `balanced_accuracy`, `f1`, `AP`, `auc` of each class.
    """
    values: dict[str, list[float]] = {name: [] for name in ("precision", "recall", "f1", "AP", "auc", "balanced_accuracy")}
    for k in range(len(classes)):
        score, is_it = logits[known[:, k], k], truth[known[:, k], k]
        predicted = score >= 0
        hits = float((predicted & is_it).sum())
        precision, recall = _ratio(hits, predicted.sum()), _ratio(hits, is_it.sum())
        f1 = _ratio(2 * hits, predicted.sum() + is_it.sum()) if is_it.any() else float("nan")
        specificity = _ratio((~predicted & ~is_it).sum(), (~is_it).sum())
        each = (precision, recall, f1, precision_recall(score, is_it)[2], auc(score, is_it), (recall + specificity) / 2)
        for name, value in zip(values, each):
            values[name].append(value)
    predicted, x = logits >= 0, logits.astype(np.float64)
    hits = float((predicted & truth & known).sum())
    entropy = np.maximum(x, 0) - x * truth + np.log1p(np.exp(-np.abs(x)))
    out: Metrics = {name: mean_known(values[name]) for name in ("AP", "auc", "f1")}
    out["balanced_accuracy"] = mean_known(values["balanced_accuracy"])
    out["f1_micro"] = _ratio(2 * hits, (predicted & known).sum() + (truth & known).sum())
    out["accuracy"] = _ratio(((predicted == truth) & known).sum(), known.sum())
    out["loss"] = _ratio((entropy * known).sum(), known.sum())
    return out | {f"class/{c}/{name}": v[i] for name, v in values.items() for i, c in enumerate(classes)}


def constant_answer(
    metrics: Mapping[str, float], classes: Sequence[str], recall: str, balanced: str, most: float
) -> str | None:
    """The class that a collapsed model answers to almost everything, or None where it has not collapsed.

    Args:
        recall: name of a class's recall, as in `class/<class>/<recall>`.
        balanced: name of the mean recall, which is that of guessing where a model has collapsed.
        most: part of the answers that are one and the same, from which on it counts as collapsed.
    """
    of_class = {c: metrics.get(f"class/{c}/{recall}", float("nan")) for c in classes}
    measured = [c for c in classes if not np.isnan(of_class[c])]
    if metrics.get("one_answer", 0.0) < most or len(measured) < 2 or metrics[balanced] > 1 / len(measured) + 0.05:
        return None
    return max(measured, key=lambda c: of_class[c])


def _per_class(p: F64, truth: NDArray[np.bool_], matrix: NDArray[np.int64]) -> dict[str, F64]:
    """Precision, recall, balanced accuracy, F1, average precision, AUC of each class, `[C]`; nan for a class without truth."""
    hits, real, answers = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    shown = real > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "precision": np.where(answers > 0, hits / answers, np.nan),
            "recall": np.where(shown, hits / real, np.nan),
            "balanced_accuracy": np.where(shown, (hits / real + 1 - (answers - hits) / (real.sum() - real)) / 2, np.nan),
            "f1": np.where(shown, 2 * hits / (real + answers), np.nan),
            "AP": np.array([precision_recall(p[:, k], truth[:, k])[2] for k in range(p.shape[1])]),
            "auc": np.array([auc(p[:, k], truth[:, k]) for k in range(p.shape[1])]),
        }


def _ratio(a: float | np.integer | np.floating, b: float | np.integer | np.floating) -> float:
    return float(a) / float(b) if b else float("nan")
