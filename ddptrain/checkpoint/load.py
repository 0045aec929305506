"""The one way to load a checkpoint, for `resume`, `init_from`, `eval`, `predict`, `export` and `ddptrain.load`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddptrain.checkpoint.digest import weights_digest
from ddptrain.checkpoint.files import FORMAT, checkpoints_in, checksum, recorded_checksums
from ddptrain.config import RunConfig, resolve
from ddptrain.errors import UserError
from ddptrain.system.printable import warn as warn_user


@dataclass(frozen=True)
class Checkpoint:
    """The saved state of a run.

    Attributes:
        path: the file that it was read from.
        state: everything that was saved, as plain types and tensors on the CPU.
    """

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps that the run had made."""
        return int(self.state["step"])

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that are evaluated: averaged, unless the run kept no average."""
        return dict(self.state["ema"] if self.state["ema"] is not None else self.state["model"])

    @property
    def contents(self) -> Sequence[Mapping[str, Any]]:
        """What the datasets of the run held, see `Contents.state`; empty in checkpoints of older versions."""
        return self.state.get("contents", ())

    @property
    def record(self) -> Mapping[str, Any]:
        """What the bits of the weights depend on, see `engine.record`; empty in checkpoints of older versions."""
        return dict(self.state.get("record", {}))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights, see `weights_digest`; computed for checkpoints of older versions."""
        return str(self.state.get("digest") or weights_digest(self.state))

    @cached_property
    def stored_config(self) -> dict[str, Any]:
        """The resolved config as it was saved, maybe by a version with other keys."""
        return dict(json.loads(self.state["config"]))

    @cached_property
    def config(self) -> RunConfig:
        """The config of the run, to use its weights: published weights, which were its start, are no longer asked for.

        Raises:
            UserError: the config has keys or values that this version does not know.
        """
        model = self.stored_config["model"]
        model = model | {key: False for key in ("pretrained", "pretrained_backbone") if key in model}
        return resolve(self.stored_config | {"model": model}, source=str(self.path), stored=True)

    def fill(self, model: nn.Module) -> nn.Module:
        """Put `weights` into a model; returns the model.

        Raises:
            UserError: they belong to another model (overrides changed the config).
        """
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as e:
            reason = " ".join(str(e).split())[:200]
            raise UserError(
                f"{self.path}: its weights do not fit the model of the config: {reason}; leave model and classes as they were"
            ) from None
        return model


def load_checkpoint(path: Path, warn: Callable[[str], None] = warn_user, *, best: bool = False) -> Checkpoint:
    """Load the checkpoint that a user names.

    Args:
        path: a checkpoint, a folder of them, or a run folder.
        warn: receives a line about each damaged checkpoint that is skipped.
        best: of a folder, take `best.pt` if it exists, else the newest.

    Raises:
        UserError: the path does not exist, or it is not a checkpoint, or it is damaged.
    """
    if path.is_dir():
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        if not (best and (folder / "best.pt").exists()):
            newest = newest_checkpoint(folder, warn)
            if newest is None:
                raise UserError(f"{path}: no valid checkpoint (step_*.pt) in {folder}; name a run that saved one")
            return newest
        path = folder / "best.pt"
    elif not path.exists():
        raise UserError(f"{path}: no such checkpoint; name a checkpoint (*.pt) or a run folder")
    try:
        return Checkpoint(path.resolve(), _read(path.resolve(), named_by_user=True))
    except _Damaged as e:
        raise UserError(f"{path}: {e}; name another checkpoint or a run folder") from None


def newest_checkpoint(folder: Path, warn: Callable[[str], None] = warn_user) -> Checkpoint | None:
    """The newest undamaged checkpoint of a folder; None if it has none. `warn` receives a line about each damaged
    checkpoint that is skipped, and about a `last.pt` that is not one of the folder's checkpoints."""
    if not folder.is_dir():
        return None
    paths = checkpoints_in(folder)
    last = folder / "last.pt"
    if last.is_file() and not last.is_symlink():
        # copying a folder without links leaves plain files, which are good when they are one of the checkpoints
        if not any(checksum(last) in recorded_checksums(p) for p in paths):
            warn(f"{last}: is not one of this folder's checkpoints (from elsewhere, or damaged); skipped")
    elif last.is_symlink() and not last.exists():
        warn(f"{last}: points to {os.readlink(last)}, which no longer exists; skipped")
    for path in reversed(paths):
        try:
            return Checkpoint(path, _read(path, named_by_user=False))
        except _Damaged as e:
            link = " (last.pt)" if last.is_symlink() and os.readlink(last) == path.name else ""
            warn(f"{path}{link}: {e}; the next older one is used")
    return None


class _Damaged(Exception):
    """Why a file is not a checkpoint to resume from."""


def _read(path: Path, named_by_user: bool) -> dict[str, Any]:
    """Read and check one checkpoint; only one that the user named may lack a checksum."""
    try:
        recorded = recorded_checksums(path)
        if path.stat().st_size == 0:
            raise _Damaged("is empty")
        if recorded and checksum(path) not in recorded:
            raise _Damaged("does not match its checksum (cut off or changed on disk)")
        if not recorded and not named_by_user:
            raise _Damaged("has no checksum beside it (not written by ddptrain)")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise _Damaged(f"cannot be read ({e.strerror})") from None
    except _Damaged:
        raise
    except Exception:  # torch.load raises half a dozen kinds for what is not a plain archive
        raise _Damaged(
            "is refused: not a file of plain data (it contains code, comes from another program, or is damaged)"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise _Damaged("is not a checkpoint of ddptrain")
    return state
