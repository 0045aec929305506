"""`Outcome`: what an evaluation found in each image, kept with the run, so that no model is needed to compute its metrics over
other draws of the images: for intervals, comparisons, curves and reports."""

from __future__ import annotations

import json
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ddptrain.errors import UserError
from ddptrain.metrics.matches import F64, I64, Matches
from ddptrain.metrics.resample import DRAWS, F32, FEWEST, detection_metrics, interval, mean_known, over_draws
from ddptrain.system.files import write_bytes

FILE = "evaluation.npz"
"""Name of the last outcome of a run in its folder."""
FORMAT = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome(ABC):
    """I images, K validation datasets.

    Attributes:
        classes: names of the run's classes.
        datasets: names of the validation datasets.
        dataset: int64 `[I]`: number of each image's dataset, never falling.
        images: name of each image, its path below the dataset's root.
        metrics: all metrics of the evaluation.
        about: which weights: `step`, `weights` (best, last, or a file) and `digest`; plain values.
    """

    kind: ClassVar[str]
    classes: Sequence[str]
    datasets: Sequence[str]
    dataset: I64
    images: Sequence[str]
    metrics: Mapping[str, float]
    about: Mapping[str, Any]

    @property
    @abstractmethod
    def keys(self) -> Sequence[str]:
        """Metrics that can be resampled, the most important first."""

    @abstractmethod
    def resample(self, weights: F32, keys: Sequence[str]) -> Mapping[str, F64]:
        """Metrics `[D]` in which each image counts as often as it was drawn, `[I, D]`; of classes as `class/<class>/<key>`."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored."""

    @abstractmethod
    def truth(self) -> bytes:
        """The truth, to tell whether two outcomes can be compared."""

    def draws(self, keys: Sequence[str], seed: int = 0, draws: int = DRAWS, part: str | None = None) -> dict[str, F64]:
        """Metrics `[draws]` over images that are drawn again, the same images for any outcome of the same datasets; `part` is
        the name of a dataset whose images alone count."""
        own = np.float32(1) if part is None else self.of_dataset(part)[:, None].astype(np.float32)
        return over_draws(lambda weights: self.resample(weights * own, keys), self.dataset, draws, seed)

    def of_dataset(self, name: str) -> NDArray[np.bool_]:
        """Which images are of a dataset, `[I]`."""
        return self.dataset == list(self.datasets).index(name)

    def intervals(self, keys: Sequence[str], seed: int = 0, draws: int = DRAWS) -> dict[str, tuple[float, float]]:
        """95 % intervals of metrics over images; NaN of very few images, which say nothing of others."""
        few = len(self.images) < FEWEST
        return {name: interval(values[:0] if few else values) for name, values in self.draws(keys, seed, draws).items()}


@dataclass(frozen=True, eq=False, kw_only=True)
class BoxOutcome(Outcome):
    """Of detection."""

    kind = "boxes"
    matches: Matches

    @property
    def keys(self) -> Sequence[str]:
        return ("AP", "AP50", "AP75", "APs", "APm", "APl")

    def resample(self, weights: F32, keys: Sequence[str]) -> Mapping[str, F64]:
        return detection_metrics(self.matches, self.classes, weights, keys)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {f.name: np.asarray(getattr(self.matches, f.name)) for f in fields(Matches)}

    def truth(self) -> bytes:
        m = self.matches
        columns = (m.truth_image, m.truth_label, m.truth_box, m.truth_area, m.counts)
        return b"".join(np.ascontiguousarray(c, c.dtype if c.dtype == bool else np.float64).tobytes() for c in columns)

    @staticmethod
    def matches_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """The fields of `arrays`, as they were."""
        own: dict[str, Any] = {f.name: arrays[f.name] for f in fields(Matches)}
        wide = ("row", "image", "label", "truth_image", "truth_label")  # which are stored small
        own |= {name: own[name].astype(np.int64) for name in wide} | {n: int(own[n]) for n in ("images", "classes")}
        return {"matches": Matches(**own | {"truth": own["truth"].astype(np.int32)})}


