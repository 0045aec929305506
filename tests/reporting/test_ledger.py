"""The mixture ledger."""

import math

import numpy as np
import pytest

from ddptrain.reporting.ledger import Ledger, plan_table
from ddptrain.structures import PlanRow


def planned(name: str, size: int, share: float, per_epoch: float = 1000.0) -> PlanRow:
    draws = share * per_epoch
    return PlanRow(name, size, share, draws, draws / size, size / draws if draws else math.inf)


PLAN = [planned("big", 100_000, 0.5), planned("mid", 300, 0.3), planned("tiny", 10, 0.2), planned("off", 7, 0.0)]


def test_the_plan_as_a_table() -> None:
    table = plan_table(PLAN)
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert table.rows[1] == ["mid", 300, 0.3, 300, 1.0, 1.0]
    assert table.rows[3][-1] is None
    lines = table.markdown().splitlines()
    assert len(lines) == 2 + len(PLAN)
    assert {line.count("|") for line in lines} == {len(table.columns) + 1}


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
    assert scalars["data/big/share_drawn"] == 0.5
    assert scalars["data/mid/loss"] == 3.0
    assert scalars["data/mid/loss_share"] == 0.75
    assert len(scalars) == 5 * len(PLAN)
