"""What differs between two states of runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddptrain.errors import RunFailed

COUNTS = ("step", "skipped", "position", "samples_by_dataset", "pasted_by_dataset")
SMALLEST = 5e-324
"""The difference of tensors whose bits differ and whose values do not, such as 0.0 and -0.0."""


@dataclass(frozen=True)
class Difference:
    """A tensor that differs between two states, and by how much, relative to the largest value in it; nan where one of them
    holds a nan, inf where their shapes differ."""

    value: float
    name: str

    def __str__(self) -> str:
        return f"largest difference {self.value:.2g} in {self.name}" if self.value else "bit-equal"


def largest_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> Difference:
    """The largest difference between the tensors of two checkpoints of the same run; 0 where all are bit-equal.

    Raises:
        RunFailed: they do not hold the same tensors, or counted differently.
    """
    for key in COUNTS:
        if a[key] != b[key]:
            raise RunFailed(f"the runs differ in {key}: {a[key]} and {b[key]}")
    if odd := only_in_one(a, b):
        raise RunFailed(f"the runs hold different tensors: {odd[0]}")
    return next(iter(differences(a, b)), Difference(0.0, ""))


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """The tensors that both states hold and whose bits differ, the largest difference first; nan is larger than any."""
    theirs = dict(tensors(b))
    found = [Difference(_relative(x, theirs[name]), name) for name, x in tensors(a) if name in theirs]
    return sorted((d for d in found if d.value != 0), key=lambda d: -math.inf if math.isnan(d.value) else -d.value)


def only_in_one(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Names of the tensors that one of two states lacks."""
    return sorted(dict(tensors(a)).keys() ^ dict(tensors(b)).keys())


def tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Weights, their average and the optimizer's state, by name."""
    for part in ("model", "ema"):
        yield from ((f"{part} {name}", t) for name, t in (state[part] or {}).items() if isinstance(t, Tensor))
    for number, values in state["optimizer"]["state"].items():
        yield from ((f"optimizer {number} {k}", v) for k, v in values.items() if isinstance(v, Tensor))


def _relative(x: Tensor, y: Tensor) -> float:
    if x.shape != y.shape:
        return math.inf
    if x.dtype == y.dtype and torch.equal(_bits(x), _bits(y)):
        return 0.0
    x, y = x.double(), y.double()
    return max(float((x - y).abs().max() / x.abs().max().clamp(min=1e-12)), SMALLEST)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
