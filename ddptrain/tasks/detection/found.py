"""What a detector finds, in pixels of the files; in images that are predicted in windows, stitched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor

from ddptrain.config.detection_eval import DetectionEval
from ddptrain.data.tables.windows import Cutter
from ddptrain.models.stitch import Seen, stitch
from ddptrain.structures import Batch, Detections

Found = dict[str, np.ndarray]
"""`boxes` in pixels of the file, `scores` and `labels` of one image, best first; and sums of losses by name."""
BOXES = ("boxes", "scores", "labels")


def in_files(detections: Sequence[Detections], batch: Batch) -> list[Found]:
    """The detections of each image of a batch."""
    boxes = [to_native(d.boxes.float(), batch.to_native[i], batch.native_size[i]) for i, d in enumerate(detections)]
    columns = {"boxes": boxes, "scores": [d.scores.float() for d in detections], "labels": [d.labels for d in detections]}
    # one copy from the device for the whole batch
    flat = {name: torch.cat(parts).cpu().numpy() for name, parts in columns.items()}
    starts = np.cumsum([0] + [len(b) for b in boxes])
    return [{k: v[a:b].copy() for k, v in flat.items()} for a, b in pairwise(starts.tolist())]


def to_native(boxes: Tensor, matrix: Tensor, size: Tensor) -> Tensor:
    """Boxes `[n, 4]` of a letterboxed image in pixels of its file, clipped to it.

    Args:
        matrix: float `[2, 3]`: a scale and a shift, see `Batch.to_native`.
        size: width and height of the file.
    """
    scale = torch.stack([matrix[0, 0], matrix[1, 1]]).repeat(2)
    shift = matrix[:, 2].repeat(2)
    return (boxes * scale + shift).clamp(min=0).minimum(size.to(boxes.dtype).repeat(2))


def see_in_windows(
    batch: Batch, see: Callable[[Batch], Sequence[Found]], cutter: Cutter, settings: DetectionEval
) -> list[Found]:
    """What `see` finds in the windows of each image of a batch and, if `settings.tiles.whole`, in the whole image, stitched;
    their losses are added."""
    assert settings.tiles is not None
    parts = chain.from_iterable(see(windows) for windows in batch.windows)
    whole = see(batch) if settings.tiles.whole else None
    out = []
    for number, (width, height) in enumerate(batch.native_size.tolist()):
        windows = cutter.windows(width, height)
        looks = [next(parts) for _ in windows]
        if whole is not None and len(windows) > 1:  # a single window shows all of it
            windows, looks = np.append(windows, [[0, 0, width, height]], 0), [*looks, whole[number]]
        losses = {name: sum((look[name] for look in looks[1:]), looks[0][name]) for name in looks[0] if name not in BOXES}
        boxes, scores, labels = (torch.from_numpy(np.concatenate([look[name] for look in looks])) for name in BOXES)
        owner = torch.arange(len(looks)).repeat_interleave(torch.tensor([len(look["scores"]) for look in looks]))
        seen = Seen(boxes, scores, labels, owner, torch.from_numpy(windows).float())
        found = stitch(seen, (width, height), settings)
        out.append({name: getattr(found, name).numpy() for name in BOXES} | losses)
    return out
