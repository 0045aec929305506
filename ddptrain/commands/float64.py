"""Training in float64, to tell rounding from a mistake: rounding shrinks with the precision, a mistake stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ddptrain.structures import Batch, LossSum
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import TASKS, task_class


class _Float64(TorchFunctionMode):
    """Where code asks for float32, it gets float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        wider = Tensor.double if func is Tensor.float else func
        return wider(*map(_wider, args), **{k: _wider(v) for k, v in (kwargs or {}).items()})


def _wider(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


@contextmanager
def in_float64(task: str) -> Iterator[None]:
    """In this process, networks and losses of a task (its name in the config) compute in float64, and so does the engine."""
    kind = task_class(task)

    class Float64Task(kind):  # type: ignore[valid-type, misc]
        def build_model(self) -> nn.Module:
            model: nn.Module = super().build_model()
            return model.double()

        def loss(self, model: nn.Module, batch: Batch) -> LossSum:
            loss: LossSum = super().loss(model, batch.map(_double))
            return loss

    before, known = torch.get_default_dtype(), TASKS.get(task)
    tasks: dict[str, type[Task]] = TASKS
    torch.set_default_dtype(torch.float64)
    tasks[task] = Float64Task
    try:
        with _Float64():
            yield
    finally:
        torch.set_default_dtype(before)
        if known is None:
            del tasks[task]
        else:
            tasks[task] = known
