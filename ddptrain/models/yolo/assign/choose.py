"""The assigner of a run, by the name in its config."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ddptrain.config import LossConfig
from ddptrain.losses.boxes import iou, similarity
from ddptrain.models.yolo.assign.base import Assignment, Objects
from ddptrain.models.yolo.assign.centre import by_centre
from ddptrain.models.yolo.assign.every_object import give_each_a_point
from ddptrain.models.yolo.assign.ratio import by_ratio
from ddptrain.models.yolo.assign.simota import simota
from ddptrain.models.yolo.assign.task_aligned import task_aligned
from ddptrain.models.yolo.prediction import AnchorPrediction, Prediction


@torch.no_grad()
def assign(pred: Prediction, decoded: Tensor, objects: Objects, annotated: Tensor, config: LossConfig) -> Assignment:
    """Which points of the prediction learn which objects.

    Args:
        decoded: float32 `[B, P, 4]`: the predicted boxes.
        annotated: bool `[B, C]`: classes that are known in each image.
        config: names the assigner, and has its settings.
    """
    images = len(decoded)
    alike = iou if config.assign_by == "iou" else partial(similarity, kind="nwd", scale=config.nwd_scale)
    assigner = config.assigner or ("rule" if isinstance(pred, AnchorPrediction) else "task_aligned")
    if assigner == "task_aligned":
        got = task_aligned(pred, decoded, objects, alike, topk=config.topk, alpha=config.alpha, beta=config.beta)
    elif assigner == "simota":
        got = simota(pred, decoded, objects, alike, annotated, topk=config.topk)
    elif isinstance(pred, AnchorPrediction):
        got = by_ratio(pred, objects, images, limit=config.anchor_t, least=config.iou_t)
    else:
        got = by_centre(pred, objects, images)
    return give_each_a_point(got, pred, objects, images) if config.every_object else got
