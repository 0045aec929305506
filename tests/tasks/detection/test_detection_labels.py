"""What each dataset knows, through the whole task: loss, refusal, metric."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ddptrain.config import RunConfig, load_config
from ddptrain.data.loading.batches import train_loader
from ddptrain.errors import UserError
from ddptrain.structures import SampleKey
from ddptrain.tasks.build import build_task
from ddptrain.tasks.detection.task import DetectionTask

PEDESTRIAN, STREETS = 2, 1  # a class, and the dataset that does not label it


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPTRAIN_CACHE", str(tmp_path / "cache"))


def detection(config: RunConfig) -> DetectionTask:
    """The task with its datasets."""
    task = build_task(config)
    assert isinstance(task, DetectionTask)
    return task


def class_bias_gradient(task: DetectionTask, keys: list[SampleKey]) -> torch.Tensor:
    """Gradient of a loss with respect to the prediction of each class, summed over the image: `[B, classes]`."""
    torch.manual_seed(0)
    model = task.build_model().eval()
    seen = []

    class Noted(torch.nn.Module):
        def forward(self, images: torch.Tensor):  # type: ignore[no-untyped-def]
            out = model(images)
            out.logits.retain_grad()
            seen.append(out.logits)
            return out

    task.loss(Noted(), task.train.collate([task.train[k] for k in keys])).total.backward()
    return seen[0].grad.abs().sum(1)


def test_the_loss_of_an_unknown_class_is_exactly_zero(config: Path) -> None:
    task = detection(load_config(config))
    grad = class_bias_gradient(task, [SampleKey(i, i % 2, i) for i in range(6)])
    assert (grad[1::2, PEDESTRIAN] == 0).all()
    assert (grad[0::2] > 0).all()
    assert (grad[1::2, :2] > 0).all()


def test_in_a_mosaic_it_is_zero_where_the_dataset_is(config: Path) -> None:
    task = detection(load_config(config, ["data.augment.mosaic=1", "data.augment.mixup=0.5", "data.augment.close_epochs=0"]))
    assert any("mosaic in 100% and mixup in 50%" in n for n in task.notes)
    mixed = 0
    for position in range(12):
        dataset, index = (int(v[0]) for v in task.sampler.keys(np.array([position])))
        sample = task.train[SampleKey(position, dataset, index)]
        mixed += len(sample.targets["tiles"]) > 0
        # what skyview labels is everything, so only tiles of streets are told
        assert not sample.targets["tile_annotated"][:, PEDESTRIAN].any()
    assert mixed > 6
    grad = class_bias_gradient(task, [SampleKey(i, 0, i) for i in range(4)])
    assert (grad > 0).all()


def test_a_mosaic_does_not_depend_on_the_workers(config: Path) -> None:
    task = detection(load_config(config, ["data.augment.mosaic=0.5", "data.augment.mixup=0.5", "data.augment.close_epochs=0"]))
    seen = []
    for workers in (0, 2):
        with train_loader(
            task.train, task.sampler.keys, position=24, steps=2, global_batch=12, micro_batch=6, rank=0, world_size=1,
            workers=workers,
        ) as loader:  # fmt: skip
            seen.append(list(loader))
    for a, b in zip(*seen):
        assert torch.equal(a.images, b.images)
        assert a.targets.keys() == b.targets.keys()
        assert all(torch.equal(v, b.targets[k]) for k, v in a.targets.items())


def test_mosaic_ends_before_the_last_epochs(config: Path) -> None:
    options = ["data.augment.mosaic=1", "train.steps=8", "data.augment.close_epochs=1"]
    task = detection(load_config(config, options))
    assert task.train.partners is not None
    # 8 steps of 12 samples are 96; an epoch has 48
    assert task.train.partners.until == 48
    late = detection(load_config(config, ["data.augment.mosaic=1", "train.steps=8"]))
    assert any("close_epochs is as long as the run" in n for n in late.notes)


def test_models_that_cannot_mask_refuse(config: Path) -> None:
    model = "model={name: fasterrcnn_mobilenet_v3_large_320_fpn}"
    with pytest.raises(UserError, match=r"streets does not label pedestrian.*allow_missing_annotations=true"):
        detection(load_config(config, [model]))
    task = detection(load_config(config, [model, "data.allow_missing_annotations=true"]))
    assert any("streets does not label pedestrian" in n for n in task.notes)
    detection(
        load_config(
            config, [model, "classes=[car, bus]", "data.train.0.drop=[pedestrian, '*']", "data.val.0.drop=[pedestrian, '*']"]
        )
    )


def truth_as_predictions(task: DetectionTask) -> list[dict[int, dict[str, np.ndarray]]]:
    """What a perfect model would say, and on streets false pedestrians besides."""
    out = []
    for number, table in enumerate(s.table for s in task.val_sets):
        found = {}
        for i in range(len(table)):
            rows = table.rows(i)
            learned = ~(table.ignore[rows] | table.crowd[rows])
            boxes, labels = table.boxes[rows][learned], table.labels[rows][learned].astype(np.int64)
            if number == STREETS:
                boxes, labels = np.concatenate([boxes, boxes]), np.concatenate([labels, np.full(len(labels), PEDESTRIAN)])
            found[i] = {"boxes": boxes, "labels": labels, "scores": np.full(len(labels), 0.9, np.float32)}
        out.append(found)
    return out


def test_a_class_is_scored_only_where_it_is_annotated(config: Path) -> None:
    task = detection(load_config(config, ["eval.protocols=[coco, visdrone, voc]"]))
    metrics = task.metrics(truth_as_predictions(task))
    assert metrics["AP"] == metrics["class/pedestrian/AP"] == metrics["dataset/streets/AP"] == pytest.approx(1)
    # and so by the other protocols
    for key in ("visdrone/AP", "dataset/skyview/visdrone/AP", "voc/AP", "dataset/streets/voc/AP"):
        assert metrics[key] == pytest.approx(1)
    assert "visdrone/AP" not in detection(load_config(config)).metrics(truth_as_predictions(task))


def test_detections_in_ignore_regions_cost_nothing(config: Path) -> None:
    task = detection(load_config(config, ["eval.protocols=[coco, visdrone]"]))
    found = truth_as_predictions(task)
    table = task.val_sets[0].table
    for i, p in found[0].items():
        regions = table.boxes[table.rows(i)][table.ignore[table.rows(i)]]
        centre = (regions[:, :2] + regions[:, 2:]) / 2
        inside = np.concatenate([centre - 4, centre + 4], 1)
        p["boxes"] = np.concatenate([inside, p["boxes"]])
        p["labels"] = np.concatenate([np.full(len(inside), PEDESTRIAN), p["labels"]])
        p["scores"] = np.concatenate([np.full(len(inside), 0.99, np.float32), p["scores"]])
    assert table.ignore.any()
    metrics = task.metrics(found)
    assert metrics["AP"] == metrics["visdrone/AP"] == pytest.approx(1)


def test_protocols_always_hold_coco(config: Path) -> None:
    with pytest.raises(UserError, match=r"eval.protocols.*coco must be among them"):
        load_config(config, ["eval.protocols=[visdrone]"])


@pytest.fixture
def with_depth(config: Path, scenes: Path, tmp_path: Path) -> list[str]:
    """Depth maps of skyview (the brightness of its images); overrides for a model that takes depth and its validity."""
    for path in (scenes / "skyview").rglob("images/*.jpg"):
        target = tmp_path / "depth" / path.relative_to(scenes / "skyview").with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    given = [f"data.{part}.0.depth={tmp_path / 'depth'}" for part in ("train", "val")]
    return [*given, "data.train.1.depth_missing=zeros", "data.val.1.depth_missing=zeros", "model.in_channels=5"]


@pytest.mark.parametrize("fusion", ["early", "add"])
def test_a_run_with_depth(config: Path, scenes: Path, with_depth: list[str], fusion: str) -> None:
    task = detection(load_config(config, [*with_depth, f"model.fusion={fusion}"]))
    model = task.build_model()
    batch = task.train.collate([task.train[SampleKey(i, i % 2, i)] for i in range(4)])
    assert batch.images.shape == (4, 5, 64, 64)
    assert batch.images[0, 4].any()
    assert not batch.images[1, 3:].any()
    loss = task.loss(model, batch)
    loss.total.backward()
    stem = [p for n, p in model.named_parameters() if n.startswith("backbone.") and "stem.conv.weight" in n]
    assert sum(p.shape[1] for p in stem) == 5
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stem)
    image = next((scenes / "skyview").rglob("images/*.jpg"))
    found, picture = task.predict_file(model.eval(), image, torch.device("cpu"), 0.25)
    assert found["width"] == 192
    assert picture.shape[2] == 3
    assert task.view.picture(task.train[SampleKey(0, 0, 0)]).shape[2] == 3


def test_a_model_without_depth_refuses_it(config: Path, with_depth: list[str]) -> None:
    with pytest.raises(UserError, match="skyview: `depth` is given"):
        detection(load_config(config, with_depth[:2]))
    with pytest.raises(UserError, match="streets: the model needs depth, but the dataset has none"):
        detection(load_config(config, [*with_depth[:2], "model.in_channels=4"]))
