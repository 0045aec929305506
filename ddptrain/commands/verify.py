"""`ddptrain verify`: test the promise on a user's own config, by short real runs that must end alike.

    --resume    all steps at once, against going on from the checkpoint in the middle: bit-equal
    --workers   0 loader workers, against 1 and 3: bit-equal
    --split     the config's split on one rank, against smaller micro batches and against two ranks: equal up to rounding

The runs are those of `ddptrain train`, in a temporary folder, stopped after a few steps as a signal would stop them. Where runs
that must be bit-equal are not (CUDA kernels may add in any order), the first one is repeated as it is, and what two equal runs
differ by is taken as the noise of the machine. Weights, averages and the optimizer's state are compared: early in a warm-up
the weights hardly move, but the optimizer has seen every gradient.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ddptrain.checkpoint.files import path_of
from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.config import RunConfig, load_config, no_line, resolve
from ddptrain.config.batch import split_batch
from ddptrain.config.docs import to_yaml
from ddptrain.engine.stop import StopFlag
from ddptrain.errors import RunFailed, UserError
from ddptrain.models.norms import SYNC_BATCH_NORMS, batch_norms
from ddptrain.system import temporary
from ddptrain.system.ending import end_with
from ddptrain.system.printable import counted
from ddptrain.system.status import FINISHED, STOPPED
from ddptrain.tasks.build import new_task

Way = Literal["resume", "split", "workers"]

ROUNDING = 1e-3
"""Largest relative difference that other splits may make over a few steps in float32."""
MISTAKE = 0.1
"""What a mistake in the arithmetic makes at least."""
SYNC = """\
  model.norm=sync takes its statistics over the micro batches of all ranks at once: compared are splits over ranks. Another
  accumulation is another model; with group, frozen and none no split matters."""
BATCH = """\
  It must: the model has batch norms, which normalise over one micro batch of one rank, so that its size is part of the model.
  Set model.norm=sync (equal over ranks for the same accumulation), or group, frozen or none (equal for every split), or keep
  train.micro_batch and the number of ranks as they are."""
ROUNDS = """\
  A mistake makes 0.1 and more. This may be rounding, which grows from layer to layer and step to step, most of all in a
  network without norm layers: see whether model.norm=group holds."""
STEPS: Mapping[Way, int] = {"resume": 4, "workers": 4, "split": 2}
"""Steps where none are asked for. Rounding may grow tenfold a step in an untrained network; a mistake shows in the first."""
NOISE = 10.0
"""A difference may be this many times the machine's own noise."""


@dataclass(frozen=True)
class Difference:
    """The tensor in which two states differ most, and by how much, relative to the largest value in it."""

    value: float
    name: str

    def __str__(self) -> str:
        return f"largest difference {self.value:.2g} in {self.name}" if self.value else "bit-equal"


def verify(config: RunConfig, way: Way, steps: int | None = None) -> int:
    """Run both ways and print the verdict.

    Args:
        steps: length of each run, at least 2; by default that of `STEPS`.

    Returns:
        0 when the promise holds, 1 when it is broken.

    Raises:
        UserError: the config cannot be tested this way.
        RunFailed: a run ended with an error.
    """
    steps = STEPS[way] if steps is None else steps
    if steps < 2:
        raise UserError(f"--steps {steps}: must be an integer ≥ 2")
    with temporary.folder("verify") as folder:
        return {"resume": _resume, "split": _split, "workers": _workers}[way](_Runs(config, steps, folder))


class _Runs:
    """Short runs of one config in a temporary folder."""

    def __init__(self, config: RunConfig, steps: int, folder: Path) -> None:
        self.config, self.steps, self.folder = config, steps, folder
        self._common = [
            f"output={folder}",
            "resume=null",
            "eval.every_epochs=null",
            "eval.every_steps=null",
            "train.patience=null",
            f"checkpoint.every_steps={steps // 2}",
            "checkpoint.keep_last=3",
            "monitor.tensorboard=false",
            "monitor.images=0",
        ]

    def run(self, what: str, *overrides: str, ranks: int = 1, steps: int | None = None) -> dict[str, Any]:
        """Train under other settings; `what` names the run. Returns its last checkpoint."""
        steps = steps or self.steps
        name = what.replace(" ", "_")
        config = resolve(self.config.model_dump(mode="json"), [*self._common, f"name={name}", *overrides], tell=no_line)
        file = self.folder / f"{name}.yaml"
        file.write_text(to_yaml(config), encoding="utf-8")
        print(f"  {what}: {steps} steps …", flush=True)
        command = [sys.executable, "-m", "ddptrain.commands.verify", str(file), str(steps)]
        logs = [self.folder / f"{name}.{rank}.txt" for rank in range(ranks)]
        environments = _environments(os.environ, ranks)
        processes = []
        for log, environ in zip(logs, environments):
            with log.open("w") as out:
                processes.append(subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environ))
        codes = [process.wait() for process in processes]
        for code, log in zip(codes, logs):
            if code not in (FINISHED, STOPPED):
                lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
                raise RunFailed(f"{what}: ended with status {code}: {' | '.join(lines[-3:])}")
        return load_checkpoint(config.folder, print).state


