"""The parts of check.py that run in a process of their own: `python parts.py PART ARGUMENTS`. Prints `found` and JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision

from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.cli import main
from ddptrain.commands.verify import largest_difference
from ddptrain.engine.step import Stepper
from ddptrain.models.suppression import nms_by_class
from ddptrain.reporting.timing import Timing
from ddptrain.system.ending import end_with

ROOT = Path(__file__).resolve().parents[2]
WARM = 3
"""Steps before one is looked at: the first ones take memory and choose kernels."""


def found(**values: Any) -> int:
    """Report what was found."""
    print("found", json.dumps(values), flush=True)
    return 0


def versions(device: str) -> int:
    """In one line."""
    text = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if device == "cuda":
        name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        nccl, cudnn = ".".join(map(str, torch.cuda.nccl.version())), torch.backends.cudnn.version()
        text += (
            f", CUDA {torch.version.cuda}, cuDNN {cudnn}, NCCL {nccl}, {torch.cuda.device_count()} x {name} ({major}.{minor})"
        )
    return found(text=text)


def suppression(device: str) -> int:
    """Of boxes in ten classes, many of which overlap: how many are kept, and how many only on one of the two."""
    g = torch.Generator().manual_seed(0)
    count = 40_000 if device == "cuda" else 4_000
    boxes, scores = torch.rand(count, 4, generator=g) * 600, torch.rand(count, generator=g)
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:] / 10
    labels = torch.randint(10, (count,), generator=g)
    expected = set(torchvision.ops.batched_nms(boxes, scores, labels, 0.7).tolist())
    own = [t.to(device) for t in (boxes, scores, labels)]
    for _ in range(2):  # the first call loads the kernels
        began = time.perf_counter()
        kept = nms_by_class(*own, 0.7).tolist()
    return found(kept=len(kept), different=len(set(kept) ^ expected), ms=(time.perf_counter() - began) * 1e3)


def runs(text: str) -> int:
    """Run several runs; what the last checkpoint of the last one holds."""
    for arguments in json.loads(text):
        if code := main(arguments):
            return code
    state = _state(json.loads(text)[-1])
    return found(step=state["step"], finite=all(t.isfinite().all().item() for t in state["model"].values()))


def compare(text: str) -> int:
    """Run two runs; the largest difference of what they have learned."""
    both = json.loads(text)
    for arguments in both:
        if code := main(arguments):
            return code
    difference = largest_difference(*(_state(arguments) for arguments in both))
    return found(value=difference.value, name=difference.name)


def _folder(arguments: list[str]) -> Path:
    keys = dict(a.split("=", 1) for a in arguments if "=" in a)
    return Path(keys["output"]) / keys["name"]


def _state(arguments: list[str]) -> dict[str, Any]:
    return load_checkpoint(_folder(arguments)).state


def waits(*arguments: str) -> int:
    """Train; the waits of the host for the device in a step, by line, without those of the first steps."""
    seen: Counter[str] = Counter()
    calls, step, readings = 0, Stepper.__call__, []
    read = Timing.read

    def counted(self: Any, *args: Any, **keys: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= WARM:
            return step(self, *args, **keys)
        with _counting() as lines:
            report = step(self, *args, **keys)
        seen.update(lines)
        return report

    def noted(self: Any) -> Any:
        readings.append(read(self))
        return readings[-1]

    Stepper.__call__ = counted  # type: ignore[method-assign]
    Timing.read = noted  # type: ignore[method-assign]
    code = main(list(arguments))
    if code or os.environ.get("RANK", "0") != "0":
        return code
    each = {line: n / (calls - WARM) for line, n in seen.most_common()}
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_initialized() else 0.0
    last = readings[-1]
    return found(waits=each, images_per_second=last.images_per_second, data_wait=last.data_wait, gb=memory)


@contextmanager
def _counting() -> Iterator[Counter[str]]:
    """The lines at which the host waits for the GPU; on the CPU those at which it would."""
    lines: Counter[str] = Counter()
    if not torch.cuda.is_initialized():
        sys.path.insert(0, str(ROOT / "tests" / "helpers"))
        from host_waits import HostWaits

        with HostWaits() as mode:
            yield lines
        lines.update(mode.lines)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lines
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines.update(f"{os.path.relpath(w.filename)}:{w.lineno}" for w in caught if "synchroniz" in str(w.message))


def misbehave(how: str, *arguments: str) -> int:
    """Train; rank 1 fails before its third step."""
    calls, step = 0, Stepper.__call__

    def failing(self: Any, *args: Any, **keys: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3 and os.environ["RANK"] == "1":
            print(f"failing at {time.time()}", flush=True)
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "oom":
                torch.empty(1 << 50, device="cuda")
            raise ValueError("out of luck")
        return step(self, *args, **keys)

    Stepper.__call__ = failing  # type: ignore[method-assign]
    return main(list(arguments))


PARTS = {f.__name__: f for f in (versions, suppression, runs, compare, waits, misbehave)}

if __name__ == "__main__":
    end_with(lambda: PARTS[sys.argv[1]](*sys.argv[2:]))
