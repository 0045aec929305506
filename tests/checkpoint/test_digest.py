"""The digest of weights is what its docstring says, whatever the memory format, and no bit escapes it."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest
import torch

from ddptrain.checkpoint.digest import weights_digest


def state() -> dict[str, Any]:
    weights = {"b.weight": torch.arange(24.0).reshape(1, 2, 3, 4), "a": torch.tensor(3), "é": torch.tensor([-0.0, 1.5])}
    return {"model": weights, "ema": {"a": torch.tensor([1.0], dtype=torch.bfloat16)}, "step": 4}


def test_it_is_made_of_what_the_documentation_lists() -> None:
    expected = hashlib.sha256()
    expected.update(b"model a int64 scalar\n" + struct.pack("<q", 3))
    expected.update(b"model b.weight float32 1x2x3x4\n" + struct.pack("<24f", *range(24)))
    expected.update("model é float32 2\n".encode() + struct.pack("<2f", -0.0, 1.5))
    expected.update(b"ema a bfloat16 1\n" + b"\x80\x3f")
    assert weights_digest(state()) == expected.hexdigest()


def test_neither_memory_format_nor_order_nor_anything_else_counts() -> None:
    other = state()
    other["model"] = dict(reversed(other["model"].items()))
    other["model"]["b.weight"] = other["model"]["b.weight"].to(memory_format=torch.channels_last)
    assert not other["model"]["b.weight"].is_contiguous()
    assert weights_digest(other | {"step": 5, "optimizer": {"x": torch.ones(3)}}) == weights_digest(state())


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("model", "é", torch.tensor([0.0, 1.5])),  # the sign of a zero
        ("model", "é", torch.tensor([[-0.0, 1.5]])),
        ("model", "a", torch.tensor(3, dtype=torch.int32)),
        ("model", "c", torch.zeros(0)),
        ("ema", "a", torch.tensor([1.0078125], dtype=torch.bfloat16)),
    ],
)
def test_every_bit_name_type_and_shape_counts(part: str, name: str, value: torch.Tensor) -> None:
    other = state()
    other[part][name] = value
    assert weights_digest(other) != weights_digest(state())
    assert weights_digest(state() | {"ema": None}) != weights_digest(state())
