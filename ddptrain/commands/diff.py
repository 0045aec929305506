"""`ddptrain diff`: what differs between two runs, from their configs to what they learned.

Config, data, code and machine explain; steps and weights decide. Two runs are equal where every recorded step, the number of
steps, and every tensor of their newest common checkpoint are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddptrain.checkpoint.files import checkpoints_in, step_of
from ddptrain.checkpoint.load import Checkpoint, load_checkpoint
from ddptrain.commands.differences import COUNTS, differences, only_in_one
from ddptrain.config import resolve
from ddptrain.config.changes import HOW_STARTED, changes
from ddptrain.data.tables.contents import differences as changed_data
from ddptrain.engine.record import record_changes
from ddptrain.errors import UserError
from ddptrain.reporting.steps import read_steps
from ddptrain.reporting.table import Table
from ddptrain.system.printable import counted, first_few, say, warn

NAMES = ("name", "output", *HOW_STARTED)
"""Keys that say which run it is and how it was started."""
CODE = ("code", "commit")
FINGERPRINTS = ("data", "config")
"""Entries of a record for which the differences themselves stand."""
SHOWN = 20
"""Tensors that the table lists."""


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes:
        folder: the run folder; None for a checkpoint that was named, of which its own step alone is compared.
        files: its checkpoints by their steps.
        newest: the newest undamaged one.
    """

    folder: Path | None
    files: Mapping[int, Path]
    newest: Checkpoint

    @classmethod
    def of(cls, path: Path) -> Side:
        """The run of a folder, or one checkpoint; raises `UserError` where there is none."""
        newest = load_checkpoint(path, warn)
        if not path.is_dir():
            return cls(None, {newest.step: newest.path}, newest)
        return cls(path, {step_of(p): p for p in checkpoints_in(newest.path.parent)}, newest)

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step."""
        return self.newest if step == self.newest.step else load_checkpoint(self.files[step], warn)


def diff_runs(a: Path, b: Path) -> int:
    """Print what differs between two runs, or two checkpoints: 0 where they are equal, 1 where they are not.

    Args:
        a, b: run folders, or checkpoint files.

    Raises:
        UserError: one of them has no checkpoint.
    """
    left, right = Side.of(a), Side.of(b)
    say(f"from {a} to {b}")
    for line in _settings(left.newest, right.newest):
        say(line)
    step = _first_different_step(left, right)
    equal = _compare_weights(left, right, step)
    ends = left.newest.step, right.newest.step
    if step is not None:
        say(f"different from step {step} on")
    elif not equal:
        say("different")
    elif ends[0] != ends[1]:
        say(f"different: equal so far, but one ends at step {ends[0]}, the other at step {ends[1]}")
    else:
        say(f"equal: {counted(ends[0], 'step')}, SHA-256 of the weights {left.newest.digest}")
        return 0
    return 1


def _settings(a: Checkpoint, b: Checkpoint) -> Iterator[str]:
    """A line for each difference in config, data, code and machine."""
    yield from (f"config: {line}" for line in changes(_resolved(a), _resolved(b), NAMES))
    data = changed_data(a.contents, b.contents)
    yield from (f"data: {line}" for line in (*data["train"], *data["val"]))
    if not (a.record and b.record):
        old = next(c.path for c in (a, b) if not c.record)
        yield f"code, machine: unknown, {old} was saved by a version that did not record them"
        return
    records = [dict(c.record) | {"ranks": c.state.get("ranks")} for c in (a, b)]
    for title, keys in {"code": CODE, "machine": [k for k in records[1] if k not in (*CODE, *FINGERPRINTS)]}.items():
        own = [{k: record[k] for k in keys if k in record} for record in records]
        yield from (f"{title}: {line}" for line in record_changes(*own))


def _resolved(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The config of a run with the defaults of today, as far as this version knows its keys."""
    try:
        return resolve(checkpoint.stored_config, source=str(checkpoint.path), stored=True).model_dump(mode="json")
    except UserError:
        return checkpoint.stored_config


def _first_different_step(left: Side, right: Side) -> int | None:
    """Report the first step whose record differs; None where none does, or where steps are not compared."""
    if left.folder is None or right.folder is None:
        return None
    compared = 0
    for ours, theirs in _common_rows(read_steps(left.folder), read_steps(right.folder)):
        compared += 1
        if ours != theirs:
            names = [k for k in (*ours, *(k for k in theirs if k not in ours)) if ours.get(k) != theirs.get(k)]
            shown = [f"{name} {ours.get(name, 'absent')} and {theirs.get(name, 'absent')}" for name in names]
            say(f"steps: the first that differs is step {ours['step']}, position {ours['position']}: {first_few(shown)}")
            return int(ours["step"])
    say(f"steps: {compared} compared, all equal" if compared else "steps: none that both have recorded")
    return None


def _common_rows(
    left: Iterator[dict[str, str]], right: Iterator[dict[str, str]]
) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """The rows of both that begin at the same position."""
    a, b = next(left, None), next(right, None)
    while a is not None and b is not None:
        gap = int(a["position"]) - int(b["position"])
        if gap == 0:
            yield a, b
        if gap <= 0:
            a = next(left, None)
        if gap >= 0:
            b = next(right, None)


def _compare_weights(left: Side, right: Side, step: int | None) -> bool:
    """Report the tensors that differ at the common checkpoint that is nearest after a step, else at the newest; True where
    all are equal."""
    common = sorted(left.files.keys() & right.files.keys())
    if common:
        at = min((s for s in common if step is not None and s >= step), default=common[-1])
        a, b = left.at(at), right.at(at)
    elif left.folder is None and right.folder is None:
        a, b = left.newest, right.newest
    else:
        has = [first_few([str(s) for s in sorted(side.files)]) for side in (left, right)]
        say(f"weights: no checkpoint of the same step: {has[0]} there, {has[1]} here")
        return False
    counts = [f"{key} {a.state[key]} and {b.state[key]}" for key in COUNTS if a.state[key] != b.state[key]]
    odd, found = only_in_one(a.state, b.state), differences(a.state, b.state)
    title = f"weights after step {a.step}"
    if counts:
        say(f"{title}: {', '.join(counts)}")
    if odd:
        say(f"{title}: only in one of the two: {first_few(odd)}")
    if found:
        say(f"{title}: {counted(len(found), 'tensor differs', 'tensors differ')} (relative to its largest value)")
        print(Table(["tensor", "difference"], [[d.name, f"{d.value:.2g}"] for d in found[:SHOWN]]).text())
        if len(found) > SHOWN:
            say(f"  and {len(found) - SHOWN} more")
    elif not (counts or odd):
        say(f"{title}: all tensors are equal")
    return not (counts or odd or found)
