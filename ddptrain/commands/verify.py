"""`ddptrain verify`: test the promise on a user's own config, by short real runs that must end alike.

    --ranks 1,2,4  the same micro batches on other numbers of ranks: bit-equal
    --resume       all steps at once, against resuming from the checkpoint in the middle: bit-equal
    --workers      0 loader workers, against 1 and 3: bit-equal
    --split        the config's micro batch on one rank, against a smaller one and two ranks: equal up to rounding

The runs are those of `ddptrain train`, in a temporary folder, stopped after a few steps as a signal would stop them. Where runs
that must be bit-equal are not (CUDA kernels may add in any order), the first one is repeated as it is, and what two equal runs
differ by is taken as the noise of the machine. What may differ by rounding is computed again in float64 where it differs by
more than a few digits: there rounding all but vanishes, and a mistake stays as it is. Weights, averages and the optimizer's
state are compared: early in a warm-up the weights hardly move, but the optimizer has seen every gradient.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn

from ddptrain.checkpoint.files import path_of
from ddptrain.checkpoint.load import Checkpoint
from ddptrain.commands.differences import Difference, largest_difference
from ddptrain.commands.short_runs import ShortRuns
from ddptrain.config import RunConfig
from ddptrain.config.batch import MicroBatch, split_batch
from ddptrain.errors import UserError
from ddptrain.models.norms import SYNC_BATCH_NORMS, batch_norms
from ddptrain.system import temporary
from ddptrain.system.printable import counted
from ddptrain.tasks.build import new_task

Way = Literal["ranks", "resume", "split", "workers"]

DOUBT = 1e-5
"""A relative difference up to this is rounding of float32; a larger one is looked at in float64."""
ROUNDING = 1e-9
"""Largest relative difference that rounding makes over a few steps in float64."""
SYNC = """\
  model.norm=sync takes its statistics over the micro batches of all ranks at once, so only splits over ranks are compared.
  Another accumulation makes another model; with group, frozen or none the split does not matter."""
BATCH = """\
  It must: the model has batch norms, which normalise over one micro batch, so that its size is part of the model.
  Set model.norm=sync (equal over ranks for the same accumulation), or group, frozen or none (equal for every split), or keep
  train.micro_batch as it is."""
MISTAKE = """\
  A mistake in the arithmetic, not rounding: it stays in float64. Look at the loss first: it must be a sum over samples, so
  must its normalizer, and no sample may depend on the others of its micro batch."""
RANKS_MISTAKE = "A mistake, not rounding: it stays in float64"
RANKS_ROUNDING = "Rounding, not a mistake: it all but vanishes in float64"
STEPS: Mapping[Way, int] = {"ranks": 4, "resume": 4, "workers": 4, "split": 2}
"""Steps where none are asked for. Rounding may grow tenfold a step in an untrained network; a mistake shows in the first."""
NOISE = 10.0
"""A difference may be this many times the machine's own noise."""


class Case(NamedTuple):
    """One of the runs that are compared: its changes to the config, its number of ranks, and its steps if not all."""

    overrides: tuple[str, ...] = ()
    ranks: int = 1
    steps: int | None = None


Cases = Mapping[str, Case]
"""By name; the first one is what the others are compared with."""


