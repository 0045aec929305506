"""A SHA-256 of a run's weights, to be kept with a result.

It is computed from names, types, shapes and values, not of a file: neither the version of torch nor the way in which a
checkpoint is stored is in it. In this order:

    for `model`, and for `ema` where the run keeps an average: each tensor of its `state_dict` (parameters and buffers, running
    statistics among them), sorted by name as UTF-8:
        a line of text     `model stem.conv.weight float32 16x3x3x3`, then a line feed; the shape of a scalar is `scalar`
        its values         in C order, whatever the memory format, each in little-endian bytes
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

PARTS = ("model", "ema")


def weights_digest(state: Mapping[str, Any]) -> str:
    """64 hexadecimal digits of the weights in the state of a run, whose tensors are on the CPU."""
    digest = hashlib.sha256()
    for part in PARTS:
        tensors: Mapping[str, Any] = state.get(part) or {}
        for name in sorted(tensors, key=lambda n: n.encode()):
            tensor = tensors[name]
            if isinstance(tensor, Tensor):
                shape = "x".join(map(str, tensor.shape)) or "scalar"
                digest.update(f"{part} {name} {str(tensor.dtype).removeprefix('torch.')} {shape}\n".encode())
                digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if sys.byteorder == "big":
        flat = flat.view(-1, tensor.element_size()).flip(1).reshape(-1)
    return flat.numpy().data
