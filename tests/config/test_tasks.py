"""A config that mixes tasks is told so in one line; one that names no model or loss gets those of its task."""

from __future__ import annotations

import pytest
from bare_config import bare as run

from ddptrain.config import ImageLossConfig, LossConfig, resolve
from ddptrain.errors import UserError


def test_defaults_follow_the_task() -> None:
    assert resolve(run("detection")).loss == LossConfig()
    found = resolve(run("classification", loss={"label_smoothing": 0.1}))
    assert found.model.name == "resnet18"
    assert found.loss == ImageLossConfig(label_smoothing=0.1)
    assert resolve(run("classification"), ["loss.name=bce"]).loss == ImageLossConfig(name="bce")


@pytest.mark.parametrize(
    ("task", "override", "line"),
    [
        (
            "classification",
            "model.name=yolo",
            'model.name: "yolo": only for detection, not for classification; allowed: ',
        ),
        (
            "detection",
            "model.name=resnet18",
            'model.name: "resnet18": only for classification, not for detection; allowed: ',
        ),
        ("classification", "loss.box=7", "loss.box: only for detection, not for classification; remove it"),
        ("classification", "loss.smoothing=0.1", "loss.smoothing: unknown key; did you mean label_smoothing"),
        ("interaction", "data.train.0.holdout=0.1", "data.train.0.holdout: only for detection, classification and seg"),
        ("detection", "data.augment.mix_alpha=2", "data.augment.mix_alpha: only for classification"),
        ("classification", "eval.nms_iou=0.5", "eval.nms_iou: only for detection"),
        (
            "classification",
            "data.val.0.format=coco",
            'data.val.0.format: "coco": only for detection, not for classification; allowed: folder',
        ),
        (
            "classification",
            "loss.class_weights=[1, 2, 3]",
            "loss.class_weights: 3 numbers for 2 classes; give one number ≥ 0 for each class",
        ),
        ("detection", "task=dance", 'task: "dance": allowed: detection'),
    ],
)
def test_what_is_of_another_task(task: str, override: str, line: str) -> None:
    with pytest.raises(UserError) as e:
        resolve(run(task), [override])
    assert line in str(e.value)
    assert "\n" not in str(e.value)
