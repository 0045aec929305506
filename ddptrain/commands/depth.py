"""`ddptrain depth`: depth maps of images by a monocular model, through transformers' depth-estimation pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ddptrain.commands.image_files import Skipped, find_images, refuse_overwriting
from ddptrain.config.data import Exif
from ddptrain.data.images.read import read_image
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError
from ddptrain.system.printable import counted, say

LARGEST = 65535


def write_depth(images: Path, out: Path, model: str, scale: float | None, exif: Exif = "apply") -> int:
    """Write a 16-bit PNG for every image below a folder, at the same relative path.

    Args:
        images: a folder, or one image.
        out: folder of the maps.
        model: folder or name of a depth-estimation model (ZoeDepth, Depth Anything, DPT …).
        scale: values per unit of the model (1000: metres to millimetres), clipped to 1..65535; None stretches each image's own
            range over that. 0 means unknown: values that are not finite or, with `scale`, not above 0.
        exif: as the key of the dataset that will use the maps.

    Returns:
        0; 1 if some images could not be used, 2 if none could.

    Raises:
        UserError: the extra is not installed, the model cannot be loaded, there is no image, or a map cannot be written.
    """
    faults = Faults()
    by_name: dict[str, Path] = {}
    for path, name in find_images([images], faults).items():
        if name in by_name:
            faults.add("name with two suffixes", str(by_name[name]), f"{path} is taken")
        by_name[name] = path
    refuse_overwriting(by_name.values(), out, (f"{name}.png" for name in by_name))
    pipeline, skipped = load_pipeline(model), Skipped()
    if faults.counts:
        say(f"left out: {faults.text()}")
    for name, path in by_name.items():
        target = out / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        levels = None
        with skipped.skipping(path):
            levels = to_levels(predict(pipeline, path, exif), scale)
        if levels is not None and not cv2.imwrite(str(target), levels):
            raise UserError(f"{target}: cannot be written")
    written = len(by_name) - skipped.count
    say(f"{counted(written, 'depth map')} of {images} in {out}")
    return skipped.status(len(by_name))


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


def predict(pipeline: Any, path: Path, exif: Exif = "apply") -> np.ndarray:
    """The model's depth, float32 `[H, W]`, in pixels of the image as it is read; raises `BadImage`."""
    from PIL import Image

    image = read_image(path, exif)
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
