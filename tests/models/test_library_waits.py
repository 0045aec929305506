"""How often the host waits for a GPU in networks of other libraries, as docs/gpu.md says; counted on the CPU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision.ops.boxes
from host_waits import HostCalls, HostWaits

from ddptrain.config import TorchvisionConfig
from ddptrain.models.torchvision_detectors import TorchvisionDetector, TorchvisionNetwork
from ddptrain.structures import Batch

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "gpu.md").read_text()
NAMES = {
    "Faster R-CNN": "fasterrcnn_mobilenet_v3_large_320_fpn",
    "SSDlite": "ssdlite320_mobilenet_v3_large",
    "RetinaNet": "retinanet_resnet50_fpn",
    "FCOS": "fcos_resnet50_fpn",
}


def images(count: int) -> Batch:
    """With two objects each."""
    n, g = 2 * count, torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(256, (count, 3, 128, 128), dtype=torch.uint8, generator=g),
        keys=torch.zeros(count, 3, dtype=torch.int64),
        annotated=torch.ones(count, 3, dtype=torch.bool),
        targets={
            "boxes": torch.tensor([[10.0, 10, 60, 60], [30, 40, 90, 100]] * count),
            "labels": torch.arange(n) % 3,
            "image": torch.arange(count).repeat_interleave(2),
        },
        to_native=torch.zeros(count, 2, 3),
        native_size=torch.full((count, 2), 128),
    )


@pytest.mark.parametrize("title", NAMES)
def test_a_detector_of_torchvision_waits_as_often_as_documented(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first forward pass, which makes anchors, is left out."""
    row = re.search(rf"^\| {re.escape(title)}[^|]*\| (\d+) \+ (\d+) an image", DOCS, re.MULTILINE)
    assert row is not None
    once, each = int(row[1]), int(row[2])
    # as on a GPU, where it loops over classes from 25 000 boxes on
    ops = torchvision.ops.boxes
    monkeypatch.setattr(ops, "_batched_nms_vanilla", ops._batched_nms_coordinate_trick)
    torch.manual_seed(0)
    config = TorchvisionConfig(name=NAMES[title], pretrained=False, pretrained_backbone=False)  # type: ignore[arg-type]
    network = TorchvisionNetwork(config, 3, 0.05, 100).train()
    detector = TorchvisionDetector.__new__(TorchvisionDetector)  # its loss is the network's own
    detector.loss(network, images(2))
    for count in (2, 3):
        with HostWaits() as waits, HostCalls() as calls:
            detector.loss(network, images(count))
        # in the kernel of the suppression the host waits, too
        assert waits.lines.total() + calls.calls.total() + waits.suppressions <= once + each * count


def test_the_masks_of_a_batch_are_matched_in_a_wait_for_each_image() -> None:
    """And one for all, whatever the number of layers."""
    pytest.importorskip("scipy", reason="pip install 'ddptrain[transformers]'")
    from ddptrain.config import MaskLossConfig
    from ddptrain.models.mask2former.loss import mask_sums

    g = torch.Generator().manual_seed(0)
    classes, masks = [torch.randn(2, 7, 5, generator=g)] * 3, [torch.randn(2, 7, 8, 8, generator=g)] * 3
    target = torch.randint(0, 3, (2, 32, 32), dtype=torch.uint8, generator=g)
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    with HostWaits() as waits, HostCalls() as calls:
        mask_sums(classes, masks, target, torch.ones(2, 4, dtype=torch.bool), generators, MaskLossConfig(points=20))
    assert calls.calls == {"cpu": 1 + 2}
    # of the copy that is on the host then
    assert all("nonzero" in line for line in waits.lines)
