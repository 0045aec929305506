"""What Weights & Biases has kept offline of a run. Its process writes a block at a time, so that a kill loses the last ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEAD = 32768, 7
"""Bytes of a block of LevelDB's log format, and of the head of the file and of each piece of a record."""


def offline_rows(run: Path) -> Iterator[dict[str, Any]]:
    """What was logged in all starts of a run, by name.

    Args:
        run: the folder of the run; its files are `wandb/offline-run-*/run-*.wandb`.
    """
    from wandb.proto import wandb_internal_pb2

    read: Any = wandb_internal_pb2.Record.FromString  # type: ignore[attr-defined]
    for path in sorted((run / "wandb").glob("offline-run-*/run-*.wandb")):
        for data in _records(path.read_bytes()):
            record = read(data)
            if record.WhichOneof("record_type") == "history":
                yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}


def _records(data: bytes) -> Iterator[bytes]:
    """The whole records of a file: pieces with a sum, a length and a kind (1 whole, 2 first, 3 middle, 4 last), none over the
    end of a block."""
    at, record = HEAD, b""
    while at + HEAD <= len(data):
        if (left := BLOCK - at % BLOCK) < HEAD:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + HEAD])
        at += HEAD + length
        if kind == 0 or at > len(data):
            return
        record += data[at - length : at]
        if kind in (1, 4):
            yield record
            record = b""
