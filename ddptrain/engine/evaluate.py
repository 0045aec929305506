"""Evaluation: every rank predicts its own whole groups of samples, nothing padded; rank 0 computes the metric for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ddptrain import distributed
from ddptrain.data.loader import eval_loader
from ddptrain.distributed import World
from ddptrain.tasks.base import Prediction, Task


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: flat names to values, the same on every rank.
        predictions: on rank 0 the predictions of each validation dataset by sample index; elsewhere empty.
        replaced: a line for each sample that could not be read.
    """

    metrics: dict[str, float]
    predictions: list[Mapping[int, Prediction]] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)


@torch.inference_mode()
def predict_shard(
    task: Task, model: nn.Module, world: World, *, batch: int, workers: int, precision: str
) -> tuple[list[dict[int, Prediction]], list[str]]:
    """This rank's shard: one mapping sample index → prediction per validation dataset, and what could not be read.

    Groups of `batch` consecutive samples stay together whatever the number of ranks: a prediction does not depend on it.
    """
    shard: list[dict[int, Prediction]] = [{} for _ in task.val]
    replaced: list[str] = []
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    loader = eval_loader(
        task.val_samples,
        [size for _, size in task.val],
        batch=batch,
        rank=world.rank,
        world_size=world.size,
        workers=workers,
        pin_memory=world.device.type == "cuda",
    )
    with loader:
        for micro in loader:
            replaced += micro.replaced
            with torch.autocast(world.device.type, dtype=dtype, enabled=precision != "none"):
                predictions = task.predict(model, micro.to(world.device))
            for (_, dataset, index), prediction in zip(micro.keys.tolist(), predictions):
                shard[dataset][index] = prediction
    return shard, replaced


def evaluate(task: Task, model: nn.Module, world: World, *, batch: int, workers: int, precision: str = "none") -> Evaluation:
    """Metrics of `model` on all validation datasets, the same on every rank and for any number of ranks.

    Args:
        model: unwrapped; put into eval mode here and left so.
        batch: samples forwarded at once.
        workers: loader processes of this rank.
        precision: "none", "bf16" or "fp16".
    """
    model.eval()
    shard = predict_shard(task, model, world, batch=batch, workers=workers, precision=precision)
    shards = distributed.gather_objects(shard, "gathering the predictions of an evaluation")
    merged: list[Mapping[int, Prediction]] = []
    if world.main:
        merged = [{k: v for part, _ in shards for k, v in part[number].items()} for number in range(len(task.val))]
    metrics = distributed.broadcast_object(task.metrics(merged) if world.main else None, "the metrics of an evaluation")
    return Evaluation(metrics, merged, [line for _, lines in shards for line in lines])