@dataclass(frozen=True, eq=False, kw_only=True)
class CountOutcome(Outcome):
    """Of classification, segmentation and interaction: what was asked, answered and right in each image, by class.

    Attributes:
        names: the metrics, of `FORMULAS`.
        counts: int64 `[3, I, C]`: the samples or pixels of each class that are right, that are real, that were answered.
    """

    kind = "counts"
    names: Sequence[str]
    counts: I64

    @property
    def keys(self) -> Sequence[str]:
        return self.names

    def resample(self, weights: F32, keys: Sequence[str]) -> Mapping[str, F64]:
        right, real, answers = (column.T.astype(np.float64) @ weights for column in self.counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {key: FORMULAS[key](right, np.where(real > 0, real, np.nan), answers) for key in keys}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"names": np.array(self.names), "counts": self.counts}

    def truth(self) -> bytes:
        return np.ascontiguousarray(self.counts[1], np.int64).tobytes()

    @staticmethod
    def counts_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """The fields of `arrays`, as they were."""
        return {"names": tuple(map(str, arrays["names"])), "counts": arrays["counts"].astype(np.int64)}


def _over_all(values: F64) -> F64:
    return np.nansum(values, 0)


FORMULAS: dict[str, Callable[[F64, F64, F64], F64]] = {
    "accuracy": lambda right, real, answers: _over_all(right) / _over_all(real),
    "pixel_accuracy": lambda right, real, answers: _over_all(right) / _over_all(real),
    "balanced_accuracy": lambda right, real, answers: mean_known(right / real),
    "mean_accuracy": lambda right, real, answers: mean_known(right / real),
    "f1": lambda right, real, answers: mean_known(2 * right / (real + answers)),
    "f1_micro": lambda right, real, answers: 2 * _over_all(right) / (_over_all(real) + answers.sum(0)),
    "mIoU": lambda right, real, answers: mean_known(right / (real + answers - right)),
}
"""Metrics from counts `[C, D]`; `real` is NaN where a class was not drawn."""
KINDS: dict[str, tuple[type[Outcome], Callable[[Mapping[str, NDArray[Any]]], dict[str, Any]]]] = {
    BoxOutcome.kind: (BoxOutcome, BoxOutcome.matches_of),
    CountOutcome.kind: (CountOutcome, CountOutcome.counts_of),
}
_PLAIN = ("classes", "datasets", "images", "metrics", "about")


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Write an outcome whole: a reader sees the old file or the new one.

    Raises:
        OSError: it cannot be written.
    """
    head = {name: getattr(outcome, name) for name in _PLAIN} | {"format": FORMAT, "kind": outcome.kind}
    text = json.dumps({k: list(v) if isinstance(v, (list, tuple)) else v for k, v in head.items()}, ensure_ascii=True)
    arrays: dict[str, Any] = {name: _small(column) for name, column in outcome.arrays().items()}
    out = BytesIO()
    np.savez_compressed(out, head=np.frombuffer(text.encode(), np.uint8), dataset=_small(outcome.dataset), **arrays)
    write_bytes(path, out.getvalue())


def read_outcome(path: Path) -> Outcome:
    """Read an outcome.

    Args:
        path: a run folder, or the file.

    Raises:
        UserError: there is none, or it is damaged or of another version.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        what = f"no {FILE} in it; ddptrain eval {path} writes it" if path.is_dir() else "no such run folder or file"
        raise UserError(f"{path}: {what}")
    try:
        with np.load(BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            arrays = dict(stored)
        head = json.loads(arrays.pop("head").tobytes())
        if head.get("format") != FORMAT:
            raise UserError(f"{file}: is of another version of ddptrain; write it again with ddptrain eval")
        kind, fields_of = KINDS[head["kind"]]
        own = {name: head[name] for name in _PLAIN}
        return kind(**own, dataset=arrays["dataset"].astype(np.int64), **fields_of(arrays))
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        raise UserError(f"{file}: is not an evaluation of ddptrain, or damaged; write it again with ddptrain eval") from None


def _small(column: NDArray[Any]) -> NDArray[Any]:
    """The same whole numbers in as few bytes as hold them."""
    if column.dtype.kind != "i" or not column.size:
        return column
    low, high = int(column.min()), int(column.max())
    return column.astype(next(t for t in ("i1", "i2", "i4", "i8") if np.iinfo(t).min <= low and high <= np.iinfo(t).max))
