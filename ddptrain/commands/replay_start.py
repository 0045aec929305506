"""Where the replay of a step begins: at the nearest checkpoint before it, or where the run itself began."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ddptrain.checkpoint.files import checkpoints_in, step_of
from ddptrain.checkpoint.load import Checkpoint, load_checkpoint
from ddptrain.config import RunConfig, resolve
from ddptrain.config.batch import MicroBatch
from ddptrain.config.text import parse_yaml
from ddptrain.errors import UserError
from ddptrain.reporting.steps import read_steps
from ddptrain.system.printable import counted, warn
from ddptrain.system.start import read_start
from ddptrain.system.status import read_status


@dataclass(frozen=True)
class ReplayStart:
    """Where a replay begins.

    Attributes:
        folder: the run folder.
        checkpoint: None for the beginning of the run.
        known: a checkpoint that knows how the step was made: the first one after it, else the one before; None for neither.
        config: under which the step was made.
    """

    folder: Path
    checkpoint: Checkpoint | None
    known: Checkpoint | None
    config: RunConfig

    @property
    def micro_batch(self) -> MicroBatch:
        """Samples that were forwarded at once; None for a number that was chosen and is nowhere recorded."""
        known = None if self.known is None else self.known.state.get("micro_batch")
        return known or self.config.train.micro_batch

    @property
    def threads(self) -> int | None:
        """Of a rank on the CPU, as recorded: they are part of the arithmetic."""
        known = {} if self.known is None else self.known.record
        return known.get("threads") or self.config.train.threads


def find_start(run: Path, step: int) -> ReplayStart:
    """Where to begin, for a run folder; a checkpoint file is itself where to begin.

    Raises:
        UserError: the run has made no such step, or is not a run, or its checkpoints cannot be used.
    """
    if not run.exists():
        raise UserError(f"{run}: no such run; name a run folder, or a checkpoint of one")
    if not run.is_dir():
        checkpoint = load_checkpoint(run)
        if checkpoint.step >= step:
            raise UserError(
                f"--step {step}: {run} was saved after step {checkpoint.step}; name an earlier one, or the run folder"
            )
        folder = checkpoint.path.parent
        return ReplayStart(folder.parent if folder.name == "checkpoints" else folder, checkpoint, checkpoint, checkpoint.config)
    folder = run.parent if run.name == "checkpoints" else run
    files = {step_of(path): path for path in checkpoints_in(folder / "checkpoints")}
    _refuse_unmade(folder, files, step)
    before = _first(files[s] for s in sorted(files, reverse=True) if s < step)
    after = _first(files[s] for s in sorted(files) if s >= step)
    if before is None and (start := read_start(folder)) is not None:
        before = load_checkpoint(Path(start.source))
        if before.step >= step:
            raise UserError(f"--step {step}: {folder} resumed from step {before.step} of {start.source}; give that run")
    known = after or before
    return ReplayStart(folder, before, known, _config(folder, after, fresh=before is None))


def _refuse_unmade(folder: Path, files: Mapping[int, Path], step: int) -> None:
    status = read_status(folder)
    if status is None and not files:
        raise UserError(f"{folder}: is not the folder of a run; name the one that holds its status.json and checkpoints")
    tried = max((int(row["step"]) for row in read_steps(folder)), default=0)
    made = max(tried, *files, status.step if status else 0, 0)
    if step > made:
        raise UserError(f"--step {step}: {folder} has made {counted(made, 'step')}; give one of them")


def _first(paths: Iterable[Path]) -> Checkpoint | None:
    """The first undamaged one."""
    for path in paths:
        try:
            return load_checkpoint(path)
        except UserError as e:
            warn(str(e))
    return None


def _config(folder: Path, after: Checkpoint | None, fresh: bool) -> RunConfig:
    """That of the first checkpoint after the step: what a stop between two checkpoints has changed is in it. Without one, that
    of the folder. Published weights are asked for only at the start of a run."""
    path = folder / "config.yaml"
    if after is not None:
        stored, source = after.stored_config, str(after.path)
    else:
        try:
            stored, source = parse_yaml(path.read_text(encoding="utf-8"), str(path)), str(path)
        except OSError as e:
            raise UserError(f"{path}: {e.strerror}; name a checkpoint before the step instead of the folder") from None
    if not fresh and isinstance(stored, dict) and isinstance(model := stored.get("model"), dict):
        stored = stored | {"model": model | {k: False for k in ("pretrained", "pretrained_backbone") if k in model}}
    return resolve(stored, source=source, stored=True)
