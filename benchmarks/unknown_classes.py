"""Four drone sets that label different things: the loss of what a set does not label, with the mask and without.

    python benchmarks/unknown_classes.py [--config configs/bench/drones.yaml] [--epochs 6] [--out runs/unknown_classes]

Trains the mixture twice, as it is and with `annotated: all` for every training set. Every step of the run notes what the
classes that a set does not label add to the loss of its samples, and to the gradient: with the mask exactly 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from short_runs import summary_of
from torch import Tensor, nn

from ddptrain.config import YoloConfig, resolve
from ddptrain.models.build import DETECTORS
from ddptrain.models.detector import DetectorSettings
from ddptrain.models.yolo.detector import YoloDetector
from ddptrain.models.yolo.loss import detection_loss
from ddptrain.models.yolo.prediction import DensePrediction
from ddptrain.structures import Batch, LossSum
from ddptrain.tasks.detection.task import DetectionTask

CASES = {"masked": None, "as background": "all"}


class UnknownLosses(YoloDetector):
    """The detector, whose loss notes besides what the classes that a set does not label add to it.

    Attributes:
        unknown: bool `[D, C]`: the set does not label the class.
        sums: float64 `[D, C]`: what the loss of its samples loses where the scores of such a class are taken to be 0.
        gradient: float64 `[D, C]`: sum of |d loss / d score| of each class in the run's own backward pass.
    """

    def __init__(self, unknown: np.ndarray, model: YoloConfig, settings: DetectorSettings) -> None:
        super().__init__(model, settings)
        self.unknown, self.config = unknown, settings.loss
        self.sums = np.zeros(unknown.shape)
        self.gradient = np.zeros(unknown.shape)
        self.samples = np.zeros(len(unknown), np.int64)

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """The loss as the run asks for it."""
        predictions: list[DensePrediction] = []

        def remember(images: Tensor) -> DensePrediction:
            predictions.append(model(images))
            return predictions[0]

        loss = super().loss(remember, batch)  # type: ignore[arg-type]
        (prediction,) = predictions
        rows = batch.keys[:, 1].numpy()
        self.samples += np.bincount(rows, minlength=len(self.samples))
        prediction.logits.register_hook(lambda g: np.add.at(self.gradient, rows, g.abs().sum(1).double().numpy()))
        with torch.no_grad():
            whole = self._per_sample(prediction, batch)
            for c in np.flatnonzero(self.unknown.any(0)):
                logits = prediction.logits.clone()
                logits[..., c] = -1e4  # a score of 0 costs nothing as background
                less = whole - self._per_sample(prediction._replace(logits=logits), batch)
                np.add.at(self.sums[:, c], rows, less * self.unknown[rows, c])
        return loss

    def _per_sample(self, prediction: DensePrediction, batch: Batch) -> np.ndarray:
        loss = detection_loss(prediction, **batch.targets, annotated=batch.annotated, config=self.config)
        assert loss.per_sample is not None
        return loss.per_sample.double().numpy()


def run_case(content: dict[str, Any], case: str, unknown: np.ndarray, options: argparse.Namespace) -> tuple[UnknownLosses, Any]:
    """Train one case; what was noted, and the run's summary."""
    config = {
        **content,
        "name": case.replace(" ", "_"),
        "output": str(options.out),
        "train": {"epochs": options.epochs},
        "eval": {"every_epochs": None},
        "monitor": {"tensorboard": False},
    }
    if CASES[case] is not None:
        config["data"] = {**content["data"], "train": [{**d, "annotated": CASES[case]} for d in content["data"]["train"]]}
    noted: list[UnknownLosses] = []

    def detector(model: YoloConfig, settings: DetectorSettings) -> UnknownLosses:
        noted.append(UnknownLosses(unknown, model, settings))
        return noted[-1]

    DETECTORS["yolo"] = detector
    try:
        summary = summary_of(config, [])
    finally:
        DETECTORS["yolo"] = YoloDetector
    if not noted[-1].samples.any():
        raise SystemExit(f"{options.out} holds these runs already; give another --out")
    return noted[-1], summary


def main() -> None:
    parser = argparse.ArgumentParser(description="The loss of unknown classes, with the mask and without.")
    parser.add_argument("--config", type=Path, default=Path("configs/bench/drones.yaml"))
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--out", type=Path, default=Path("runs/unknown_classes"))
    options = parser.parse_args()
    content = yaml.safe_load(options.config.read_text())
    task = DetectionTask(resolve(content, source=str(options.config)))
    task.read()
    unknown = ~task.train.annotated
    found = {case: run_case(content, case, unknown, options) for case in CASES}
    print(
        f"\nWhat unknown classes added to the loss in {options.epochs:g} epochs (and the sum of |gradient| of their scores).\n"
    )
    print("| dataset | samples | unknown class | " + " | ".join(CASES) + " |\n|---|---|---|" + "---|" * len(CASES))
    for d, c in np.argwhere(unknown):
        values = [f"{noted.sums[d, c]:.1f} ({noted.gradient[d, c]:.1f})" for noted, _ in found.values()]
        samples = found["masked"][0].samples[d]
        print(f"| {content['data']['train'][d]['name']} | {samples} | {content['classes'][c]} | " + " | ".join(values) + " |")
    exact = (found["masked"][0].sums[unknown] == 0).all() and (found["masked"][0].gradient[unknown] == 0).all()
    print(f"\nWith the mask all of them are {'exactly 0' if exact else 'NOT 0'}.")
    for case, (_, summary) in found.items():
        print(f"{case}: AP {100 * summary['AP']:.1f}, mean of the datasets {100 * summary['AP_datasets']:.1f}")


if __name__ == "__main__":
    main()
