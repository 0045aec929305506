"""What the size weights do, inspected before training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddptrain.config import load_config
from ddptrain.data.inspect.statistics import EDGES, Sizes
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.reporting.page import Section
from ddptrain.tasks.detection.inspect import _report_box_loss
from ddptrain.tasks.inspection.base import DataSet, Inspection
from ddptrain.tasks.inspection.twins import _quota, _spread


def inspected(config: Path, *overrides: str) -> tuple[Section, Inspection]:
    """For a dataset of which 92.4 % of the boxes are small."""
    run = load_config(config, overrides)
    columns = ("sizes", "offsets", "labels", "boxes", "ignore", "crowd", "area")
    table = AnnotationTable(
        name="a", root="a", names=(), paths=Paths.pack(()), **{c: np.zeros((4, 2), np.int32) for c in columns}
    )
    sizes = Sizes(np.zeros(3, np.int64), np.array([924, 56, 20]), np.zeros(len(EDGES) + 1, np.int64), 0, 0.0)
    section, out = Section("Sizes"), Inspection()
    data = DataSet("train", 0, run.data.train[0], table, np.ones(3, bool), table, Faults())
    _report_box_loss(run.loss.size_weights, [data], [4], [sizes], section, out)
    return section, out


def test_what_a_weight_does(config: Path) -> None:
    section, out = inspected(config, "loss.size_weights.small=2")
    assert out.facts["box_loss"]["small"] == pytest.approx(0.9605, abs=1e-4)
    assert "96.0 % small" in section.lines[1] or "96.1 % small" in section.lines[1]
    assert "give small boxes 96 % of the box loss, with 92.4 % of the boxes" in out.warnings[0]


def test_small_boxes_alone_are_no_reason_to_warn(config: Path) -> None:
    section, out = inspected(config)
    assert len(section.lines) == 1
    assert "92.4 % small" in section.lines[0]
    assert out.warnings == []
    assert inspected(config, "loss.size_weights.large=5")[1].warnings == []


@pytest.mark.parametrize("images", [0, 10, 100, 300])
def test_validation_images_are_opened_first(images: int) -> None:
    sizes, val = [300, 100, 40, 5], [False, False, True, True]
    quota = _quota(sizes, val, images)
    assert all(0 <= q <= n for q, n in zip(quota, sizes))
    assert sum(quota) <= (images or sum(sizes))
    assert images == 0 or sum(quota) > images - len(sizes)
    if images >= 100:
        assert quota[2:] == [40, 5]
    spread = _spread(sizes[0], quota[0])
    assert len(set(spread.tolist())) == quota[0]
