"""`ddptrain depth`: depth maps of images by a monocular model, through transformers' depth-estimation pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ddptrain.data.images import BadImage, read_image
from ddptrain.engine.inference import IMAGE_SUFFIXES
from ddptrain.errors import UserError
from ddptrain.printable import say

LARGEST = 65535


def write_depth(images: Path, out: Path, model: str, scale: float | None) -> int:
    """Write a 16-bit PNG for every image below a folder, at the same relative path.

    Args:
        images: a folder, or one image.
        out: folder of the maps.
        model: folder or name of a depth-estimation model (ZoeDepth, Depth Anything, DPT …).
        scale: what a unit of the model becomes (1000: metres to millimetres), from 1 to 65535; None stretches each image's
            own range to that. 0 means that nothing is known: values that are not finite or, with `scale`, not above 0.

    Raises:
        UserError: the extra is not installed, the model cannot be loaded, or there is no image.
    """
    root = images if images.is_dir() else images.parent
    paths = sorted(p for p in images.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES) if images.is_dir() else [images]
    if not paths:
        raise UserError(f"{images}: no image in it; images end in {', '.join(IMAGE_SUFFIXES)}")
    pipeline = load_pipeline(model)
    for path in paths:
        target = (out / path.relative_to(root)).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(target), to_levels(predict(pipeline, path), scale)):
            raise UserError(f"{target}: cannot be written")
    say(f"{len(paths)} depth maps of {images} in {out}")
    return 0


def load_pipeline(model: str) -> Any:
    """transformers' pipeline, on the GPU where there is one."""
    try:
        from transformers import pipeline
    except ImportError:
        raise UserError("ddptrain depth needs transformers; pip install 'ddptrain[depth]'") from None
    try:
        return pipeline("depth-estimation", model=model)
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"--model {model}: {str(e).strip().splitlines()[0]}") from None


def predict(pipeline: Any, path: Path) -> np.ndarray:
    """Depth as the model tells it, float32 `[H, W]`, in pixels of the file."""
    from PIL import Image

    try:
        image = read_image(path)
    except BadImage as e:
        raise UserError(str(e)) from None
    depth = pipeline(Image.fromarray(image))["predicted_depth"].squeeze().float().cpu().numpy()
    return cv2.resize(depth, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)


def to_levels(depth: np.ndarray, scale: float | None) -> np.ndarray:
    """uint16 `[H, W]`: see `write_depth`."""
    known = np.isfinite(depth)
    if scale is not None:
        known &= depth > 0
        levels = depth * scale
    else:
        low, high = (depth[known].min(), depth[known].max()) if known.any() else (0.0, 1.0)
        levels = 1 + (depth - low) / max(high - low, 1e-12) * (LARGEST - 1)
    return np.where(known, np.nan_to_num(levels).clip(1, LARGEST).round(), 0).astype(np.uint16)
