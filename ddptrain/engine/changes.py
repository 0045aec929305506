"""What is other in a run that goes on than before: what is refused, keys of the config, what follows for its statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from ddptrain.checkpoint.load import Checkpoint
from ddptrain.config import RunConfig, resolve
from ddptrain.config.text import dump_inline
from ddptrain.data.tables.contents import differences
from ddptrain.engine.state import RunState
from ddptrain.errors import UserError
from ddptrain.models.norms import SYNC_BATCH_NORMS

OWN = ("resume", "slurm")
"""Sections that say how a run is started, not what it is."""


def identity(config: RunConfig, sizes: list[int]) -> dict[str, Any]:
    """What two configs must share for one to go on from the other's checkpoint, by the name that `resume.allow` takes."""
    return {
        "datasets": [f"{d.name}: {n} images, share {d.share}" for d, n in zip(config.data.train, sizes)],
        "classes": list(config.classes),
        "global_batch": config.train.global_batch,
        "seed": config.seed,
    }


def check_same(
    checkpoint: Checkpoint, identity: dict[str, Any], contents: list[dict[str, Any]], allow: tuple[str, ...]
) -> list[str]:
    """Refuse a checkpoint of another run, or one that has seen other training data; other validation data are told.

    Returns:
        A line for each difference of the data that is accepted.

    Raises:
        UserError: all differences of which one is not allowed, both sides shown.
    """
    path, known = checkpoint.path, checkpoint.state["identity"]
    told = {k: f"the checkpoint has {known.get(k)}, the config {v}" for k, v in identity.items() if known.get(k) != v}
    found = differences(checkpoint.contents, contents)
    if found["train"]:
        told["datasets"] = "; ".join([*found["train"], *([told["datasets"]] if "datasets" in told else [])])
    if not told.keys() <= set(allow):
        both = "; ".join(f"{key} {'differ' if key.endswith('s') else 'differs'}: {text}" for key, text in told.items())
        accept = f"accept it with resume.allow=[{','.join(dict.fromkeys((*allow, *told)))}]"
        if len(known["classes"]) != len(identity["classes"]):  # the network is another one
            accept = f"start a new run from its weights with resume=null name=… init_from={path}"
        raise UserError(f"{path}: cannot go on, {both}; restore what was, or {accept}")
    if "contents" not in checkpoint.state:
        return [f"{path}: of a version that noted nothing about images and labels: whether they are the same is not known"]
    return [
        *(f"{line}: other data than before the stop, accepted by resume.allow" for line in found["train"]),
        *(
            f"{line}: metrics from here on, and which one is the best, do not compare with those before"
            for line in found["val"]
        ),
    ]


def changes(before: Mapping[str, Any], now: RunConfig) -> Iterator[str]:
    """`key: old → new` for each key whose value is another one.

    Args:
        before: the config of the checkpoint; keys that it does not know had their defaults.
    """
    try:
        old = resolve(dict(before), source="checkpoint", stored=True).model_dump(mode="json")
    except UserError:  # of a version that knew other keys
        old = dict(before)
    was, is_ = dict(_flat(old)), dict(_flat(now.model_dump(mode="json")))
    for key in [*is_, *(k for k in was if k not in is_)]:
        if key.split(".")[0] not in OWN and was.get(key, _ABSENT) != is_.get(key, _ABSENT):
            yield f"{key}: {_shown(was, key)} → {_shown(is_, key)}"


_ABSENT = object()


def _shown(values: Mapping[str, Any], key: str) -> str:
    return dump_inline(values[key]) if key in values else "absent"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its dotted path; datasets by their place, lists of plain values whole."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
        for i, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{i}")
    else:
        yield path, value


def consequences(checkpoint: Checkpoint, now: RunConfig, state: RunState) -> Iterator[str]:
    """What a change means for running statistics and for the best value so far, a line each with the reason.

    Args:
        checkpoint: that the run goes on from.
        state: of the run, before it takes the checkpoint over.
    """
    before = checkpoint.stored_config
    split, norms = state.split, [m for m in state.model.modules() if isinstance(m, _BatchNorm)]
    learning = [m for m in norms if m.track_running_stats and m.affine and (m.weight is None or m.weight.requires_grad)]
    was = (checkpoint.state.get("micro_batch"), checkpoint.state.get("ranks"))
    if learning and None not in was and was != (split.micro_batch, split.world_size):
        synced = all(isinstance(m, SYNC_BATCH_NORMS) for m in learning)
        over = "all ranks' micro batches" if synced else "one micro batch"
        group = ", or train with model.norm=group, where the split is no matter" if _takes_group_norms(now) else ""
        yield (
            f"micro batch {was[0]} on {_ranks(was[1])} before, {split.micro_batch} on {_ranks(split.world_size)} now: the "
            f"model has batch norms, which normalise over {over}, so what it learns and its running statistics are not those "
            f"of the run so far; restore both{group}"
        )
    size = before["data"]["image_size"]
    if size != now.data.image_size:
        kept = "running statistics of the batch norms, " if norms else ""
        yield (
            f"data.image_size was {size} and is {now.data.image_size}: {kept}averaged weights and the best value so far are of "
            "the old size and adapt as the run goes on"
        )
    if before["loss"] != json.loads(now.loss.model_dump_json()):
        kept = "the running statistics of the batch norms, " if learning else ""
        yield (
            f"the loss is another one: losses before and after do not compare, and {kept}the optimizer's moments and the best "
            "value so far are of the old one"
        )


def _ranks(count: Any) -> str:
    return f"{count} rank{'s'[: int(count) - 1]}"


def _takes_group_norms(config: RunConfig) -> bool:
    if config.task == "detection" and getattr(config.model, "backbone", None) is not None:  # a published one has its own
        return False
    try:
        resolve(config.model_dump(mode="json"), ["model.norm=group"], stored=True)
    except UserError:
        return False
    return True
