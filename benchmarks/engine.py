"""What the engine adds to a step: `python benchmarks/engine.py [--blocks 40] [--compare]`.

A hand-written loop and others do the same arithmetic with a tiny network on one CPU thread: forward, backward, clipping, SGD
with momentum, moving average of the weights. Ours is the loop of `ddptrain train` itself with everything on: seeding of the
step, schedule with warm-up, finite check, loss parts, loss per dataset, timing, a log line and TensorBoard every 50 steps.

Every loop is fed by a generator that runs a block of the hand-written loop before each of its own blocks, so that both meet the
same machine. Times are CPU times of the process (all threads, writers of logs too), which other programs on the machine do not
add to. `--compare` adds Accelerate and Lightning where they can be imported.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddptrain import distributed
from ddptrain.config import resolve
from ddptrain.config.batch import split_batch
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.engine.build import build_state
from ddptrain.engine.reporting import RunReporter
from ddptrain.engine.run_folder import RunFolder
from ddptrain.engine.stop import StopFlag
from ddptrain.engine.trainer import Run, run_steps
from ddptrain.structures import Batch, LossSum
from ddptrain.system.lock import RunLock

PROMISED_US = 60.0
BATCH, BLOCK = 16, 200
LR, MOMENTUM, WEIGHT_DECAY, DECAY, CLIP = 0.01, 0.937, 5e-4, 0.9999, 10.0


def network() -> nn.Module:
    """Some 5 k parameters, always the same ones."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def make_batch() -> Batch:
    """The one batch that every step sees."""
    torch.manual_seed(1)
    keys = torch.stack([torch.arange(BATCH), torch.arange(BATCH) % 2, torch.arange(BATCH)], 1)
    return Batch(
        images=torch.randint(0, 256, (BATCH, 3, 4, 4), dtype=torch.uint8),
        keys=keys,
        annotated=torch.ones(BATCH, 10, dtype=torch.bool),
        targets={"labels": torch.randint(0, 10, (BATCH,))},
        to_native=torch.zeros(BATCH, 2, 3),
        native_size=torch.full((BATCH, 2), 4),
    )


class TinyTask:
    """As much of a task as the loop of training asks for: two datasets, one loss."""

    classes = tuple("0123456789")
    notes: tuple[str, ...] = ()
    contents = ()
    monitors = ("accuracy",)
    train = None  # only asked for the names of unreadable images
    balance = None

    def __init__(self) -> None:
        self.sampler = DistributedWeightedSampler([1000, 1000], [1, 1], block=BATCH, num_replicas=1, rank=0, names=["a", "b"])

    def build_model(self) -> nn.Module:
        """The same network as everybody's."""
        return network()

    def at_step(self, batch: Batch, number: int) -> Batch:
        """As it is."""
        return batch

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Cross entropy, summed, with its parts."""
        each = F.cross_entropy(model(batch.images.float() / 255), batch.targets["labels"], reduction="none")
        total, per_sample = each.sum(), each.detach()
        return LossSum(total, torch.tensor(float(len(batch))), {"cls": total.detach()}, per_sample)


Feed = Iterator[Batch]
Loop = Callable[[Feed], None]


class Average:
    """The moving average as one writes it by hand."""

    def __init__(self, model: nn.Module) -> None:
        self.values = [p.detach() for p in model.parameters()]
        self.averages = [p.clone() for p in self.values]
        self.updates = 0

    def update(self) -> None:
        """After an update of the model."""
        self.updates += 1
        decay = DECAY * (1 - math.exp(-self.updates / 2000))
        torch._foreach_lerp_(self.averages, self.values, 1 - decay)


def plain_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean loss."""
    return F.cross_entropy(model(batch.images.float() / 255), batch.targets["labels"])


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of every loop but ours, which builds the same from its config: weights are decayed, biases are not."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.ndim == 1]},
    ]
    return torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM, nesterov=True, foreach=True)


