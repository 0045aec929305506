"""The mixture ledger."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from ddptrain.reporting.ledger import COLUMNS, Ledger, plan_markdown, plan_table


@dataclass(frozen=True)
class Row:
    name: str
    size: int
    share: float
    per_epoch: float = 1000.0

    @property
    def samples_per_epoch(self) -> float:
        return self.share * self.per_epoch

    @property
    def passes_per_epoch(self) -> float:
        return self.samples_per_epoch / self.size

    @property
    def epochs_per_pass(self) -> float:
        return 1 / self.passes_per_epoch if self.share else math.inf


PLAN = [Row("big", 100_000, 0.5), Row("mid", 300, 0.3), Row("tiny", 10, 0.2), Row("off", 7, 0.0)]


def test_the_plan_as_a_table() -> None:
    table = plan_table(PLAN)
    assert all(len(row) == len(COLUMNS) for row in table)
    assert table[1] == ["mid", 300, 0.3, 300, 1.0, 1.0]
    assert table[3][-1] is None
    lines = plan_markdown(PLAN).splitlines()
    assert len(lines) == 2 + len(PLAN)
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 1}


def test_losses_per_dataset() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, (20, 3))
    losses = counts * rng.random((20, 3))
    ledger = Ledger(PLAN)
    for loss, count in zip(losses, counts):
        ledger.add([*loss, 0.0], [*count, 0.0])
    window = ledger.read()
    for k in range(3):
        assert window[k].per_image == pytest.approx(losses[:, k].sum() / counts[:, k].sum())
        assert window[k].share == pytest.approx(losses[:, k].sum() / losses.sum())
    assert math.isnan(window[3].per_image)
    assert all(math.isnan(w.per_image) for w in ledger.read()), "the window starts anew"
    assert ledger.losses[0] == window[0], "what a dataset last had is kept"


def test_a_loss_that_is_not_finite_spoils_nothing() -> None:
    ledger = Ledger(PLAN)
    ledger.add([2.0, 1.0, 0.0, 0.0], [1, 1, 0, 0])
    ledger.add([math.nan, 2.0, math.inf, 0.0], [4, 2, 1, 0])
    window = ledger.read()
    assert (window[0].per_image, window[1].per_image) == (2.0, 1.0)
    assert window[1].share == 0.6
    assert math.isnan(window[2].per_image)


def test_what_was_drawn() -> None:
    ledger = Ledger(PLAN)
    rows = ledger.summary([500, 300, 200, 0], {"mid": {"AP": 0.5}})
    big, mid, tiny, off = rows
    assert [r["share_drawn"] for r in rows] == [0.5, 0.3, 0.2, 0.0]
    assert (big["coverage"], mid["coverage"], tiny["coverage"], off["coverage"]) == (0.005, 1.0, 1.0, 0.0)
    assert (tiny["passes"], tiny["drawn"], mid["AP"]) == (20.0, 200, 0.5)
    assert "AP" not in big
    assert math.isnan(ledger.summary([0, 0, 0, 0])[0]["share_drawn"])


def test_scalars_have_a_curve_for_each_dataset() -> None:
    ledger = Ledger(PLAN)
    ledger.add([1.0, 3.0, 0.0, 0.0], [1, 1, 0, 0])
    scalars = ledger.scalars([1, 1, 0, 0], ledger.read())
    assert scalars["mixture_share_drawn/big"] == 0.5
    assert scalars["mixture_loss/mid"] == 3.0
    assert scalars["mixture_loss_share/mid"] == 0.75
    assert len(scalars) == 5 * len(PLAN)
