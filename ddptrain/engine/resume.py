"""Resuming a run: from which checkpoint, what must not have changed, what has, and what follows from that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddptrain.checkpoint.load import Checkpoint, load_checkpoint, newest_checkpoint
from ddptrain.config import DatasetConfig, RunConfig, resolve
from ddptrain.config.changes import changes
from ddptrain.config.places import without_defaults_of_others
from ddptrain.config.section import Section
from ddptrain.data.tables.contents import differences
from ddptrain.engine.state import RunState
from ddptrain.errors import UserError
from ddptrain.models.norms import SYNC_BATCH_NORMS, batch_norms
from ddptrain.system.lock import has_run
from ddptrain.system.printable import counted
from ddptrain.system.start import Start, read_start, requested_start
from ddptrain.system.status import read_status


class Origin(NamedTuple):
    """Where a run starts.

    Attributes:
        checkpoint: None for a start from the beginning.
        start: holds for restarts until the run has a checkpoint of its own.
        allow: the differences from the checkpoint that are accepted.
        fresh: the remains of the run's own checkpoints are set aside.
    """

    checkpoint: Checkpoint | None = None
    start: Start | None = None
    allow: tuple[str, ...] = ()
    fresh: bool = False


def find_origin(config: RunConfig, warn: Callable[[str], None]) -> Origin:
    """Find the checkpoint that `resume` asks for; raises `UserError` where the folder is taken, the source holds no
    checkpoint, or none of the run's own can be read."""
    resume, folder = config.resume, config.folder
    if resume is None:
        if has_run(folder):
            raise UserError(f"{folder}: this run already exists; continue it with resume=auto, or choose another name=…")
        return Origin()
    start = requested_start(resume) or read_start(folder)
    if resume.source == "auto":
        newest = newest_checkpoint(folder / "checkpoints", warn)
        if newest is not None:
            return Origin(newest, start, resume.allow)
        lost = _lost_checkpoints(folder)
        if lost and "fresh" not in resume.allow:
            raise UserError(
                f"{folder / 'checkpoints'}: none of this run's checkpoints can be read{lost}; restore one, or discard what "
                f"it learned and start over with resume=auto resume.allow=[fresh]"
            )
        if start is None or _is_inside(Path(start.source), folder):
            return Origin(fresh=bool(lost))
        warn(f"{folder}: no checkpoint of its own yet: starting from {start.source} again")
        allow = (*start.allow, *resume.allow)
        return Origin(load_checkpoint(Path(start.source), warn), start, allow, bool(lost))
    assert start is not None
    source = Path(resume.source)
    if not _is_inside(source, folder) and has_run(folder) and (_has_checkpoints(folder) or read_start(folder) != start):
        raise UserError(
            f"{folder}: this run already exists without {source}; continue it with resume=auto, or choose another name=…"
        )
    return Origin(load_checkpoint(source, warn), start, resume.allow)


def _lost_checkpoints(folder: Path) -> str:
    """The sign that a run had checkpoints, if none can be read; empty for one that never had any."""
    if _has_checkpoints(folder):
        return ", each is named above"
    status = read_status(folder)
    return f", and {status.checkpoint}, its last one, is gone" if status is not None and status.checkpoint else ""


def _has_checkpoints(folder: Path) -> bool:
    """Whether it has saved any: best.pt may have come along from the run that it resumes from."""
    checkpoints = folder / "checkpoints"
    return any(checkpoints.glob("step_*.pt")) or (checkpoints / "last.pt").is_symlink() or (checkpoints / "last.pt").exists()


def _is_inside(source: Path, folder: Path) -> bool:
    return folder.resolve() in (source.resolve(), *source.resolve().parents)


def identity(
    datasets: Sequence[DatasetConfig], sizes: Sequence[int], classes: Sequence[str], global_batch: int, seed: int
) -> dict[str, Any]:
    """What two runs must share for one to resume from the other's checkpoint, by the name that `resume.allow` takes."""
    return {
        "datasets": [f"{d.name}: {n} images, share {d.share}" for d, n in zip(datasets, sizes)],
        "classes": list(classes),
        "global_batch": global_batch,
        "seed": seed,
    }