class ByHand:
    """The hand-written loop, to be run a block at a time."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.model = batch, network()
        self.optimizer, self.average = sgd(self.model), Average(self.model)

    def block(self) -> float:
        """Run a block; seconds per step."""
        start = time.process_time()
        for _ in range(BLOCK):
            loss = plain_loss(self.model, self.batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.average.update()
        return (time.process_time() - start) / BLOCK


def ours(feed: Feed) -> None:
    """The loop of `ddptrain train`, on the state that it builds."""
    dataset = {"name": "a", "format": "coco", "root": "."}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        config = resolve(
            {
                "output": folder,
                "classes": list(TinyTask.classes),
                "data": {"train": [dataset], "val": [dataset]},
                "train": {"steps": 10**6, "global_batch": BATCH, "micro_batch": BATCH, "device": "cpu", "clip_norm": CLIP},
                "optimizer": {
                    "name": "sgd",
                    "lr": LR,
                    "momentum": MOMENTUM,
                    "weight_decay": WEIGHT_DECAY,
                    "scale_weight_decay": False,
                },
                "eval": {"every_epochs": None},
                "checkpoint": {"every_epochs": None},
                "monitor": {"every_steps": 50},
            }
        )
        task: Any = TinyTask()
        task.config = config
        world = distributed.discover("cpu")
        state = build_state(task, world, split_batch(BATCH, BATCH, 1))
        lock = RunLock(config.folder, print)
        run_folder = RunFolder(task, world, state, lock)
        run_folder.open()
        with StopFlag() as stop, contextlib.ExitStack() as stack:
            reporter = RunReporter(task, world, state, stack)
            run_steps(Run(task, world, state, run_folder, reporter, stop, lock), reporter.pace.batches(feed))


def with_accelerate(feed: Feed) -> None:
    """Accelerate's loop, as its documentation writes it."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = network()
    optimizer = sgd(model)
    average = Average(model)
    model, optimizer = accelerator.prepare(model, optimizer)
    for batch in feed:
        with accelerator.accumulate(model):
            loss = plain_loss(model, batch)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            average.update()


def with_lightning(feed: Feed) -> None:
    """Lightning's trainer with everything off that can be: no checkpoint, no progress bar, no logger."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()
            self.average = Average(self.model)

        def training_step(self, batch: Batch, index: int) -> Tensor:
            return plain_loss(self.model, batch)

        def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            super().optimizer_step(*args, **kwargs)
            self.average.update()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return sgd(self.model)

        def transfer_batch_to_device(self, batch: Batch, device: torch.device, index: int) -> Batch:
            return batch

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self) -> Feed:
            return feed

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_steps=10**6,
            max_epochs=-1,
            gradient_clip_val=CLIP,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Module(), torch.utils.data.DataLoader(Endless(), batch_size=None))


class Enough(Exception):
    """Ends a loop that has no end."""


def measure(loop: Loop, blocks: int) -> tuple[list[float], list[float]]:
    """Microseconds per step of the hand-written loop and of `loop`, block by block in turn, without the first blocks."""
    batch = make_batch()
    hand = ByHand(batch)
    plain: list[float] = []
    times: list[float] = []

    def feed() -> Feed:
        for _ in range(blocks):
            plain.append(hand.block() * 1e6)
            start = time.process_time()
            for _ in range(BLOCK):
                yield batch
            times.append((time.process_time() - start) / BLOCK * 1e6)
        raise Enough

    with contextlib.suppress(Enough):
        loop(feed())
    warm = blocks // 10 + 1
    return plain[warm:], times[warm:]


def main() -> None:
    """Print the table; exit 1 when ours adds more than is promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=40, help=f"blocks of {BLOCK} steps of each loop")
    parser.add_argument("--compare", action="store_true", help="measure Accelerate and Lightning, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    loops: dict[str, Loop] = {"ours": ours}
    if args.compare:
        others = {"accelerate": with_accelerate, "lightning": with_lightning}
        loops |= {name: loop for name, loop in others.items() if importlib.util.find_spec(name)}
    print(f"microseconds per step, medians of {args.blocks} blocks of {BLOCK} steps, load {os.getloadavg()[0]:.1f}")
    added = {}
    for name, loop in loops.items():
        plain, times = measure(loop, args.blocks)
        # block by block: what slows the machine for a while slows both
        added[name] = statistics.median(b - a for a, b in zip(plain, times))
        print(f"{name:11} {statistics.median(times):7.1f}   by hand {statistics.median(plain):7.1f}   added {added[name]:6.1f}")
    print(f"ours adds {added['ours']:.1f} us a step (promised: at most {PROMISED_US:.0f})")
    sys.exit(added["ours"] > PROMISED_US)


if __name__ == "__main__":
    main()
