"""TensorBoard event files of a run. A resumed run continues the same curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.reporting.pictures import encode
from ddptrain.reporting.trackers.base import Counts, Tracker
from ddptrain.reporting.trackers.events import EventFile, cut_back
from ddptrain.system.printable import counted

LAYOUT: Mapping[str, Mapping[str, list[str]]] = {
    "learning": {
        "loss": [r"^train/loss$", r"^val/loss$"],
        "parts of the loss": [r"^train/(?!loss$)[^/]+$"],
        "metrics of the validation": [r"^val/(AP|AP50|AP75|accuracy|balanced_accuracy|mIoU|pixel_accuracy|f1|F1)$"],
        "metrics by class": [r"^val/class/[^/]+/(AP|IoU|f1|recall)$"],
    },
    "datasets": {
        "share of the samples": [r"^data/[^/]+/share_drawn$"],
        "loss of an image": [r"^data/[^/]+/loss$"],
        "metrics by dataset": [r"^data/[^/]+/val/(AP|accuracy|mIoU|f1)$"],
    },
    "optimizer": {
        "learning rate": [r"^optim/lr/"],
        "norm of the gradient": [r"^optim/gradient_norm/"],
        "norm of an update over that of the weights": [r"^optim/update_ratio/"],
        "distance of the averaged weights": [r"^optim/average_distance$"],
    },
    "speed": {
        "images per second": [r"^time/(images_per_second|slowest_rank_images_per_second)$"],
        "share of the time that waits for data": [r"^time/data_wait$"],
        "memory (GB)": [r"^system/.*memory_gb$"],
        "utilisation": [r"^system/.*utilisation$"],
    },
}
"""The charts of the tab "Custom Scalars" by their groups, each with the expressions of its tags."""


class TensorBoard(Tracker):
    """Event files.

    Args:
        folder: made if need be; each start of a run adds one file.
        resumed: the step of the checkpoint that the run resumes from: what an earlier process wrote for later steps is taken
            out of its files. None for a fresh run.
        unjudged: the evaluation of that step comes again.
        counted: that step as the events count it, see `MetricsLog`.
        report: called with one line when the files cannot be written, and when they can be again.
    """

    def __init__(
        self,
        folder: Path,
        resumed: int | None = None,
        unjudged: bool = False,
        report: Callable[[str], None] = print,
        counted: int | None = None,
    ) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import summary  # takes a second to import

        self._summary, self._point, self._make = Summary, Summary.Value, summary
        self._folder, self._report, self._lost = folder, report, 0
        if resumed is not None:
            end, factor = (resumed, 1.0) if counted is None else (counted, resumed / max(counted, 1))
            self._write(
                cut_back, folder, lambda step, tags: round(step * factor) if _stays(step, tags, end, unjudged) else None
            )
        self._file = EventFile(folder, resumed)

    def _write(self, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except OSError as e:
            if not self._lost:
                self._report(f"warning: {self._folder}: not written, tried again later ({e.strerror}); training continues")
            self._lost += 1
        else:
            if self._lost:
                self._report(f"{self._folder}: written again; {counted(self._lost, 'event is', 'events are')} lost")
            self._lost = 0

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Points of the curves; what is not finite is left out, since TensorBoard cannot draw it."""
        points = [self._point(tag=tag, simple_value=value) for tag, value in values.items() if math.isfinite(value)]
        # one event for all: an event costs the loop 0.1 ms, a value in it 3 µs
        self._write(self._file.add, self._summary(value=points), step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        height, width = image.shape[:2]
        # not PNG: the sum of a record is computed in Python, at 0.4 s a megabyte
        content = self._summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encode(image, ".jpg"))
        self._write(self._file.add, self._summary(value=[self._point(tag=tag, image=content)]), step)

    def text(self, tag: str, text: str, step: int) -> None:
        self._write(self._file.add, self._make.text(tag, text), step)

    def pr_curve(self, tag: str, counts: Counts, step: int) -> None:
        hits, alarms, misses, rest = (column.astype(np.float64) for column in counts)
        precision = np.divide(hits, hits + alarms, out=np.ones_like(hits), where=hits + alarms > 0)
        recall = hits / np.maximum(hits + misses, 1)
        columns = (hits, alarms, rest, misses, precision, recall)
        self._write(self._file.add, self._make.pr_curve_raw(tag, *columns, num_thresholds=len(hits)), step)

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """The layout of the tab "Custom Scalars", too, at the start."""
        if metrics:
            for summary in self._make.hparams(dict(values), dict(metrics)):
                self._write(self._file.add, summary, step)
            return
        layout = {group: {name: ["Multiline", tags] for name, tags in charts.items()} for group, charts in LAYOUT.items()}
        self._write(self._file.add, self._make.custom_scalars(layout), step)

    def close(self, finished: bool = False) -> None:
        try:
            self._file.close()
        except OSError as e:
            self._report(f"warning: {self._folder}: not completely written ({e.strerror})")


def _stays(step: int, tags: list[str], resumed: int, unjudged: bool) -> bool:
    """Whether an event is of the run up to a checkpoint: of the checkpoint's own step the numbers of the training stay, and
    those of the evaluation unless that comes again; what a start writes comes again."""
    if step != resumed or not tags:
        return step < resumed or step == 0
    if any(tag == "train/loss" for tag in tags):
        return True
    return tags[0].startswith(("val/", "report/")) and not unjudged