def check_same(
    checkpoint: Checkpoint, identity: Mapping[str, Any], contents: Sequence[Mapping[str, Any]], allow: Sequence[str]
) -> list[str]:
    """Refuse a checkpoint of another run, or one that has seen other training data, by a `UserError` that shows both
    sides of all differences. Returns a line for each difference of the data that is accepted; those of validation data
    always are."""
    path, before = checkpoint.path, checkpoint.state["identity"]
    refused = {k: f"the checkpoint has {before.get(k)}, the config {v}" for k, v in identity.items() if before.get(k) != v}
    data = differences(checkpoint.contents, contents)
    if data["train"]:
        refused["datasets"] = "; ".join([*data["train"], *([refused["datasets"]] if "datasets" in refused else [])])
    if not refused.keys() <= set(allow):
        lines = "; ".join(f"{key} {'differ' if key.endswith('s') else 'differs'}: {text}" for key, text in refused.items())
        accept = f"accept it with resume.allow=[{','.join(dict.fromkeys((*allow, *refused)))}]"
        if len(before["classes"]) != len(identity["classes"]):  # the network is another one
            accept = f"start a new run from its weights with resume=null name=… init_from={path}"
        raise UserError(f"{path}: cannot resume: {lines}; restore the old setting, or {accept}")
    if "contents" not in checkpoint.state:
        return [f"{path}: written by a version that recorded nothing about images and labels: they may have changed"]
    return [
        *(f"{line}: not the data from before the stop; accepted by resume.allow" for line in data["train"]),
        *(f"{line}: metrics, and so the best checkpoint, are not comparable with those before" for line in data["val"]),
    ]


def config_changes(before: Mapping[str, Any], now: RunConfig) -> Iterator[str]:
    """`key: old → new` for each key whose value has changed; keys that the checkpoint's config does not have had their
    defaults."""
    try:
        old = resolve(dict(before), source="checkpoint", stored=True).model_dump(mode="json")
    except UserError:  # written by a version with other keys
        old = without_defaults_of_others(dict(before), type(now), stored=True)
    return changes(old, now.model_dump(mode="json"))


def consequences(checkpoint: Checkpoint, state: RunState, image_size: Any, loss: Section, group_norms: bool) -> Iterator[str]:
    """What a change means for running statistics and for the best value so far, a line each with the reason.

    Args:
        state: has not taken the checkpoint over yet.
        image_size: of the run now, as is `loss`.
        group_norms: the run's model could have group norms.
    """
    before, split, norms = checkpoint.stored_config, state.split, batch_norms(state.model)
    learning = [m for m in norms if m.track_running_stats and m.affine and (m.weight is None or m.weight.requires_grad)]
    micro, ranks = checkpoint.state.get("micro_batch"), checkpoint.state.get("ranks")
    synced = any(isinstance(m, SYNC_BATCH_NORMS) for m in learning)
    same = micro == split.micro_batch and (ranks == split.world_size or not synced)
    if learning and micro is not None and ranks is not None and not same:
        restore = "the micro batch and the number of ranks" if synced else f"train.micro_batch={micro}"
        over = "all ranks' micro batches" if synced else "one micro batch"
        group = ", or train with model.norm=group, where the split does not matter" if group_norms else ""
        yield (
            f"micro batch {micro} on {counted(int(ranks), 'rank')} before, {split.micro_batch} on "
            f"{counted(split.world_size, 'rank')} now: the model has batch norms, which normalise over {over}, so what it "
            f"learns and its running statistics are not those of the run so far; restore {restore}{group}"
        )
    size = before["data"]["image_size"]
    if size != image_size:
        kept = "running statistics of the batch norms, " if norms else ""
        yield (
            f"data.image_size was {size} and is {image_size}: {kept}averaged weights and the best value so far "
            "come from the old size and adapt as the run continues"
        )
    if before["loss"] != loss.model_dump(mode="json"):
        kept = "the running statistics of the batch norms, " if learning else ""
        yield (
            f"the loss has changed: losses before and after are not comparable, and {kept}the optimizer's moments and the best "
            "value so far belong to the old one"
        )


def takes_group_norms(config: RunConfig) -> bool:
    """Whether `model.norm=group` is a config that can be run."""
    if config.task == "detection" and getattr(config.model, "backbone", None) is not None:  # a published one has its own
        return False
    try:
        resolve(config.model_dump(mode="json"), ["model.norm=group"], stored=True)
    except UserError:
        return False
    return True


def take_over(state: RunState, checkpoint: Checkpoint, optimizer: str, freeze: Sequence[str]) -> None:
    """Load a checkpoint into a state whose update rule is `optimizer.name` of its config, and whose frozen parts are `freeze`;
    raises `UserError` where it does not fit."""
    rule = checkpoint.stored_config["optimizer"]["name"]
    if rule != optimizer:
        raise UserError(
            f"{checkpoint.path}: cannot resume: optimizer.name was {rule} and is {optimizer}, whose state does not fit; "
            "restore it, or start a new run"
        )
    frozen = list(checkpoint.stored_config.get("freeze", ()))
    if "trained" not in checkpoint.state and frozen != list(freeze):
        raise UserError(
            f"{checkpoint.path}: cannot resume: freeze was {frozen} and is {list(freeze)}: the optimizer's state does not fit, "
            f"since this older checkpoint has no names in it; restore it, or start a new run with resume=null name=… "
            f"init_from={checkpoint.path}"
        )
    try:
        state.load_state_dict(checkpoint.state)
    except (RuntimeError, ValueError, KeyError) as e:
        line = " ".join(str(e).split())[:300]
        raise UserError(f"{checkpoint.path}: does not fit the config's model or optimizer: {line}") from None
