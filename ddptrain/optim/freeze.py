"""Parameters that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ddptrain.errors import UserError


def freeze(model: nn.Module, parts: Sequence[str]) -> list[nn.Module]:
    """Freeze the parameters whose names begin with one of `parts` (whole words between dots).

    Returns:
        The modules that must stay in eval mode, so that their running statistics stay as they are, too.

    Raises:
        UserError: the model does not have such a part.
    """

    def inside(name: str, part: str) -> bool:
        return name == part or name.startswith(f"{part}.")

    frozen: list[nn.Module] = []
    for part in parts:
        parameters = [p for name, p in model.named_parameters() if inside(name, part)]
        if not parameters:
            known = ", ".join(dict.fromkeys(name.split(".")[0] for name, _ in model.named_parameters()))
            raise UserError(f"freeze: the model has no part {part!r}; its parts are {known}, and what is inside them")
        for parameter in parameters:
            parameter.requires_grad_(False)
        frozen += [m for name, m in model.named_modules() if inside(name, part)]
    return frozen