def _environments(environ: Mapping[str, str], size: int) -> list[dict[str, str]]:
    """The environments of `size` ranks on this machine, free of whatever launcher started this process."""
    own = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    plain = {k: v for k, v in environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_", *own))}
    if size == 1:
        return [plain]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    plain |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    return [plain | {"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(size)]


def main(arguments: Sequence[str]) -> int:
    """One rank of a short run: the path of its config, and the number of steps."""
    from ddptrain.engine.trainer import train

    path, steps = arguments
    return train(load_config(path), StopFlag(after=int(steps)))


def _resume(runs: _Runs) -> int:
    half = runs.steps // 2
    through = runs.run("all at once")
    middle = path_of(runs.folder / "all_at_once" / "checkpoints", half)
    resumed = runs.run(f"resumed at step {half}", f"resume={middle}", steps=runs.steps - half)
    return _bit_equal(runs, "all at once", through, {f"resumed at step {half}": resumed}, "resuming")


def _workers(runs: _Runs) -> int:
    first = runs.run("0 workers", "data.workers=0")
    others = {f"{n} workers": runs.run(f"{n} workers", f"data.workers={n}") for n in (1, 3)}
    return _bit_equal(runs, "0 workers", first, others, "the number of loader workers", "data.workers=0")


def _bit_equal(
    runs: _Runs, name: str, first: dict[str, Any], others: dict[str, dict[str, Any]], what: str, *setting: str
) -> int:
    differences = {other: largest_difference(first, state) for other, state in others.items()}
    allowed = 0.0
    if any(d.value for d in differences.values()):
        noise = largest_difference(first, runs.run(f"{name} again", *setting))
        print(f"  the same run twice: {noise}")
        allowed = NOISE * noise.value
    return _verdict(differences, allowed, f"{what} changes nothing", f"{what} changes what is learned")


def _split(runs: _Runs) -> int:
    config = runs.config
    batch, micro = config.train.global_batch, split_batch(config.train.global_batch, config.train.micro_batch, 1).micro_batch
    kind = _kind_of_batch_norms(new_task(config).build_model())
    candidates = list(_other_splits(batch, micro, kind, config.train.device))
    if not candidates:
        raise UserError(f"train.global_batch: {batch} can be split in one way only on this machine; nothing to compare")
    name = f"1 rank x micro batch {micro}"
    first = runs.run(name, f"train.micro_batch={micro}")
    differences = {}
    for ranks, size in candidates:
        other = f"{counted(ranks, 'rank')} x micro batch {size}"
        differences[other] = largest_difference(first, runs.run(other, f"train.micro_batch={size}", ranks=ranks))
    if kind == "sync":
        print(SYNC)
    code = _verdict(differences, ROUNDING, "the split changes nothing", "the split changes what is learned")
    if code and kind == "batch":
        print(BATCH)
    elif code and max(d.value for d in differences.values()) < MISTAKE:
        print(ROUNDS)
    return code


def _other_splits(batch: int, micro: int, kind: str, device: str) -> Iterator[tuple[int, int]]:
    """(ranks, micro batch) of other splits that this machine can run."""
    if kind != "sync" and micro > 1:
        yield 1, next(m for m in range(micro // 2, 0, -1) if batch % m == 0)
    gpus = torch.cuda.device_count()
    enough = gpus >= 2 or device == "cpu" or gpus == 0
    if batch % 2 == 0 and enough and micro % 2 == 0:
        yield 2, micro // 2


def _kind_of_batch_norms(model: nn.Module) -> str:
    """ "batch", "sync" or "" by the norm layers of a model that look at other samples."""
    synced = [isinstance(m, SYNC_BATCH_NORMS) for m in batch_norms(model)]
    return "" if not synced else "sync" if all(synced) else "batch"


def largest_difference(a: dict[str, Any], b: dict[str, Any]) -> Difference:
    """The largest difference between the tensors of two checkpoints: weights, averages and the optimizer's state.

    Raises:
        RunFailed: they do not hold the same tensors, or counted differently.
    """
    for key in ("step", "skipped", "position", "samples_by_dataset"):
        if a[key] != b[key]:
            raise RunFailed(f"the runs differ in {key}: {a[key]} and {b[key]}")
    ours, theirs = dict(_tensors(a)), dict(_tensors(b))
    if ours.keys() != theirs.keys():
        raise RunFailed(f"the runs hold different tensors: {sorted(ours.keys() ^ theirs.keys())[0]}")
    worst = Difference(0.0, "")
    for name, x in ours.items():
        if x.numel() and not torch.equal(x, theirs[name]):
            x, y = x.double(), theirs[name].double()
            value = float((x - y).abs().max() / x.abs().max().clamp(min=1e-12))
            # nan is the worst there is
            if not value <= worst.value:
                worst = Difference(value, name)
    return worst


def _tensors(state: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for part in ("model", "ema"):
        yield from ((f"{part} {name}", t) for name, t in (state[part] or {}).items())
    for number, values in state["optimizer"]["state"].items():
        yield from ((f"optimizer {number} {k}", v) for k, v in values.items() if isinstance(v, Tensor))


def _verdict(differences: dict[str, Difference], allowed: float, holds: str, broken: str) -> int:
    for name, difference in differences.items():
        print(f"  {name}: {difference}")
    ok = all(d.value <= allowed for d in differences.values())
    limit = f" (allowed: {allowed:.2g})" if allowed else ""
    print(f"{'holds' if ok else 'BROKEN'}: {holds if ok else broken}{limit}")
    return 0 if ok else 1


if __name__ == "__main__":
    end_with(lambda: main(sys.argv[1:]))
