"""Weights of another run as the start of this one, taken by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.errors import UserError
from ddptrain.models.class_layers import Layout, class_layers
from ddptrain.system.printable import first_few

SHOWN = 3
"""Tensors that a line names."""
ENOUGH = 0.5
"""Fraction of a model's values that the other run must provide."""


def load_initial(model: nn.Module, source: Path, classes: Sequence[str], strict: bool = False) -> list[str]:
    """Start from the evaluated weights of a run's best checkpoint, or of the checkpoint that is named.

    Tensors of the same name and shape are taken, and of the class layers the rows of the classes of the same name; all else
    stays as it is.

    Args:
        classes: of this run.
        strict: refuse a start that leaves anything out.

    Returns:
        Lines for the log about what was loaded, initialized and left out.

    Raises:
        UserError: there is no such checkpoint, or it has another architecture; names the tensors that do not fit.
    """
    try:
        checkpoint = load_checkpoint(source, best=True)
    except UserError as e:
        raise UserError(f"init_from: {e}") from None
    file, weights, theirs = checkpoint.path, checkpoint.weights, checkpoint.stored_config["classes"]
    here, layers = model.state_dict(), class_layers(model)
    fit = fit_weights(weights, here, layers, theirs, list(classes))
    wrong = _differences(weights, here)
    if strict and theirs != list(classes):
        raise UserError(
            f"init_from: {file}: its classes are {first_few(theirs, most=20)}, those of this run "
            f"{first_few(classes, most=20)}; make them the same, or set init_strict=false"
        )
    if strict and wrong:
        raise UserError(
            f"init_from: {file}: its model has another architecture: {wrong}; use the model section it was trained with, or "
            "set init_strict=false to load what fits"
        )
    if fit.part < ENOUGH:
        raise UserError(
            f"init_from: {file}: its model has another architecture: {wrong}; by name and shape it holds {fit.part:.0%} of the "
            f"values of this run's model, and {ENOUGH:.0%} are required; use the model section it was trained with"
        )
    model.load_state_dict(fit.tensors)
    part = math.floor(1000 * fit.part) / 1000  # 100% is all of it
    lines = [
        f"init_from: {file}: {fit.taken} of {len(here)} tensors loaded whole; {part:.1%} of the model's values come from it"
    ]
    if theirs != list(classes):
        lines.append(f"init_from: classes: {_by_class(theirs, classes)}")
        if not layers:
            lines.append("warning: init_from: the class layers of this model are not known: their rows are copied in order")
    by_row = layers if fit.rows else {}
    theirs_else, ours_else = ({k: v for k, v in side.items() if k not in by_row} for side in (weights, here))
    new, left = (
        sum(k not in b or a[k].shape != b[k].shape for k in a) for a, b in ((ours_else, theirs_else), (theirs_else, ours_else))
    )
    others = _differences(theirs_else, ours_else)
    return lines + ([f"init_from: {new} other tensors initialized, {left} left out: {others}"] if others else [])


class Fit(NamedTuple):
    """The part of some weights that fits a model.

    Attributes:
        tensors: the model's, with everything that fits in place.
        taken: number of tensors that were taken whole.
        rows: number of tensors of which rows were taken by class.
        part: fraction of the model's values that were taken.
    """

    tensors: dict[str, Tensor]
    taken: int
    rows: int
    part: float


def fit_weights(
    there: Mapping[str, Tensor],
    here: Mapping[str, Tensor],
    layers: Mapping[str, Layout],
    old: Sequence[str],
    new: Sequence[str],
) -> Fit:
    """Take what fits by name and shape, and of the class layers (see `class_layers`) the rows of the classes of the same name;
    `old` are the classes there, `new` those here."""
    tensors, taken, rows, values = dict(here), 0, 0, 0
    for name, own in here.items():
        other = there.get(name)
        if other is None:
            continue
        if name in layers and old != new:
            mixed, copied = _rows(other, own, layers[name], old, new)
            tensors[name] = mixed
            rows, values = rows + (copied > 0), values + copied
        elif other.shape == own.shape:
            tensors[name] = other
            taken, values = taken + 1, values + own.numel()
    return Fit(tensors, taken, rows, values / max(1, sum(t.numel() for t in here.values())))


def _rows(other: Tensor, own: Tensor, layout: Layout, old: Sequence[str], new: Sequence[str]) -> tuple[Tensor, int]:
    """`own` with the rows of the classes that both have, and the number of values that were taken."""
    mixed = own.clone().contiguous()
    source, target = layout.cut(other.contiguous(), len(old)), layout.cut(mixed, len(new))
    if source is None or target is None or source.shape[2:] != target.shape[2:]:
        return own, 0
    pairs = [(layout.before + old.index(c), layout.before + i) for i, c in enumerate(new) if c in old]
    pairs += [(i, i) for i in range(layout.before)]
    pairs += [(layout.before + len(old) + i, layout.before + len(new) + i) for i in range(layout.after)]
    for a, b in pairs:
        target[:, b] = source[:, a]
    return mixed, len(pairs) * target[:, 0].numel()


def _by_class(old: Sequence[str], new: Sequence[str]) -> str:
    groups = {
        "copied by name": [c for c in new if c in old],
        "initialized": [c for c in new if c not in old],
        "left out": [c for c in old if c not in new],
    }
    return "; ".join(f"{what}: {len(names)} ({first_few(names, most=20)})" for what, names in groups.items() if names)


def _differences(there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> str:
    reshaped = [
        f"{k} is {list(there[k].shape)} there and {list(v.shape)} here"
        for k, v in here.items()
        if k in there and there[k].shape != v.shape
    ]
    groups = {
        "": reshaped,
        "only here: ": [k for k in here if k not in there],
        "only there: ": [k for k in there if k not in here],
    }
    return "; ".join(what + first_few(names, most=SHOWN) for what, names in groups.items() if names)
