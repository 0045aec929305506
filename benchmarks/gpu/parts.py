"""The parts of check.py that run in a process of their own: `python parts.py PART ARGUMENTS`. Prints `found` and JSON."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torchvision

from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.cli import main
from ddptrain.commands import short_runs
from ddptrain.commands.differences import largest_difference
from ddptrain.config import load_config
from ddptrain.engine import step, trainer
from ddptrain.engine.state import RunState
from ddptrain.engine.step import Stepper
from ddptrain.engine.stop import StopFlag
from ddptrain.models.suppression import nms_by_class
from ddptrain.optim import build
from ddptrain.reporting.timing import Reading, Timing
from ddptrain.system.ending import end_with
from ddptrain.system.status import STOPPED

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
        if code := _stopped(arguments):
            return code
    difference = largest_difference(*(_state(arguments) for arguments in both))
    return found(value=difference.value, name=difference.name)


def _stopped(arguments: Sequence[str]) -> int:
    """`ddptrain train …`, stopped one step before its end, which spares the evaluation and the report."""
    _, path, *overrides = arguments
    config = load_config(path, overrides)
    assert config.train.steps is not None
    code = trainer.train(config, StopFlag(after=config.train.steps - 1))
    return 0 if code == STOPPED else code


def _folder(arguments: list[str]) -> Path:
    keys = dict(a.split("=", 1) for a in arguments if "=" in a)
    return Path(keys["output"]) / keys["name"]


def _state(arguments: list[str]) -> dict[str, Any]:
    return load_checkpoint(_folder(arguments)).state


def waits(*arguments: str) -> int:
    """Train; the waits of the host for the device in a step, by line, without those of the first steps."""
    seen: Counter[str] = Counter()
    calls: Counter[str] = Counter()

    def counted(method: Any) -> Any:
        def call(self: Any, *args: Any, **keys: Any) -> Any:
            calls[method.__name__] += 1
            with _counting() as lines:
                out = method(self, *args, **keys)
            if calls[method.__name__] > WARM:
                seen.update(lines)
            return out

        return call

    Stepper.launch, Stepper.read = counted(Stepper.launch), counted(Stepper.read)  # type: ignore[method-assign]
    with _deciding(device=True), _readings() as readings:
        code = _stopped(arguments)
    if code or os.environ.get("RANK", "0") != "0":
        return code
    each = {line: n / (calls["read"] - WARM) for line, n in seen.most_common()}
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_initialized() else 0.0
    last = readings[-1]
    return found(waits=each, images_per_second=last.images_per_second, data_wait=last.data_wait, gb=memory)


@contextmanager
def _deciding(device: bool) -> Iterator[None]:
    """The device decides about updates where it can, on the CPU always; or the host, with the same kernels."""
    decides, sgd = step.device_decides, build.OPTIMIZERS["sgd"]
    if not device or not torch.cuda.is_available():
        step.device_decides = lambda *known: device
    if not torch.cuda.is_available():
        build.OPTIMIZERS["sgd"] = lambda groups, c: build._sgd(groups, c, fused=True)
    try:
        yield
    finally:
        step.device_decides, build.OPTIMIZERS["sgd"] = decides, sgd


@contextmanager
def _readings() -> Iterator[list[Reading]]:
    """What the clock of a run says meanwhile."""
    readings, read = [], Timing.read

    def noted(self: Timing) -> Reading:
        readings.append(read(self))
        return readings[-1]

    Timing.read = noted  # type: ignore[method-assign]
    try:
        yield readings
    finally:
        Timing.read = read  # type: ignore[method-assign]


@contextmanager
def _counting() -> Iterator[Counter[str]]:
    """The lines at which the host waits for the GPU; on the CPU those at which it would, but for what only a CPU does."""
    lines: Counter[str] = Counter()
    if not torch.cuda.is_initialized():
        sys.path.insert(0, str(ROOT / "tests" / "helpers"))
        from host_waits import HostCalls, HostWaits

        sums = Stepper._sums
        with HostWaits() as mode, HostCalls() as calls:

            def unseen(self: Any, *args: Any) -> Any:
                mode.pause = calls.pause = True
                row = sums(self, *args)
                mode.pause = calls.pause = False
                return row

            Stepper._sums = unseen  # type: ignore[method-assign]
            try:
                yield lines
            finally:
                Stepper._sums = sums  # type: ignore[method-assign]
        lines.update(mode.lines + calls.calls)
        return
    synchronize = torch.cuda.Event.synchronize

    def waited(self: Any) -> None:
        lines["an event"] += 1
        synchronize(self)

    torch.cuda.Event.synchronize = waited  # type: ignore[method-assign]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lines
        finally:
            torch.cuda.set_sync_debug_mode("default")
            torch.cuda.Event.synchronize = synchronize  # type: ignore[method-assign]
    called = [w for w in caught if "called a synchronizing" in str(w.message)]
    lines.update(f"{os.path.relpath(w.filename)}:{w.lineno}" for w in called)


def ahead(*arguments: str) -> int:
    """Train with steps launched before the one before is read, with a wait for each, as the host decides, and the first way
    again. The fourth step of each run is not finite."""
    sums, launch, pause = Stepper._sums, RunState.launch, trainer._may_pause
    launched: Counter[bool] = Counter()

    def spoilt(self: Stepper, batch: Any, *args: Any) -> torch.Tensor:
        row = sums(self, batch, *args)
        if int(batch.keys[0, 0]) // (len(batch) * self.tree.micro_batches) == 3:
            row[0] = float("nan")
        return row

    def counted(self: RunState, batches: Any, stop: bool = False, after: Any = None) -> Any:
        launched[after is not None] += 1
        return launch(self, batches, stop, after)

    Stepper._sums, RunState.launch = spoilt, counted  # type: ignore[method-assign]
    states, speeds, steps = [], [], []
    for way in ("ahead", "each", "host", "again"):
        launched.clear()
        trainer._may_pause = (lambda *known: True) if way == "each" else pause
        own = [a + f"_{way}" if a.startswith("name=") else a for a in arguments]
        with _deciding(device=way != "host"), _readings() as readings:
            if code := _stopped(own):
                return code
        states.append(_state(own))
        speeds.append(readings[-1].images_per_second)
        steps.append(launched[True])
    first, waiting, host, again = states
    return found(
        ahead=steps[0],
        skipped=[state["skipped"] for state in states],
        noise=largest_difference(first, again).value,
        waiting=largest_difference(first, waiting).value,
        host=largest_difference(*({**state, "ema": None} for state in (first, host))).value,
        average=largest_difference(first, host).value,
        speeds=speeds[:2],
    )


def verify(*arguments: str) -> int:
    """`ddptrain verify`; its verdict."""
    text = io.StringIO()
    if not torch.cuda.is_available():
        from forked import short_run

        short_runs.subprocess.Popen = short_run  # type: ignore[misc, assignment]
    with redirect_stdout(text):
        code = main(["verify", *arguments])
    print(text.getvalue())
    return found(code=code, verdict=text.getvalue().strip().rpartition("\n")[2])


def misbehave(how: str, *arguments: str) -> int:
    """Train; rank 1 fails before its third step."""
    calls, launch = 0, Stepper.launch

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
        return launch(self, *args, **keys)

    Stepper.launch = failing  # type: ignore[method-assign]
    return main(list(arguments))


PARTS = {f.__name__: f for f in (versions, suppression, runs, compare, waits, ahead, verify, misbehave)}

if __name__ == "__main__":
    end_with(lambda: PARTS[sys.argv[1]](*sys.argv[2:]))
