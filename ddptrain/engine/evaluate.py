"""Evaluation: every rank predicts its own whole groups of samples, nothing padded; rank 0 computes the metric for all. A group
stays together whatever the number of ranks: a prediction does not depend on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import nn

from ddptrain import distributed
from ddptrain.config.batch import evaluated_at_once
from ddptrain.data.loading.ahead import on_device
from ddptrain.data.loading.batches import eval_loader
from ddptrain.data.loading.loader import Wait
from ddptrain.distributed import World
from ddptrain.engine.arithmetic import autocast, inputs_of_any_size
from ddptrain.errors import RunFailed
from ddptrain.system.printable import counted
from ddptrain.tasks.base import Prediction, Task
from ddptrain.tasks.packed import Column, PackedPredictions

NAMED = 8
"""Images that could not be read that are named, each with the reason."""


@dataclass(frozen=True)
class Evaluation:
    """The outcome of an evaluation.

    Attributes:
        metrics: flat names to values, the same on every rank; `bad_images` counts those that could not be read.
        predictions: on rank 0 the predictions of each validation dataset by sample index; elsewhere empty.
        replaced: on rank 0 a line for each image that could not be read, and what took its place; elsewhere empty.
    """

    metrics: dict[str, float]
    predictions: list[Mapping[int, Prediction]] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)

    def warnings(self) -> list[str]:
        """Lines about images that could not be read: the first of them, and their number."""
        if not self.replaced:
            return []
        more = len(self.replaced) - NAMED
        images = counted(len(self.replaced), "validation image")
        total = f"{images} could not be read; the metrics count what was predicted from a grey image instead"
        return [*self.replaced[:NAMED], *([f"and {more} more"] if more > 0 else []), total]


@torch.inference_mode()
def _predict_shard(
    task: Task, model: nn.Module, world: World, wait: Wait | None
) -> tuple[list[dict[int, Prediction]], list[str]]:
    """This rank's shard: one mapping sample index → prediction per validation dataset, and what could not be read."""
    shard: list[dict[int, Prediction]] = [{} for _ in task.val]
    replaced: list[str] = []
    config = task.config
    with eval_loader(
        task.val_samples,
        [size for _, size in task.val],
        batch=task.val_batch or evaluated_at_once(config.eval.batch, config.train.micro_batch),
        rank=world.rank,
        world_size=world.size,
        workers=config.data.workers,
        shapes=task.val_shapes,
        pin_memory=world.device.type == "cuda",
        wait=wait,
    ) as loader:
        for micro in on_device(loader, world.device):
            replaced += micro.replaced
            with autocast(world.device, config.train.precision):
                predictions = task.predict(model, micro)
            for (_, dataset, index), prediction in zip(micro.keys.tolist(), predictions):
                shard[dataset][index] = prediction
    return shard, replaced


def evaluate(task: Task, model: nn.Module, world: World, wait: Wait | None = None) -> Evaluation:
    """Metrics of `model` on all validation datasets, the same on every rank and for any number of ranks.

    Args:
        task: its config says how many samples are forwarded at once, at which precision, and how many may be unreadable.
        model: unwrapped; put into eval mode here and left so.
        wait: how long to wait for a batch, and where trouble is reported.

    Raises:
        RunFailed: on every rank alike: too many images could not be read.
    """
    model.eval()
    with inputs_of_any_size():
        shard, lines = _predict_shard(task, model, world, wait)
    replaced = [line for own in distributed.gather_to_main(lines, "gathering what could not be read") for line in own]
    merged = gather_predictions(shard)
    images = sorted(set(replaced))  # several samples may be of one image

    def metrics() -> dict[str, float]:
        refuse_bad(replaced, sum(size for _, size in task.val), task.config.eval.max_bad_images)
        return task.metrics(merged) | {"bad_images": len(images)}

    return Evaluation(distributed.on_main(metrics, "the metrics of an evaluation"), merged, images)


def gather_predictions(shard: Sequence[Mapping[int, Prediction]]) -> list[Mapping[int, Prediction]]:
    """On rank 0 the predictions of all ranks for each dataset; elsewhere nothing."""
    packed = [PackedPredictions.pack(own) for own in shard]
    what = "gathering the predictions of an evaluation"
    headers = distributed.gather_to_main([list(own.columns) for own in packed], what)
    arrays = distributed.gather_arrays([a for own in packed for column in own.columns.values() for a in column], what)
    parts: list[list[PackedPredictions]] = [[] for _ in shard]
    for header, own in zip(headers, arrays):
        rest = iter(own)
        for number, keys in enumerate(header):
            parts[number].append(PackedPredictions({key: Column(*islice(rest, 3)) for key in keys}))
    return [PackedPredictions.join(of_dataset) for of_dataset in parts] if arrays else []


def refuse_bad(replaced: Sequence[str], samples: int, most: int | None) -> None:
    """Raise where the samples that could not be read are of more than `most` images, or (None) one in a hundred."""
    images = sorted(set(replaced))
    if (len(images) <= 1 or 100 * len(replaced) <= samples) if most is None else len(images) <= most:
        return
    limit = "one in a hundred, as eval.max_bad_images is not set" if most is None else f"eval.max_bad_images={most}"
    first = images[0].rpartition("; ")[0] or images[0]  # without what took its place
    raise RunFailed(
        f"{counted(len(images), 'validation image')} could not be read ({len(replaced)} of {samples} samples), more than "
        f"{limit}; the first: {first}; repair them, or raise eval.max_bad_images, and start again (resume=auto "
        "continues a run)"
    )
