"""Where a network keeps what belongs to single classes, so that it can be taken over by the classes' names."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


class Layout(NamedTuple):
    """How the rows of a tensor follow each other: `[groups, before + classes + after, width]`.

    Attributes:
        groups: anchors, each of which has all classes.
        before, after: entries without a class in front of the classes and behind them (background, no object).
        width: rows of each class.
    """

    groups: int = 1
    before: int = 0
    after: int = 0
    width: int = 1

    def cut(self, tensor: Tensor, classes: int) -> Tensor | None:
        """`[groups, before + classes + after, width, …]`, a view; None where it has another number of rows."""
        entries = self.before + classes + self.after
        if tensor.shape[0] != self.groups * entries * self.width:
            return None
        return tensor.view(self.groups, entries, self.width, *tensor.shape[1:])


@runtime_checkable
class ByClass(Protocol):
    """A network that knows which of its layers hold rows of single classes."""

    def class_layers(self) -> dict[str, Layout]:
        """Layouts of the weight and the bias of its class layers, by the name of the layer."""
        ...


def class_layers(model: nn.Module) -> dict[str, Layout]:
    """The tensors of a network, by name, whose rows belong to single classes; none where the network has no such method."""
    layers = model.class_layers() if isinstance(model, ByClass) else {}
    return {f"{name}.{kind}": layout for name, layout in layers.items() for kind in ("weight", "bias")}
