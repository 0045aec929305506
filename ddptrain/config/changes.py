"""What differs between two resolved configs, and what of a config the weights of a run depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ddptrain.config.text import dump_inline

HOW_STARTED = ("resume", "slurm")
"""Sections that say how a run is started, not what it is."""
NOT_LEARNED = (
    *HOW_STARTED,
    *("name", "output", "monitor", "eval", "checkpoint", "data.val", "data.workers", "data.cache", "data.max_bad_samples"),
    *("model.checkpointing", "train.timeout_s", "train.max_bad_steps", "train.patience"),
)
"""Keys and sections without an influence on the weights after a number of steps."""
RECORDED = tuple(
    f"train.{key}" for key in ("device", "threads", "precision", "tf32", "micro_batch", "reduction", "deterministic")
)
"""Keys that matter, and that a record names one by one, as they were used."""


def changes(old: Mapping[str, Any], new: Mapping[str, Any], apart: Collection[str] = HOW_STARTED) -> Iterator[str]:
    """`key: old → new` for each key whose value differs, but for those of the sections `apart`."""
    olds, news = dict(flat(old)), dict(flat(new))
    for key in [*news, *(k for k in olds if k not in news)]:
        same = key in olds and key in news and olds[key] == news[key]
        if not same and not within(key, apart):
            yield f"{key}: {_shown(olds, key)} → {_shown(news, key)}"


def fingerprint(config: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of all values that the weights depend on, but for `RECORDED`. Where datasets lie does not count."""
    learned = [
        (key, value)
        for key, value in flat(config)
        if not within(key, (*NOT_LEARNED, *RECORDED)) and not (key.startswith("data.train.") and key.endswith(".root"))
    ]
    return hashlib.sha256(json.dumps(sorted(learned, key=lambda item: item[0])).encode()).hexdigest()[:16]


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its dotted path; datasets by their place, lists of plain values whole."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, (list, tuple)) and any(isinstance(v, Mapping) for v in value):
        for i, inner in enumerate(value):
            yield from flat(inner, f"{path}.{i}")
    else:
        yield path, value


def within(key: str, sections: Collection[str]) -> bool:
    """Whether a key is one of these keys or inside one of these sections."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _shown(values: Mapping[str, Any], key: str) -> str:
    return dump_inline(values[key]) if key in values else "absent"
