"""What `data.balance` does in a run: the weights that follow from an evaluation, and how often each class was drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ddptrain.data.stream.balance import F64, Balance
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.reporting.table import Table
from ddptrain.system.printable import counted


class ClassBalance:
    """The same on every rank, and in the checkpoint: which weights hold follows from the last evaluation that came to its end.

    Attributes:
        drawn: int64 `[C]`: images so far that show each class.
    """

    def __init__(self, balance: Balance, sampler: DistributedWeightedSampler, classes: Sequence[str]) -> None:
        self._balance, self._sampler, self._classes = balance, sampler, tuple(classes)
        self._ap: list[float] | None = None
        self.drawn = np.zeros(len(classes), np.int64)

    @property
    def by_ap(self) -> bool:
        """Whether evaluations change the weights."""
        return self._balance.by_ap

    def count(self, first: int, samples: int) -> None:
        """Count the samples of a step, from the position of its first."""
        dataset, index = self._sampler.keys(np.arange(first, first + samples))
        self.drawn += sum(own.count(index[dataset == d]) for d, own in enumerate(self._balance.datasets))

    def judge(self, metrics: Mapping[str, float], position: int) -> None:
        """Take the weights that follow from an evaluation, from the next position on."""
        if self._balance.by_ap:
            self._take([metrics[f"class/{name}/AP"] for name in self._classes], position)

    def _take(self, ap: list[float], position: int) -> None:
        self._ap = ap
        self._sampler.reweigh(self._balance.weights(ap), position)

    def plan(self) -> Table:
        """What an epoch holds by the weights that hold now, beside what it would hold without them."""
        drawn = (self._expected(weights).round(1).tolist() for weights in (None, self._weights()))
        rows = zip(self._classes, self._images().astype(int).tolist(), *drawn)
        return Table(["class", "images", "an epoch draws", "with data.balance"], [list(row) for row in rows])

    def remarks(self) -> Iterator[str]:
        """A line for each dataset: how often its images are drawn in an epoch."""
        for row, weights in zip(self._sampler.plan(), self._weights()):
            if weights is None or not row.share:
                continue
            visits = row.samples_per_epoch * weights / weights.sum()
            never = int((visits == 0).sum())
            line = f"{row.name}: an image is drawn {visits[visits > 0].min():.3g} to {visits.max():.3g} times an epoch"
            yield line + (f"; {counted(never, 'image')} never" if never else "")

    def summary(self) -> list[dict[str, Any]]:
        """A row for each class: the images that show it, how many such images were drawn, and the AP by which they are."""
        rows = zip(self._classes, self._images().tolist(), self.drawn.tolist())
        out = [{"name": name, "images": int(n), "drawn": drawn} for name, n, drawn in rows]
        return out if self._ap is None else [row | {"drawn_by_ap": ap} for row, ap in zip(out, self._ap)]

    def _weights(self) -> list[F64 | None]:
        return self._balance.weights(self._ap)

    def _images(self) -> F64:
        return np.sum([d.expect(np.ones(d.images)) for d in self._balance.datasets], 0)

    def _expected(self, weights: Sequence[F64 | None] | None) -> F64:
        """Images in an epoch that show each class, by such weights; None for all alike."""
        out = np.zeros(len(self._classes))
        for d, (row, own) in enumerate(zip(self._sampler.plan(), self._balance.datasets)):
            given = None if weights is None else weights[d]
            if row.share:
                weight = np.ones(own.images) if given is None else given
                out += own.expect(row.samples_per_epoch * weight / weight.sum())
        return out

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"drawn": self.drawn.tolist(), "ap": self._ap, "since": self._sampler.since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a checkpoint of a run with the same classes."""
        if len(state["drawn"]) == len(self._classes):
            self.drawn[:] = state["drawn"]
            if self._balance.by_ap and state["ap"] is not None:
                self._take(list(state["ap"]), state["since"])
