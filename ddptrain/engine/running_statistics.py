"""The running statistics of a network's norms, as arrays that a step can put back and average."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def running_statistics(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The buffers that a forward pass in training mode writes into, those of a kind as parts of one array, which they become;
    each with room for a copy."""
    norms = [m for m in model.modules() if getattr(m, "track_running_stats", False)]
    buffers = [b for m in norms for b in m.buffers(recurse=False)]
    arrays = []
    for kind in dict.fromkeys(b.dtype for b in buffers):
        group = [b for b in buffers if b.dtype == kind]
        array = torch.cat([b.flatten() for b in group])
        for b, part in zip(group, array.split([b.numel() for b in group])):
            b.data = part.view_as(b)
        arrays.append((array, array.clone()))
    return arrays
