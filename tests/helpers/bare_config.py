"""The shortest config of each task."""

from __future__ import annotations

from typing import Any

FORMATS = {"detection": "coco", "classification": "folder", "segmentation": "masks", "interaction": "jrdb"}
"""A format of each task."""


def bare(task: str, **keys: Any) -> dict[str, Any]:
    """A config that only says what it must, with further keys."""
    data = [{"name": "d", "format": FORMATS.get(task, "coco"), "root": "r"}]
    return {"task": task, "classes": ["a", "b"], "data": {"train": data, "val": data}, **keys}
