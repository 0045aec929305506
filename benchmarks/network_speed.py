"""CPU time of a trained image, ours and the usual package's YOLO11n: forward, loss, backward, update; no data is loaded.

    python -m venv peer && peer/bin/pip install ultralytics
    python benchmarks/network_speed.py --peer peer/bin/python [--sizes 320 640] [--batch 16] [--rounds 7] [--profile]
                                       [key=value …]

Each contestant is a process of its own, with one thread, that is asked for a step at a time; they take turns, so that a busy
machine slows both. A number is the median over the rounds. Both get the same random images with the same boxes, and AdamW; the
loss is each one's own. GFLOPs are those of one forward pass of one image, counted in both by torch. `key=value` changes our
config (`train.precision=bf16`, `model.compile=true` …); `--profile` also shows where our time goes: by stage of the network,
and by operation of torch.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PARTS = ("forward", "loss", "backward", "update")
CLASSES, OBJECTS = 3, 13
"""Classes, and objects of an image: about as on BCCD."""
Losses = Callable[[], Tensor]
"""Forward pass and loss of one batch."""


def random_batch(batch: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images uint8 `[B, 3, S, S]`, channels-last; boxes float32 `[B * OBJECTS, 4]` in pixels; classes int64 `[B * OBJECTS]`."""
    r = np.random.default_rng(0)
    images = torch.from_numpy(r.integers(0, 256, (batch, size, size, 3), np.uint8)).permute(0, 3, 1, 2)
    sides = r.uniform(0.05, 0.3, (batch * OBJECTS, 2))
    corners = r.uniform(0, 1 - sides)
    boxes = torch.from_numpy(np.concatenate([corners, corners + sides], 1) * size).float()
    return images, boxes, torch.from_numpy(r.integers(0, CLASSES, batch * OBJECTS))


def ours(batch: int, size: int, overrides: list[str]) -> tuple[nn.Module, nn.Module, Losses]:
    """The network, the part of it that is called last, and its loss."""
    from ddptrain.config import resolve
    from ddptrain.engine.arithmetic import autocast
    from ddptrain.engine.network import as_called, build_network
    from ddptrain.structures import Batch
    from ddptrain.tasks.build import new_task

    data: dict[str, Any] = {part: [{"name": "none", "format": "yolo", "root": "none"}] for part in ("train", "val")}
    content = {"classes": [str(c) for c in range(CLASSES)], "data": data | {"image_size": size}}
    task = new_task(resolve(content | {"train": {"global_batch": batch}}, overrides, source="benchmark"))
    layout = torch.channels_last if task.config.train.channels_last else torch.contiguous_format
    model: Any = build_network(task).to(memory_format=layout)
    images, boxes, labels = random_batch(batch, size)
    images = images.contiguous(memory_format=layout)
    none = torch.zeros(0)
    targets = {
        "boxes": boxes, "labels": labels, "image": torch.arange(batch).repeat_interleave(OBJECTS),
        "ignore_boxes": none.view(0, 4), "ignore_image": none.long(), "tiles": none.view(0, 2, 3),
        "tile_annotated": none.bool().view(0, CLASSES), "tile_image": none.long(),
    }  # fmt: skip
    keys, known = torch.zeros(batch, 3, dtype=torch.int64), torch.ones(batch, CLASSES, dtype=torch.bool)
    made = Batch(images, keys, known, targets, torch.eye(3)[:2].repeat(batch, 1, 1), torch.full((batch, 2), size))

    called = as_called(model, task.config.model)

    def loss() -> Tensor:
        with autocast(images.device, task.config.train.precision):
            found = task.loss(called, made)
        return found.total / found.normalizer

    return model, called, loss


def peer(batch: int, size: int, overrides: list[str]) -> tuple[nn.Module, nn.Module, Losses]:
    """The same of the usual package."""
    tasks, cfg = importlib.import_module("ultralytics.nn.tasks"), importlib.import_module("ultralytics.cfg")
    model = tasks.DetectionModel("yolo11n.yaml", nc=CLASSES, verbose=False)
    model.args = cfg.get_cfg()
    images, boxes, labels = random_batch(batch, size)
    images = images.contiguous()  # as its loader gives them
    centres = torch.cat([boxes[:, :2] + boxes[:, 2:], 2 * (boxes[:, 2:] - boxes[:, :2])], 1) / (2 * size)
    rows = {
        "batch_idx": torch.arange(batch).repeat_interleave(OBJECTS).float(), "cls": labels.float()[:, None], "bboxes": centres,
    }  # fmt: skip
    return model, model.model[-1], lambda: model(rows | {"img": images.float() / 255})[0].sum()


CONTESTANTS = {"ours": ours, "usual package": peer}


