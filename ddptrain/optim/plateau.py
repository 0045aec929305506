"""When a learning rate is lowered because a metric has stopped improving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Plateau:
    """Counts evaluations without a better value, by the rule of `torch.optim.lr_scheduler.ReduceLROnPlateau` with a relative
    threshold; its `patience` is one less than this one.

    Attributes:
        patience: evaluations without a better value after which the rate is lowered, >= 1.
        threshold: part of the best value by which a better one must differ from it, >= 0.
        lowered: how often the rate was lowered.
        best: value so far; None before the first.
        waited: evaluations since the best value, or since the rate was lowered.
    """

    patience: int
    threshold: float
    lowered: int = 0
    best: float | None = None
    waited: int = 0

    def judge(self, value: float, lower_is_better: bool) -> None:
        """Take the value of an evaluation; one that is nan (undefined) changes nothing."""
        if math.isnan(value):
            return
        sign = -1 if lower_is_better else 1
        if self.best is None or sign * (value - self.best * (1 + sign * self.threshold)) > 0:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.waited >= self.patience:
            self.lowered, self.waited = self.lowered + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: value for name, value in asdict(self).items() if name in ("lowered", "best", "waited")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state, under the present patience and threshold."""
        self.lowered, self.best, self.waited = state["lowered"], state["best"], state["waited"]
