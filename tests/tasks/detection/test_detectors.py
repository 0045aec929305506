"""The validation loss of detectors: that of training, on what is evaluated, without a trace in the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddptrain import distributed
from ddptrain.config import load_config
from ddptrain.engine.evaluate import evaluate
from ddptrain.models.yolo.anchors import default_anchors
from ddptrain.structures import SampleKey
from ddptrain.tasks.build import build_task


@pytest.mark.parametrize(
    "overrides",
    [["model.norm=group"], ["model={name: ssdlite320_mobilenet_v3_large}", "data.allow_missing_annotations=true"]],
    ids=["yolo", "torchvision"],
)
def test_it_is_that_of_training_and_leaves_no_trace(config: Path, overrides: list[str]) -> None:
    run = load_config(config, [*overrides, "eval.batch=4", "data.workers=0"])
    task, world = build_task(run), distributed.discover("cpu", {})
    torch.manual_seed(0)
    net = task.build_model()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    first, second = (evaluate(task, net, world).metrics for _ in range(2))
    assert first["loss"] == second["loss"] == pytest.approx(sum(v for k, v in first.items() if k.startswith("loss/")))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(m.training for m in net.modules())
    if run.model.name == "yolo":
        keys = [SampleKey(0, d, i) for d, (_, size) in enumerate(task.val) for i in range(size)]
        with torch.no_grad():
            loss = task.loss(net, task.val_samples.collate([task.val_samples[k] for k in keys]))
        assert first["loss"] == pytest.approx(float(sum(loss.parts.values()) / loss.normalizer), rel=1e-5)
        task.config = run.model_copy(update={"eval": run.eval.model_copy(update={"batch": 5})})
        own = evaluate(task, net, world).metrics
        assert own["loss"] == pytest.approx(first["loss"], rel=1e-5)


def test_objects_without_a_point_are_counted_whatever_the_batch(config: Path) -> None:
    """FCOS's rule leaves out what lies between the points; no object stays without one where each is given one."""
    counts, said = [], []
    for overrides in (["eval.batch=2"], ["eval.batch=5"], ["eval.batch=5", "loss.every_object=true"]):
        run = load_config(config, ["model.norm=group", "loss.assigner=rule", "data.workers=0", *overrides])
        task = build_task(run)
        torch.manual_seed(0)
        metrics = evaluate(task, task.build_model(), distributed.discover("cpu", {})).metrics
        counts.append(metrics["objects_without_point"])
        said.append([line for line in task.view.remarks(metrics) if "would get no point" in line])
    assert counts[0] == counts[1] > 0 == counts[2]
    assert said[0] == said[1]
    assert said[0][0].startswith(f"{counts[0]:g} objects would get no point from loss.assigner in training")
    assert said[2] == []


def test_anchors_are_fitted_beside_init_from(config: Path) -> None:
    """The other run may have none: that of an anchor-free head, or one whose config gives them."""
    keys = ["model.head=anchor_based", "data.image_size=32"]  # too small for the default anchors
    alone, after = (build_task(load_config(config, [*keys, *more])) for more in ([], ["init_from=runs/other"]))
    fitted = alone.build_model().get_buffer("head.anchors")
    assert not torch.equal(fitted, torch.tensor(default_anchors((8, 16))))
    assert torch.equal(after.build_model().get_buffer("head.anchors"), fitted)
    assert any("if it fitted some, take their place" in note for note in after.notes)