def verify(config: RunConfig, way: Way, steps: int | None = None, ranks: Sequence[int] = ()) -> int:
    """Run both ways and print the verdict.

    Args:
        steps: length of each run, at least 2; by default that of `STEPS`.
        ranks: the numbers of ranks that are compared, of the way of this name.

    Returns:
        0 when the promise holds, 1 when it is broken.

    Raises:
        UserError: the config cannot be tested this way.
        RunFailed: a run ended with an error.
    """
    steps = STEPS[way] if steps is None else steps
    if steps < 2:
        raise UserError(f"--steps {steps}: must be an integer ≥ 2")
    most = max((2, *ranks))
    threads = config.train.threads or int(os.environ.get("OMP_NUM_THREADS") or max(1, len(os.sched_getaffinity(0)) // most))
    with temporary.folder("verify") as folder:
        runs = ShortRuns(config, steps, folder, threads)
        if way == "ranks":
            return _ranks(runs, ranks)
        return {"resume": _resume, "split": _split, "workers": _workers}[way](runs)


def _ranks(runs: ShortRuns, ranks: Sequence[int]) -> int:
    train = runs.config.train
    micro = common_micro_batch(train.global_batch, train.micro_batch, ranks)
    own = (f"train.micro_batch={micro}", *one_device(train.device, torch.cuda.device_count(), max(ranks)))
    cases = {counted(n, "rank"): Case(own, n) for n in ranks}
    states = _train(runs, cases)
    for name, state in states.items():
        print(f"  {name}: SHA-256 of the weights {state.digest}")
    setting = f"train.micro_batch={micro} and {counted(runs.threads, 'thread')} per rank"
    code = _bit_equal(runs, cases, states, f"with {setting}, the number of ranks")
    if code:
        worst = max(d.value for d in _differences(_train(runs, cases, float64=True)).values())
        meaning = RANKS_ROUNDING if worst <= ROUNDING else RANKS_MISTAKE
        print(f"  {meaning} (largest difference there: {worst:.2g})")
    return code


def common_micro_batch(batch: int, micro: MicroBatch, ranks: Sequence[int]) -> int:
    """`train.micro_batch`, or where it is not given the largest usual one of which each number of ranks takes whole ones;
    raises `UserError` where the global batch does not divide over them."""
    largest = min(split_batch(batch, micro, n).micro_batch for n in ranks)
    return next(b for b in range(largest, 0, -1) if all(batch % (b * n) == 0 for n in ranks))


def one_device(device: str, gpus: int, ranks: int) -> tuple[str, ...]:
    """What to override so that any number of ranks computes on the same kind of device: the CPU, where GPUs are too few."""
    if device != "auto" or gpus == 0 or gpus >= ranks:
        return ()
    print(f"  {counted(ranks, 'rank')} and {counted(gpus, 'GPU')}: all compute on the CPU")
    return ("train.device=cpu",)


def _resume(runs: ShortRuns) -> int:
    half = runs.steps // 2
    middle = path_of(runs.folder / "all_at_once" / "checkpoints", half)
    cases = {"all at once": Case(), f"resumed at step {half}": Case((f"resume={middle}",), steps=runs.steps - half)}
    return _bit_equal(runs, cases, _train(runs, cases), "resuming")


def _workers(runs: ShortRuns) -> int:
    cases = {counted(n, "worker"): Case((f"data.workers={n}",)) for n in (0, 1, 3)}
    return _bit_equal(runs, cases, _train(runs, cases), "the number of loader workers")


def _split(runs: ShortRuns) -> int:
    train = runs.config.train
    batch, micro = train.global_batch, split_batch(train.global_batch, train.micro_batch, 1).micro_batch
    kind = _kind_of_batch_norms(new_task(runs.config).build_model())
    splits = [(1, micro), *_other_splits(batch, micro, kind, train.device)]
    if len(splits) == 1:
        raise UserError(f"train.global_batch: {batch} can be split in one way only on this machine; nothing to compare")
    cases = {f"{counted(n, 'rank')} x micro batch {m}": Case((f"train.micro_batch={m}",), n) for n, m in splits}
    differences, allowed = _differences(_train(runs, cases)), DOUBT
    if kind != "batch" and not _within(differences, DOUBT):
        _print(differences)
        print("  more than a few digits of float32: rounding, or a mistake? Once more in float64, where rounding vanishes")
        differences, allowed = _differences(_train(runs, cases, float64=True)), ROUNDING
    if kind == "sync":
        print(SYNC)
    code = _verdict(differences, allowed, "the split")
    if code:
        print(BATCH if kind == "batch" else MISTAKE)
    return code


def _train(runs: ShortRuns, cases: Cases, float64: bool = False) -> dict[str, Checkpoint]:
    """The last checkpoint of each case."""
    return {
        name: runs.run(name, *case.overrides, ranks=case.ranks, steps=case.steps, float64=float64)
        for name, case in cases.items()
    }


def _differences(states: Mapping[str, Checkpoint]) -> dict[str, Difference]:
    """Of each but the first from the first."""
    first, *others = states
    return {name: largest_difference(states[first].state, states[name].state) for name in others}


def _bit_equal(runs: ShortRuns, cases: Cases, states: Mapping[str, Checkpoint], what: str) -> int:
    differences, allowed = _differences(states), 0.0
    if not _within(differences, 0.0):
        name, case = next(iter(cases.items()))
        again = runs.run(f"{name} again", *case.overrides, ranks=case.ranks)
        noise = largest_difference(states[name].state, again.state)
        print(f"  the same run twice: {noise}")
        allowed = NOISE * noise.value
    return _verdict(differences, allowed, what)


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


def _within(differences: Mapping[str, Difference], allowed: float) -> bool:
    return all(d.value <= allowed for d in differences.values())


def _print(differences: Mapping[str, Difference]) -> None:
    for name, difference in differences.items():
        print(f"  {name}: {difference}")


def _verdict(differences: Mapping[str, Difference], allowed: float, what: str) -> int:
    _print(differences)
    ok = _within(differences, allowed)
    limit = f" (allowed: {allowed:.2g})" if allowed else ""
    print(f"{'holds' if ok else 'BROKEN'}: {what} changes {'nothing' if ok else 'what is learned'}{limit}")
    return 0 if ok else 1
