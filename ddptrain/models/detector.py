"""What every detector offers: the loss of a batch, its detections, and both in an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ddptrain.config import LossConfig
from ddptrain.config.detection_eval import DetectionEval
from ddptrain.structures import Batch, Detections, LossSum


class DetectorSettings(NamedTuple):
    """What a detector may use of a run beside its own `model` section.

    Attributes:
        num_classes: classes of the run, >= 1.
        image_size: side of the square input in pixels.
        loss, evaluation: these sections of the config.
        global_batch: samples of a step over all ranks.
        class_weights: float32 `[C]`: factors on the loss of each class's scores, or None.
        box_sizes: float64 `[n, 2]`: width and height of the training boxes in pixels of the input; None if not read.
        seed: of the run.
    """

    num_classes: int
    image_size: int
    loss: LossConfig
    evaluation: DetectionEval
    global_batch: int
    class_weights: Tensor | None = None
    box_sizes: NDArray[np.float64] | None = None
    seed: int = 0


class Judged(NamedTuple):
    """An evaluated batch.

    Attributes:
        detections: of each image.
        losses: its loss parts by name, float32 `[B]`.
        normalizers: what their sum is divided by, float32 `[B]`.
        without_point: objects that the assigner leaves without a point, float32 `[B]`; None where there is no such thing.
    """

    detections: Sequence[Detections]
    losses: Mapping[str, Tensor]
    normalizers: Tensor
    without_point: Tensor | None = None


class Detector(Protocol):
    """A network for detection with its loss and its decoding. It holds settings; the weights stand in the `model` that `build`
    makes and that the other methods take, since training wraps it (DDP, compilation).

    Attributes:
        channels: channels of the images that the network takes.
        partial_labels: whether the loss leaves out ignore regions and classes that an image's dataset does not label; else
            both are learned as background.
        notes: lines for the log about what it made of the training boxes.
    """

    channels: int
    partial_labels: bool
    notes: Sequence[str]

    def build(self) -> nn.Module:
        """The network, on the CPU, from torch's current random state or from published weights."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Summed loss of a micro batch, of a model in training mode."""
        ...

    def detect(self, model: nn.Module, batch: Batch) -> Sequence[Detections]:
        """The detections of each image, best first, in pixels of the input, of a model in eval mode."""
        ...

    def judge(self, model: nn.Module, batch: Batch) -> Judged:
        """Detections and losses of a batch, of a model in eval mode, which stays as it is."""
        ...
