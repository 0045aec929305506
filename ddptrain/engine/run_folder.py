"""The run folder: a new one or one to continue in, its checkpoints, its status and its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from ddptrain import distributed
from ddptrain.checkpoint.digest import weights_digest
from ddptrain.checkpoint.files import best_links, carry, path_of, point, set_aside
from ddptrain.checkpoint.files import save as write_checkpoint
from ddptrain.checkpoint.host_copy import copy_to_host
from ddptrain.checkpoint.load import Checkpoint
from ddptrain.checkpoint.writer import CheckpointWriter
from ddptrain.config.docs import to_yaml
from ddptrain.config.moved import nothing_found
from ddptrain.distributed import World
from ddptrain.engine.bests import find_bests, link_of
from ddptrain.engine.record import bits_record, other_bits
from ddptrain.engine.resume import (
    Origin,
    check_same,
    config_changes,
    consequences,
    find_origin,
    identity,
    take_over,
    takes_group_norms,
)
from ddptrain.engine.starts import note_start
from ddptrain.engine.state import RunState
from ddptrain.errors import UserError
from ddptrain.reporting.history import amend_summary
from ddptrain.system.files import write_text
from ddptrain.system.lock import LockLost, RunLock
from ddptrain.system.printable import counted, warn
from ddptrain.system.start import write_start
from ddptrain.system.status import State, exit_status, write_status
from ddptrain.tasks.base import Task


class RunFolder:
    """The folder of one run. Rank 0 reads and writes; every rank calls every method."""

    def __init__(self, task: Task, world: World, state: RunState, lock: RunLock) -> None:
        """Args: lock: of the run folder, held by rank 0."""
        self._config, self._world, self._state, self._lock = task.config, world, state, lock
        self._identity = identity(
            task.config.data.train,
            task.sampler.mixture.sizes,
            task.config.classes,
            task.config.train.global_batch,
            task.config.seed,
        )
        # with arrays as tensors, for a checkpoint
        contents = [c.state() for c in task.contents] if world.main else []
        self._contents = [
            {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in state.items()} for state in contents
        ]
        config = task.config.model_dump(mode="json")
        self._record = bits_record(config, world.device, state.split, contents) if world.main else {}
        self._digest = ""
        self._checkpoints = task.config.folder / "checkpoints"
        self._origin = Origin()
        self._writer: CheckpointWriter | None = None
        self._bests: dict[str, Path] = {}
        self._ended = False

    def open(self) -> None:
        """Find where to start, load it, and only then make the run folder. Raises `UserError` on every rank alike where
        the folder is taken, there is nothing to resume, or it is another run's."""
        origin = distributed.agree(self._find, "the search for a checkpoint")
        checkpoint = distributed.broadcast_object(origin, "the broadcast of the checkpoint")
        if checkpoint is not None:
            rule, frozen = self._config.optimizer.name, self._config.freeze
            distributed.agree(lambda: take_over(self._state, checkpoint, rule, frozen), "loading the checkpoint")
        elif (source := self._config.init_from) is not None:
            classes, strict = self._config.classes, self._config.init_strict
            distributed.agree(lambda: self._state.start_from(Path(source), classes, strict), "loading the weights of init_from")
        distributed.agree(self._make_folder, "making the run folder")

    def _find(self) -> Checkpoint | None:
        """Rank 0: the checkpoint to start from, or None for a fresh start."""
        if not self._world.main:
            return None
        config = self._config
        self._origin = find_origin(config, warn)
        checkpoint = self._origin.checkpoint
        if checkpoint is None:
            if config.resume is not None:
                self._state.notes.append(nothing_found(config.folder))
            return None
        path = checkpoint.path
        meaning = consequences(checkpoint, self._state, config.data.image_size, config.loss, takes_group_norms(config))
        accepted = check_same(checkpoint, self._identity, self._contents, self._origin.allow)
        changed = list(config_changes(checkpoint.stored_config, config))
        self._state.changed = bool(changed)
        self._state.notes[:] = [
            f"resume: from {path}"
            + ("" if config.init_from is None else "; init_from is ignored: it applies only when a run starts"),
            *(f"warning: resume: {line}" for line in accepted),
            *(f"resume: changed: {line}" for line in changed),
            *(f"warning: resume: {line}" for line in meaning),
            *(f"warning: resume: {line}" for line in other_bits(checkpoint.record, self._record)),
        ]
        self._digest = checkpoint.digest
        self._bests, lost = find_bests(checkpoint, self._state.monitored[0])
        self._state.notes += [f"warning: resume: {line}" for line in lost]
        return checkpoint

    def _make_folder(self) -> None:
        if not self._world.main:
            return
        folder = self._config.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            section = self._config.checkpoint
            self._writer = CheckpointWriter(self._checkpoints, section.keep_last, section.keep_every, warn)
            if self._origin.fresh:
                set_aside(self._checkpoints, -1)
            if self._origin.checkpoint is not None:
                self._begin_course(self._origin.checkpoint.path)
            if self._origin.start is not None:
                write_start(folder, self._origin.start)
            write_text(folder / "config.yaml", to_yaml(self._config))
            note_start(folder, self._world, self._state.step, self._record)
            self._status("running")
        except OSError as e:
            raise UserError(f"{folder}: cannot be written ({e.strerror}); set output to another folder") from None

    def _begin_course(self, source: Path) -> None:
        """Make the checkpoint that the run starts from the newest of its own, under its present step: a restart then finds it
        whenever this process ends. Its bests come along, and what is of another course goes aside."""
        folder, step, recounted = self._checkpoints, self._state.step, self._state.recounted is not None
        own, first = self._config.folder.resolve() in source.resolve().parents, self._state.monitored[0]
        for name, path in self._bests.items():
            link = link_of(name, first)
            if not own or recounted:
                carry(folder, link, path, self._state.best_steps[name])
            elif (folder / link).resolve() != path.resolve():
                point(folder / link, os.path.relpath(path.resolve(), folder.resolve()))
        for stale in set(best_links(folder)) - {folder / link_of(name, first) for name in self._bests}:
            stale.unlink()
        left = 0
        if own and source.resolve() != path_of(folder, step).resolve():
            left = set_aside(folder, step, "at")
            state = copy_to_host(self._state_dict())
            write_checkpoint(folder, state | {"digest": weights_digest(state)}, step)
        left += set_aside(folder, step, "others" if own and source.parent.resolve() != folder.resolve() else "later")
        if left:
            self._state.notes.append(
                f"resume: moved {counted(left, 'checkpoint')} that this run does not continue from to {folder}/aside"
            )

    def save(self, best: Sequence[str] = ()) -> None:
        """Hand the state, the best so far by the metrics `best`, to the writer: training waits only for the copy to host
        memory. Raises `LockLost` on rank 0 where somebody else trains in the folder now."""
        if self._writer is None:
            return
        self._lock.check(look=True)
        links = [f"best_{name}.pt" for name in best if name in self._config.checkpoint.monitor]
        self._writer.submit(self._state_dict(), self._state.step, self._state.monitored[0] in best, links)
        self._status("running")

    def reserve(self) -> None:
        """Take the host memory for the copy beforehand, when the optimizer has its state."""
        if self._writer is not None:
            self._writer.reserve(self._state_dict())

    def _state_dict(self) -> dict[str, Any]:
        config = self._config.model_dump_json()
        known = {"identity": self._identity, "contents": self._contents, "config": config, "record": self._record}
        return self._state.state_dict() | known

    def _status(self, state: State, reason: str = "") -> None:
        folder = self._config.folder
        last = self._checkpoints / "last.pt"
        try:
            saved = self._checkpoints / os.readlink(last) if last.is_symlink() else None
            write_status(folder, state, self._state.step, self._state.steps, reason, saved)
        except OSError as e:  # a full disk must not end the training
            warn(f"{folder}/status.json: not written ({e.strerror})")

    def finish(self, stopped: str, say: Callable[[str], None]) -> int:
        """Wait for the last save and write the final status; `stopped` is the signal that ended the run, empty when it
        reached its end. Returns this process's exit status, the same on every rank."""
        if self._writer is not None:
            self._lock.check(look=True)
            self._writer.wait()
        failed = distributed.broadcast_object(self._writer is not None and self._writer.failed, "the last save")
        state: State = "failed" if failed else "stopped" if stopped else "finished"
        if self._world.main:
            early = self._state.early_end
            self._status(state, "the last checkpoint could not be written" if failed else stopped or early)
            step, steps = self._state.step, self._state.steps
            more = f" of {steps}: {early}; resume=auto with a larger train.patience continues it" if early else ""
            digest = self.digest()
            words = {
                "finished": f"finished at step {step}{more}; SHA-256 of the weights: {digest}",
                "stopped": f"stopped by {stopped} after step {step} of {steps}; saved: continue with resume=auto",
                "failed": f"ended at step {step}, but the last checkpoint could not be written",
            }
            if state == "finished":
                self._sign_summary(digest)
            say(words[state])
        self._ended = True
        return exit_status(state, self._world.launcher)

    def digest(self) -> str:
        """Of the weights of the last save, for which this waits; empty on ranks that write nothing."""
        if self._writer is None:
            return ""
        self._writer.wait()
        return self._writer.digest or self._digest

    def abandon(self, why: str) -> None:
        """Before this process ends at once: let a save that has begun come to its end, and note why the run failed."""
        if self._writer is not None and why and not self._ended:
            self._writer.wait()
            self._status("failed", why)

    def _sign_summary(self, digest: str) -> None:
        """Add to the summary what can be quoted: the digest of the last weights, and what their bits depend on."""
        path = self._config.folder / "summary.json"
        try:
            amend_summary(path, self._state.step, {"digest": digest, "record": self._record})
        except (OSError, ValueError) as e:  # a full disk must not fail a run that is saved
            warn(f"{path}: the digest of the weights is not in it ({e})")

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is None:
            return
        self._writer.wait()
        if not self._ended and value is not None and not isinstance(value, LockLost):
            self._status("failed", f"{type(value).__name__}: {value}")
