"""How a run's model begins: weights of another run, and parts that stay as they are."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from ddptrain.engine import checkpoint
from ddptrain.errors import UserError
from ddptrain.printable import printable

SHOWN = 3  # names of tensors in an error


def _warn(line: str) -> None:
    print(f"ddptrain: warning: {printable(line)}", file=sys.stderr)


def load_initial(model: nn.Module, source: Path) -> None:
    """Start from the evaluated (averaged, where there are) weights of a run's best checkpoint, or of a checkpoint.

    Raises:
        UserError: there is no such checkpoint, or it is of another architecture; names the tensors that do not fit.
    """
    try:
        file, state = checkpoint.load(source, _warn, best=True)
    except UserError as e:
        raise UserError(f"init_from: {e}") from None
    weights = state["ema"] if state["ema"] is not None else state["model"]
    wrong = _differences(weights, model.state_dict())
    if wrong:
        raise UserError(
            f"init_from: {file}: its model is of another architecture: {wrong}; use the model section it was trained with"
        )
    model.load_state_dict(weights)


def _differences(there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> str:
    reshaped = [
        f"{k} is {list(there[k].shape)} there and {list(v.shape)} here"
        for k, v in here.items()
        if k in there and there[k].shape != v.shape
    ]
    told = [
        _few(reshaped, ""),
        _few([k for k in here if k not in there], "only here: "),
        _few([k for k in there if k not in here], "only there: "),
    ]
    return "; ".join(t for t in told if t)


def _few(names: Sequence[str], what: str) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return what + ", ".join(names[:SHOWN]) + more if names else ""


def freeze(model: nn.Module, parts: Sequence[str]) -> list[nn.Module]:
    """Let the parameters whose names begin with one of `parts` (whole words between dots) stay as they are.

    Returns:
        The modules that must stay in eval mode, so that their running statistics stay, too.

    Raises:
        UserError: a part that the model does not have.
    """

    def inside(name: str, part: str) -> bool:
        return name == part or name.startswith(f"{part}.")

    frozen: list[nn.Module] = []
    for part in parts:
        found = [p for name, p in model.named_parameters() if inside(name, part)]
        if not found:
            known = ", ".join(dict.fromkeys(name.split(".")[0] for name, _ in model.named_parameters()))
            raise UserError(f"freeze: the model has no part {part!r}; its parts are {known}, and what is inside them")
        for parameter in found:
            parameter.requires_grad_(False)
        frozen += [m for name, m in model.named_modules() if inside(name, part)]
    return frozen
