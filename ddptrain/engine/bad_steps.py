"""What is reported, kept and decided when a step has no finite gradient or a sample cannot be read.

Every rank knows from the step's own sums that something happened: all gather what each one saw, at that step only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ddptrain import distributed
from ddptrain.data.loading.workers import Samples
from ddptrain.distributed import World
from ddptrain.engine.state import RunState
from ddptrain.engine.step_report import StepReport
from ddptrain.errors import RunFailed
from ddptrain.structures import Batch, SampleKey
from ddptrain.system.printable import counted
from ddptrain.tasks.base import Task

NAMED = 8
"""Samples of a bad step that are named in the log; its file has all."""
WITH_WEIGHTS = 3
"""Files of bad steps that hold the weights, in one process: each is as large as the model."""


class BadSteps:
    """Looks at every step's report; all ranks call it alike. `say` reports a line, on rank 0."""

    def __init__(self, task: Task, world: World, say: Callable[[str], None]) -> None:
        self._config, self._samples, self._world, self._say = task.config, task.train, world, say
        self._bad_in_a_row, self._with_weights = 0, WITH_WEIGHTS

    def after_step(self, state: RunState, report: StepReport, batches: Sequence[Batch]) -> None:
        """Report what went wrong in the step that `state` has just counted, keep evidence of a bad one, and raise
        `RunFailed`, on every rank alike, after too many bad steps in a row or too many samples that cannot be read."""
        if report.replaced:
            self._replaced(state, batches)
        if report.updated:
            self._bad_in_a_row = 0
        elif report.overflow:
            self._say(
                f"after step {state.step}: fp16 overflow, update skipped ({state.skipped} so far), the loss scale is halved"
            )
        else:
            self._bad(state, report, batches)

    def _replaced(self, state: RunState, batches: Sequence[Batch]) -> None:
        mine = [line for b in batches for line in b.replaced]
        for lines in distributed.gather_to_main(mine, "gathering the names of unreadable samples"):
            for line in lines:
                self._say(f"warning: after step {state.step}: {line}")
        most = self._config.data.max_bad_samples
        if state.replaced > most:
            draws = counted(state.replaced, "draw")
            raise RunFailed(
                f"{draws} hit unreadable samples, more than data.max_bad_samples={most}; {self._config.folder / 'log.txt'} "
                "names them: repair them, or raise the limit, and continue with resume=auto"
            )

    def _bad(self, state: RunState, report: StepReport, batches: Sequence[Batch]) -> None:
        self._bad_in_a_row += 1
        parts = distributed.gather_to_main(evidence(report, batches, self._samples), "gathering the evidence of a bad step")
        first = state.position - state.split.global_batch
        if self._world.main:
            path = self._config.folder / "bad_steps" / f"step_{state.step + 1:08d}_position_{first}.pt"
            merged: dict[str, Any] = {k: [x for part in parts for x in part[k]] for k in parts[0]}
            merged["keys"] = torch.tensor(merged["keys"], dtype=torch.int64)
            merged["losses"] = torch.tensor(merged["losses"])
            # further ones in a row have the same weights: a bad step leaves no trace
            if self._bad_in_a_row == 1 and self._with_weights:
                self._with_weights -= 1
                merged["model"] = {k: v.cpu() for k, v in state.model.state_dict().items()}
            kept = _keep(path, merged | {"step": state.step + 1, "position": first, "config": self._config.model_dump_json()})
            self._say(
                f"warning: step {state.step + 1}: {self._what(report)}, update skipped ({state.skipped} so far), "
                f"{self._bad_in_a_row} in a row; {kept}"
            )
            for line in self._culprits(merged):
                self._say(f"  {line}")
        most = self._config.train.max_bad_steps
        if self._bad_in_a_row > most:
            raise RunFailed(
                f"{self._bad_in_a_row} steps in a row had no finite loss and gradient, more than train.max_bad_steps={most}; "
                f"{self._ways_out()}"
            )

    @staticmethod
    def _what(report: StepReport) -> str:
        parts = ", ".join(f"{name} {value:.4g}" for name, value in report.parts.items())
        culprit = "gradient" if all(map(math.isfinite, report.parts.values())) else "loss"
        return f"the {culprit} is not finite ({parts}, gradient norm {report.grad_norm:.4g})"

    def _culprits(self, known: dict[str, Any]) -> list[str]:
        """The samples whose own loss is not finite; where every loss is finite, those with the largest."""
        losses = known["losses"]
        bad = (~losses.isfinite()).nonzero().flatten().tolist()
        chosen = bad or losses.argsort(descending=True).tolist()
        names = self._config.data.train
        lines = [f"loss {losses[i]:.4g}: {names[known['keys'][i][1]].name}: {known['files'][i]}" for i in chosen[:NAMED]]
        return lines + [f"and {len(bad) - NAMED} more"] * (len(bad) > NAMED)

    def _ways_out(self) -> str:
        """How to start again after too many bad steps, as overrides that can be given as they stand."""
        config = self._config
        last = config.folder / "checkpoints" / "last.pt"
        changes = [f"optimizer.lr={config.optimizer.lr / 10:g}", f"train.clip_norm={(config.train.clip_norm or 10) / 10:g}"]
        if config.train.precision != "none":
            changes.append("train.precision=none")
        if not last.exists():
            return (
                f"no checkpoint was saved yet: start again with resume=null name={config.name}-2 and one of "
                f"{', '.join(changes)}, or seed={config.seed + 1}"
            )
        return (
            f"resume from {last}, or an older checkpoint beside it, with resume={last} and one of {', '.join(changes)}, or "
            f"seed={config.seed + 1} resume.allow=[seed]"
        )


def evidence(report: StepReport, batches: Sequence[Batch], samples: Samples) -> dict[str, list[Any]]:
    """What this rank knows about a skipped step, in plain lists.

    Returns:
        Of each sample `keys` (position, dataset, index), `files` and `losses` (its own loss, nan where the task reports none);
        of each micro batch `sizes` and `parts` (its loss parts by name).
    """
    keys = [k for b in batches for k in b.keys.tolist()]
    losses = [
        [math.nan] * len(b) if loss.per_sample is None else loss.per_sample.float().tolist()
        for b, loss in zip(batches, report.losses)
    ]
    return {
        "keys": keys,
        "files": [samples.source(SampleKey(*k)) for k in keys],
        "losses": [x for own in losses for x in own],
        "sizes": [len(b) for b in batches],
        "parts": [{k: float(v) for k, v in loss.parts.items()} for loss in report.losses],
    }


def _keep(path: Path, known: dict[str, Any]) -> str:
    """Save evidence; returns where, or why not: a full disk must not end the run."""
    try:
        path.parent.mkdir(exist_ok=True)
        torch.save(known, path)
    except (OSError, RuntimeError) as e:
        return f"{path} could not be written ({e})"
    return f"see {path}"
