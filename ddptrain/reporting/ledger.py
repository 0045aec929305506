"""The mixture ledger: what a mixture will do, reported at the start, and what it did, counted while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddptrain.reporting.table import Table
from ddptrain.structures import PlanRow


def plan_table(plan: Sequence[PlanRow]) -> Table:
    """The plan of a mixture."""
    columns = ("dataset", "images", "share", "samples/epoch", "passes/epoch", "epochs/pass")
    rows = [
        [
            r.name,
            r.size,
            float(r.share),
            round(r.samples_per_epoch),
            float(r.passes_per_epoch),
            float(r.epochs_per_pass) if math.isfinite(r.epochs_per_pass) else None,
        ]
        for r in plan
    ]
    return Table(columns, rows)


@dataclass(frozen=True)
class DatasetLoss:
    """Loss of one dataset's samples in a window.

    Attributes:
        per_image: mean of the samples' own loss sums; nan where none was drawn.
        share: its part of the loss of all datasets, 0..1: how much of the gradient's sum it asks for.
    """

    per_image: float
    share: float


class Ledger:
    """Counts what each dataset of the mixture contributes, from sums over all ranks that every step brings along.

    Args:
        plan: the mixture's plan; its order gives the datasets' numbers.
        weighted: of each dataset, whether its samples have weights of their own; default: none has.
    """

    def __init__(self, plan: Sequence[PlanRow], weighted: Sequence[bool] | None = None) -> None:
        self.plan = list(plan)
        self._weighted = [False] * len(self.plan) if weighted is None else weighted
        self.losses = [DatasetLoss(math.nan, math.nan)] * len(self.plan)
        self._loss = [0.0] * len(self.plan)
        self._count = [0.0] * len(self.plan)

    def add(self, loss: Sequence[float], count: Sequence[float]) -> None:
        """Count a step: the summed loss of each dataset's samples (left out if not finite), and how many they were."""
        for i, (x, n) in enumerate(zip(loss, count)):
            if math.isfinite(x):
                self._loss[i] += x
                self._count[i] += n

    def read(self) -> list[DatasetLoss]:
        """Losses since the last reading; then the count restarts.

        A dataset of which nothing was drawn keeps its last value in `losses` and is nan in what is returned.
        """
        total = sum(self._loss)
        window = [
            DatasetLoss(s / n if n else math.nan, s / total if total > 0 else math.nan) for s, n in zip(self._loss, self._count)
        ]
        self.losses = [new if n else old for new, old, n in zip(window, self.losses, self._count)]
        self._loss, self._count = [0.0] * len(self.plan), [0.0] * len(self.plan)
        return window

    def scalars(self, drawn: Sequence[float], window: Sequence[DatasetLoss], pasted: Sequence[float] = ()) -> dict[str, float]:
        """Curves: `data/<name>/share_drawn`, `…/passes`, `…/coverage`, `…/loss`, `…/loss_share`; `…/pasted` if there are any.

        Args:
            drawn: draws of each dataset since the start of the run, over all ranks.
            window: what `read` returned.
            pasted: objects that copy-paste has added to those draws.
        """
        out: dict[str, float] = {}
        for row, counts, loss in zip(self.plan, self.achieved(drawn), window):
            numbers = {**counts, "loss": loss.per_image, "loss_share": loss.share}
            out |= {f"data/{row.name}/{key}": value for key, value in numbers.items()}
        return out | ({f"data/{row.name}/pasted": n for row, n in zip(self.plan, pasted)} if any(pasted) else {})

    def achieved(self, drawn: Sequence[float]) -> list[dict[str, float]]:
        """Per dataset `share_drawn` (0..1), `passes` and `coverage` (0..1).

        Coverage, the fraction of the samples that were seen, follows from the draws: no sample comes again before
        all came. Where the samples have weights that is not so, and it is nan.
        """
        total = sum(drawn)
        return [
            {
                "share_drawn": n / total if total else math.nan,
                "passes": n / row.size if row.size else math.nan,
                "coverage": min(n / row.size, 1.0) if row.size and not weighted else math.nan,
            }
            for row, n, weighted in zip(self.plan, drawn, self._weighted)
        ]

    def summary(
        self,
        drawn: Sequence[float],
        metrics: Mapping[str, Mapping[str, float]] | None = None,
        pasted: Sequence[float] = (),
    ) -> list[dict[str, Any]]:
        """The rows of `mixture` in `summary.json`.

        Args:
            drawn: as in `scalars`.
            metrics: by dataset name, what an evaluation measured on the dataset of that name (`AP` …), where there
                is one.
            pasted: as in `scalars`; `pasted` in the rows, where there are any.
        """
        added = [{"pasted": int(n)} for n in pasted] if any(pasted) else [{}] * len(self.plan)
        return [
            {
                "name": row.name,
                "size": row.size,
                "share_asked": row.share,
                "drawn": int(n),
                **counts,
                "loss": loss.per_image,
                "loss_share": loss.share,
                **more,
                **(metrics or {}).get(row.name, {}),
            }
            for row, n, counts, loss, more in zip(self.plan, drawn, self.achieved(drawn), self.losses, added)
        ]
