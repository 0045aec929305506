"""What the bits of a run's weights depend on, beside the number of steps: recorded in every checkpoint and in the summary."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torchvision

from ddptrain.config.batch import Split
from ddptrain.config.changes import fingerprint
from ddptrain.system.code import code_version, commit

OWN_LINES = ("data", "config", "commit")
"""Entries of which a resumed run says in lines of their own what has changed; of the code its source counts."""


def bits_record(
    config: Mapping[str, Any], device: torch.device, split: Split, contents: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The record of a run.

    Args:
        config: resolved, as plain types.
        contents: what each dataset held, see `Contents.state`.

    Returns:
        `code` (version and hash of the source), `commit` (empty outside a git checkout), `torch`, `torchvision`, `numpy`,
        `opencv` (versions), `device`, `threads` (of a rank), `precision`, `micro_batch`, `reduction`, `deterministic`,
        `tf32`, and the fingerprints `data` (of the training datasets) and `config` (of the other keys that matter).
    """
    return {
        "code": code_version(),
        "commit": commit(),
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "device": _kind(device),
        "threads": torch.get_num_threads(),
        "precision": config["train"]["precision"],
        "micro_batch": split.micro_batch,
        **{key: config["train"][key] for key in ("reduction", "deterministic", "tf32")},
        "data": data_fingerprint(contents),
        "config": fingerprint(config),
    }


def data_fingerprint(contents: Sequence[Mapping[str, Any]]) -> str:
    """16 hexadecimal digits of the images and labels of all training datasets."""
    digest = hashlib.sha256()
    for state in contents:
        if state["part"] == "train":
            digest.update(repr((state["name"], state.get("kind", "images"), state["total"])).encode())
            digest.update(np.asarray(state["digests"]).tobytes())
    return digest.hexdigest()[:16]


def record_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """`torch 2.13.0 → 2.14.1` for each entry that two records have and that differs."""
    for key in now:
        if key in before and before[key] != now[key]:
            yield f"{key.replace('_', ' ')} {before[key] or 'unknown'} → {now[key] or 'unknown'}"


def machine_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The changes of code, libraries, device, threads, precision and micro batch."""
    return list(record_changes(*({k: v for k, v in record.items() if k not in OWN_LINES} for record in (before, now))))


def other_bits(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The line of a run that resumes where its bits will differ from those without the stop; none for a checkpoint of a version
    without records."""
    if changed := machine_changes(before, now):
        yield f"the weights will not be bit-equal to those of a run without this stop: {', '.join(changed)}"


def _kind(device: torch.device) -> str:
    """The device as far as its kernels depend on it: the model of a GPU, the instruction set of a CPU."""
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    return f"{device.type}, {torch.backends.cpu.get_cpu_capability()}"
