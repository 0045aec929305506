"""Several looks at an image, and inputs without border: boxes come back to where they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import RUNS, write_config
from torch import nn

from ddptrain.config import load_config
from ddptrain.config.detection_eval import DetectionEval
from ddptrain.data.images.pixels import Pixels
from ddptrain.data.loading.batches import eval_loader
from ddptrain.data.samples.compose import Source, compose
from ddptrain.data.samples.detection import DetectionSamples, cut_border, rectangles
from ddptrain.models.test_time import detect, looks
from ddptrain.structures import Batch, Detections, SampleKey
from ddptrain.tasks.build import build_task


class BrightSpot:
    """A detector that finds the box of all bright pixels, and scores it by its place in the image: left is better."""

    def detect(self, model: nn.Module, batch: Batch) -> Sequence[Detections]:
        out = []
        for image in batch.images[:, 0]:
            y, x = (image > 127).nonzero(as_tuple=True)
            box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()[None]
            out.append(Detections(box, 1 - box[:, 0] / image.shape[1], torch.zeros(1, dtype=torch.int64)))
        return out


def spot(width: int = 128, height: int = 64) -> Batch:
    """One image with one white rectangle."""
    images = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    images[..., 16:32, 24:56] = 255
    empty: dict[str, Any] = {}
    return Batch(
        images, torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool), empty, *torch.zeros(2, 1, 2, 3)
    )


def test_looks() -> None:
    assert looks(DetectionEval()) == [(1.0, False)]
    both = looks(DetectionEval(flip=True, scales=(0.5, 1.0)))
    assert both == [(0.5, False), (0.5, True), (1.0, False), (1.0, True)]


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("flip", [False, True])
def test_every_look_finds_the_spot_where_it_is(scale: float, flip: bool) -> None:
    detector: Any = BrightSpot()
    settings = DetectionEval(flip=flip, scales=(scale,), nms_iou=1.0)
    (found,) = detect(detector, nn.Identity(), spot(), settings)
    assert len(found.boxes) == 1 + flip
    for box in found.boxes:
        assert box.tolist() == pytest.approx([24, 16, 56, 32], abs=1)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_depth_is_not_blended_with_what_is_unknown() -> None:
    batch = spot()
    depth = torch.where(torch.arange(128) % 6 < 3, 200, 0).to(torch.uint8).expand(1, 1, 64, 128)
    seen: list[torch.Tensor] = []

    class Keeper(BrightSpot):
        def detect(self, model: nn.Module, batch: Batch) -> Sequence[Detections]:
            seen.append(batch.images)
            return super().detect(model, batch)

    detector: Any = Keeper()
    detect(detector, nn.Identity(), replace(batch, images=torch.cat([batch.images, depth], 1)), DetectionEval(scales=(1.5,)))
    assert seen[0].shape == (1, 4, 96, 192)
    assert set(seen[0][:, 3].unique().tolist()) == {0, 200}
    assert len(seen[0][:, 0].unique()) > 2


def test_looks_are_joined_by_the_suppression() -> None:
    detector: Any = BrightSpot()
    (found,) = detect(detector, nn.Identity(), spot(), DetectionEval(flip=True, nms_iou=0.5))
    assert found.scores.tolist() == pytest.approx([1 - 24 / 128])  # not that of the mirror image
    plain = detector.detect(nn.Identity(), spot())
    lower = [replace(plain[0], scores=torch.full((1,), 0.1))]
    (known,) = detect(detector, nn.Identity(), spot(), DetectionEval(), lower)
    assert known is lower[0]  # what is known is not computed again


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1360, 765), (640, 640), (100, 7), (31, 640)])
def test_a_rectangle_holds_the_whole_image(size: tuple[int, int]) -> None:
    width, height = size
    image = np.full((height, width, 3), 255, np.uint8)
    none = np.zeros((0, 4), np.float32)
    box = np.array([[width * 0.2, height * 0.1, width * 0.9, height]], np.float32)
    whole = compose(SampleKey(0, 0, 0), [[Source(Pixels.of(image), box, np.zeros(1, int), none, np.ones(1, bool))]], 320)
    cut = cut_border(whole)
    assert (whole.image == 255).sum() == (cut.image == 255).sum()
    assert cut.image.shape[:2] == tuple(rectangles(np.array([size]), 320)[0, ::-1])
    assert all(side % 32 == 0 for side in cut.image.shape[:2])
    for sample in (whole, cut):
        corners = sample.targets["boxes"].reshape(2, 2) @ sample.to_native[:, :2].T + sample.to_native[:, 2]
        assert corners.reshape(4) == pytest.approx(box[0], abs=0.01)


def test_a_group_has_one_shape_and_every_image_is_in_one_group(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("rectangles")
    RUNS["detection"].write(folder)
    config = load_config(str(write_config("detection", folder, folder)), ["eval.rectangular=true"])
    task = build_task(config)
    assert isinstance(task.val_samples, DetectionSamples)
    seen = []
    for rank in (0, 1):
        with eval_loader(
            task.val_samples,
            [n for _, n in task.val],
            batch=3,
            rank=rank,
            world_size=2,
            workers=0,
            shapes=task.val_shapes,
        ) as loader:
            for batch in loader:
                seen += [tuple(k) for k in batch.keys[:, 1:].tolist()]
                assert batch.images.shape[2] < batch.images.shape[3] or batch.images.shape[2] == 64
    assert sorted(seen) == [(d, i) for d, (_, n) in enumerate(task.val) for i in range(n)]
    metrics = task.metrics([{} for _ in task.val])
    assert metrics["rectangular"] == 1