def flops(model: nn.Module, size: int) -> float:
    """1e9 operations of a forward pass of one image, an addition and a multiplication counted as two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(2, 3, size, size))
    model.train()
    return counter.get_total_flops() / 2e9


def serve(name: str, batch: int, size: int, overrides: list[str]) -> None:
    """Be a contestant: tell the GFLOPs and the parameters, then for each line that is read the CPU seconds of the parts of a
    step, or with `profile` where they go."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what packages print
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, head, loss = CONTESTANTS[name](batch, size, overrides)
    optimizer, marks = torch.optim.AdamW(model.train().parameters(), lr=1e-4, fused=True), [0.0]
    head.register_forward_hook(lambda *_: marks.append(time.process_time()))

    def step() -> list[float]:
        marks[:] = [time.process_time()]
        total = loss()
        marks.append(time.process_time())
        total.backward()
        marks.append(time.process_time())
        optimizer.step()
        optimizer.zero_grad()
        marks.append(time.process_time())
        return np.diff(marks).tolist()

    step()
    print(flops(model, size), sum(p.numel() for p in model.parameters()), sep="\t", file=answers)
    for line in sys.stdin:
        if line.strip() == "profile":
            profile(model, step, batch, answers)
        else:
            print(*step(), sep="\t", file=answers)


def profile(model: nn.Module, step: Callable[[], list[float]], batch: int, out: Any) -> None:
    """Forward milliseconds an image of each stage, and the operations that take most of a step."""
    taken: dict[str, float] = {}
    handles = []
    for name, module in stages(model):
        starts: list[float] = []

        def end(*_: Any, name: str = name, starts: list[float] = starts) -> None:
            taken[name] = taken.get(name, 0.0) + time.process_time() - starts.pop()

        handles.append(module.register_forward_pre_hook(lambda *_, s=starts: s.append(time.process_time())))
        handles.append(module.register_forward_hook(end))
    for _ in range(5):
        step()
    for handle in handles:
        handle.remove()
    lines = [f"  {1000 * seconds / 5 / batch:6.2f} ms  {name}" for name, seconds in taken.items()]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        step()
    rows = sorted(seen.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    lines += [f"  {100 * r.self_cpu_time_total / total:4.1f} %  {r.key} ({r.count} calls)" for r in rows[:14]]
    print("forward of each stage, an image", *lines[: len(lines) - 14], sep="\n", file=out)
    print("operations of a step", *lines[-14:], "", sep="\n", file=out)


def stages(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a network's parts; lists of modules are not called themselves."""
    for name, part in model.named_children():
        for inner, stage in part.named_children():
            listed = stage.named_children() if isinstance(stage, (nn.ModuleList, nn.ModuleDict)) else [("", stage)]
            yield from ((f"{name}.{inner}.{n}".rstrip("."), module) for n, module in listed)


class Contestant:
    """A process that serves."""

    def __init__(self, name: str, python: str, batch: int, size: int, overrides: list[str]) -> None:
        command = [python, os.path.abspath(__file__), *overrides, "--serve", name, "--batch", str(batch), "--sizes", str(size)]
        env = os.environ | {"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.name, self.steps = name, list[list[float]]()
        gflops, parameters = self._answer().split("\t")
        self.gflops, self.parameters = float(gflops), int(parameters)

    def step(self) -> None:
        self.steps.append([float(v) for v in self._ask("step").split("\t")])

    def profile(self) -> str:
        lines = [self._ask("profile")]
        while lines[-1]:
            lines.append(self._answer())
        return "\n".join(lines)

    def _ask(self, what: str) -> str:
        assert self.process.stdin
        print(what, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended")
        return line.rstrip("\n")

    def row(self, size: int, batch: int) -> tuple[float, str]:
        """Milliseconds of an image, and the line of the table."""
        parts = [1000 * statistics.median(column) / batch for column in zip(*self.steps)]
        each = 1000 * statistics.median(map(sum, self.steps)) / batch
        cells = [f"{self.parameters / 1e6:.2f} M", f"{self.gflops:.2f}", *(f"{p:.1f}" for p in parts), f"{each:.1f}"]
        return each, f"| {size} | {self.name} | " + " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of a trained image, beside the usual package's YOLO11n.")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--peer", metavar="PYTHON", help="of an environment with the usual package")
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 640])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.batch, options.sizes[0], options.overrides)
        return
    head = ["size", "", "parameters", "GFLOPs", *PARTS, "ms an image", "of the usual package's"]
    lines, profiles = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)], []
    for size in options.sizes:
        pythons = {"ours": sys.executable} | ({"usual package": options.peer} if options.peer else {})
        contestants = [Contestant(name, python, options.batch, size, options.overrides) for name, python in pythons.items()]
        for _ in range(options.rounds):
            for contestant in contestants:
                contestant.step()
        rows = [c.row(size, options.batch) for c in contestants]
        ratio = f"{rows[0][0] / rows[1][0]:.2f}" if options.peer else ""
        lines += [f"{text} | {ratio if i == 0 else ''} |" for i, (_, text) in enumerate(rows)]
        profiles += [f"\nat {size} pixels: {contestants[0].profile()}"] if options.profile else []
        for contestant in contestants:
            contestant.process.terminate()
    print("\n".join([*lines, *profiles]))


if __name__ == "__main__":
    main()
