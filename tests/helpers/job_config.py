"""The config of tests that train nothing: what the launcher decides by it."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "name": "small",
    "classes": ["a"],
    "data": {
        "train": [{"name": "d", "format": "voc", "root": "data"}],
        "val": [{"name": "d", "format": "voc", "root": "data"}],
    },
    "train": {"global_batch": 12, "micro_batch": 4, "steps": 4},
    "slurm": {"nodes": 1, "gpus_per_node": 0, "time": "10:00"},
}
