"""Prediction of large images in windows, and of letterboxed ones in pixels of their files."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddptrain.data.tables.windows import window_starts


def slide(model: nn.Module, image: Tensor, size: int, overlap: float, batch: int, border: float) -> Tensor:
    """Logits of one image: the mean of those of all windows that see a pixel.

    Args:
        model: in eval mode; of float images `[B, 3, size, size]` in 0..1 it gives `{"out": [B, C, size, size]}`.
        image: float `[3, H, W]` in 0..1.
        size: side of the windows in pixels.
        overlap: of neighbouring windows, as a fraction of their side, in 0..1.
        batch: windows forwarded at once.
        border: value around an image that is smaller than a window.

    Returns:
        float32 `[C, H, W]`.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, max(0, size - width), 0, max(0, size - height)), value=border)
    places = [(y, x) for y in window_starts(height, size, overlap) for x in window_starts(width, size, overlap)]
    total = counts = None
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        logits = model(torch.stack([padded[:, y : y + size, x : x + size] for y, x in some]))["out"].float()
        if total is None or counts is None:
            total = logits.new_zeros(logits.shape[1], *padded.shape[-2:])
            counts = logits.new_zeros(padded.shape[-2:])
        for own, (y, x) in zip(logits, some):
            total[:, y : y + size, x : x + size] += own
            counts[y : y + size, x : x + size] += 1
    assert total is not None
    assert counts is not None
    return (total / counts)[:, :height, :width]


def native_logits(logits: Tensor, to_native: Tensor, native_size: Tensor) -> Iterator[Tensor]:
    """The logits of letterboxed images at the pixels of their files, sampled bilinearly, one image after the other.

    Args:
        logits: `[B, C, H, W]`.
        to_native: float32 `[B, 2, 3]`: a scale and a shift from pixels of the input to pixels of the file.
        native_size: int `[B, 2]`: width, height of the files.

    Yields:
        float32 `[C, height, width]`.
    """
    height, width = logits.shape[-2:]
    for one, matrix, (w, h) in zip(logits.float(), to_native, native_size.tolist()):
        x = (torch.arange(w, device=one.device) + 0.5 - matrix[0, 2]) / matrix[0, 0]
        y = (torch.arange(h, device=one.device) + 0.5 - matrix[1, 2]) / matrix[1, 1]
        grid = torch.stack(torch.meshgrid(2 * x / width - 1, 2 * y / height - 1, indexing="xy"), -1)
        yield F.grid_sample(one[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]
