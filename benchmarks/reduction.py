"""What it costs to add gradients in the same order on any number of ranks: `python benchmarks/reduction.py [--steps 12]`.

The step of a run (forward, backward, sums over all ranks, clipping, update) of the detector on random images, with
`train.reduction: ordered` and `fast` in turn, in the same processes, on 2 and 4 ranks of this machine over gloo, a thread each.
Ratios are medians over steps of the slowest rank. Memory counts copies of the gradients that a rank holds at most.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from typing import Any

import torch

from ddptrain import distributed
from ddptrain.config import resolve
from ddptrain.config.batch import split_batch
from ddptrain.distributed import Reduction, TreeSum, World
from ddptrain.distributed.tree import cover
from ddptrain.engine.step import Stepper
from ddptrain.optim.build import build_optimizer
from ddptrain.structures import Batch, LossSum
from ddptrain.tasks.build import new_task

KINDS: tuple[Reduction, Reduction] = ("fast", "ordered")


def make_batch(micro: int, size: int, number: int) -> Batch:
    """Random images with five boxes each."""
    r = torch.Generator().manual_seed(number)
    corners = torch.rand(5 * micro, 2, generator=r) * size * 0.6
    return Batch(
        images=torch.randint(0, 256, (micro, 3, size, size), generator=r, dtype=torch.uint8),
        keys=torch.stack([torch.arange(micro), torch.zeros(micro, dtype=torch.int64), torch.arange(micro)], 1),
        annotated=torch.ones(micro, 3, dtype=torch.bool),
        targets={
            "boxes": torch.cat([corners, corners + size * 0.2], 1),
            "labels": torch.randint(0, 3, (5 * micro,), generator=r),
            "image": torch.arange(micro).repeat_interleave(5),
            "ignore_boxes": torch.zeros(0, 4),
            "ignore_image": torch.zeros(0, dtype=torch.int64),
            "tiles": torch.zeros(0, 2, 3),
            "tile_annotated": torch.zeros(0, 3, dtype=torch.bool),
            "tile_image": torch.zeros(0, dtype=torch.int64),
        },
        to_native=torch.zeros(micro, 2, 3),
        native_size=torch.full((micro, 2), size),
    )


def make_stepper(world: World, size: str, image_size: int, micro: int, run: int, reduction: Reduction) -> Stepper:
    """As `build_state` makes it."""
    dataset = {"name": "a", "format": "coco", "root": "."}
    split = split_batch(micro * run * world.size, micro, world.size)
    config = resolve(
        {
            "classes": ["a", "b", "c"],
            "data": {"train": [dataset], "val": [dataset], "image_size": image_size},
            "model": {"name": "yolo", "size": size},
            "train": {"global_batch": split.global_batch, "micro_batch": micro, "reduction": reduction},
        }
    )
    task = new_task(config)
    torch.manual_seed(0)
    model = task.build_model().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(config.optimizer, model, split.global_batch)
    tree = TreeSum(world.rank, world.size, split.micro_batches)
    gradients = distributed.build_gradients(model, world, tree, reduction)

    def loss(model: torch.nn.Module, batch: Batch) -> LossSum:
        return task.loss(model, batch)

    return Stepper(model, loss, optimizer, gradients, tree, 1, world.device, clip_norm=10.0)


def rank_main(rank: int, ranks: int, port: int, options: dict[str, Any], results: Any) -> None:
    """Time both reductions in turn; rank 0 hands over milliseconds per step of the slowest rank."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(ranks),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)
    world = distributed.discover("cpu")
    with distributed.process_group(world, 600):
        size, image_size, micro, run = (options[k] for k in ("size", "image_size", "micro", "run"))
        steppers = {kind: make_stepper(world, size, image_size, micro, run, kind) for kind in KINDS}
        batches = [make_batch(micro, image_size, 100 * rank + i) for i in range(run)]
        times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(options["steps"] + 2):
            for kind in KINDS if number % 2 else KINDS[::-1]:
                start = time.perf_counter()
                steppers[kind](copy.copy(batches), number)
                slowest = max(distributed.gather_objects(time.perf_counter() - start, "the times"))
                times[kind].append(slowest * 1e3)
        if world.main:
            results.put({kind: values[2:] for kind, values in times.items()})


def measure(ranks: int, port: int, options: dict[str, Any]) -> dict[str, list[float]]:
    """Milliseconds of each step, by reduction."""
    context = get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=rank_main, args=(r, ranks, port, options, results)) for r in range(ranks)]
    for process in processes:
        process.start()
    times: dict[str, list[float]] = results.get(timeout=1800)
    for process in processes:
        process.join()
    return times


def copies(ranks: int, run: int) -> float:
    """Copies of the gradients that a rank holds at most: the sums, what it kept of earlier micro batches, what it sends if
    that is not the sums themselves, and what it receives."""
    covers = [cover(r * run, (r + 1) * run) for r in range(ranks)]
    kept = max((len(cover(r * run, r * run + i)) for r in range(ranks) for i in range(1, run)), default=0)
    sent = max(len(nodes) if len(nodes) > 1 else 0 for nodes in covers)
    return 1 + kept + sent + sum(map(len, covers)) / ranks


def main(arguments: Sequence[str] | None = None) -> int:
    """A row for each size of the network, number of ranks and accumulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="steps of each reduction in a row")
    parser.add_argument("--sizes", default="n,s", help="of the detector")
    parser.add_argument("--ranks", default="2,4")
    parser.add_argument("--runs", default="1,4", help="micro batches of each rank")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--micro-batch", type=int, default=4)
    args = parser.parse_args(arguments)
    print(f"{args.image_size} px, micro batch {args.micro_batch}, load {os.getloadavg()[0]:.1f}")
    print("size  ranks  micro batches each  fast ms  ordered ms  ratio  copies fast  ordered")
    port = 21_000 + os.getpid() % 9_000
    for size in args.sizes.split(","):
        for ranks in map(int, args.ranks.split(",")):
            for run in map(int, args.runs.split(",")):
                port += 1
                options = {
                    "size": size,
                    "image_size": args.image_size,
                    "micro": args.micro_batch,
                    "run": run,
                    "steps": args.steps,
                }
                times = measure(ranks, port, options)
                fast, ordered = (statistics.median(times[kind]) for kind in KINDS)
                ratio, most = statistics.median(b / a for a, b in zip(times["fast"], times["ordered"])), copies(ranks, run)
                print(
                    f"{size:4}  {ranks:5}  {run:18}  {fast:7.0f}  {ordered:10.0f}  {ratio:5.2f}  {1:11}  {most:7g}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
