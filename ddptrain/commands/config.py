"""`ddptrain config`: all keys, their JSON Schema, a resolved config, or a data.yaml as one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ddptrain.config import docs, load_config
from ddptrain.config.schema import schema as json_schema
from ddptrain.config.text import dump_yaml
from ddptrain.errors import UserError

Weights = Literal["share", "multiplier"]


def print_config(
    config: str | None, overrides: Sequence[str], *, schema: bool, data: Path | None, weights: Weights | None
) -> int:
    """Print the JSON Schema, a data.yaml of Ultralytics as a config, the resolved config, or without any of them all keys.

    Raises:
        UserError: an argument would have no effect beside another, or there is a mistake in a file.
    """
    if config and (schema or data):
        raise UserError(f"config: {config}: has no effect beside {'--schema' if schema else '--data'}; remove one of them")
    if schema and data:
        raise UserError("config: --data has no effect beside --schema; remove one of them")
    if weights and not data:
        raise UserError("config: --weights has no effect without --data; remove it")
    if schema:
        print(json.dumps(json_schema(), indent=2))
    elif data:
        from ddptrain.data.formats.ultralytics import data_section, unlabelled
        from ddptrain.data.tables.labels import named_like_regions

        section = data_section(data, weights)
        print(dump_yaml(section), end="")
        remedy = "move it from classes to ignore of its datasets, unless it is a class"
        regions = named_like_regions(section["classes"])
        for line in [*(f"class {r} is named like an ignore region; {remedy}" for r in regions), *unlabelled(section)]:
            print(f"ddptrain: note: {line}", file=sys.stderr)
    elif config:
        print(docs.to_yaml(load_config(config, overrides)), end="")
    else:
        print(docs.describe(), end="")
    return 0
