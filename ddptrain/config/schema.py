"""The config as a JSON Schema, for editors and for checks without this package."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from ddptrain.config.aliases import KEYS, VALUES
from ddptrain.config.own import PATTERN
from ddptrain.config.tasks import RUNS, every_run


def schema() -> dict[str, Any]:
    """JSON Schema of a config file: the keys are those of its task, detection where it names none."""
    runs = list(every_run().values())
    refs, whole = models_json_schema([(run, "validation") for run in runs])
    definitions = whole["$defs"]
    for run in runs:
        _require_names(definitions[run.__name__])
        _add_aliases(definitions, run.__name__)
    tasks = [{"const": task} for task in RUNS] + [{"pattern": PATTERN}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ddptrain run",
        "type": "object",
        "properties": {"task": {"anyOf": [{"enum": list(RUNS)}, {"type": "string", "pattern": PATTERN}]}},
        "allOf": [
            {
                # the first task is that of a config without one
                "if": {"properties": {"task": task}, **({"required": ["task"]} if i else {})},
                "then": refs[run, "validation"],
            }
            for i, (task, run) in enumerate(zip(tasks, runs, strict=True))
        ],
        "$defs": definitions,
    }


def _require_names(run: dict[str, Any]) -> None:
    """Of several models or losses only the first one may leave out its name."""
    for key in ("model", "loss"):
        first, *others = run["properties"][key].get("oneOf", [None])
        if first:
            run["properties"][key]["oneOf"] = [first, *({**other, "required": ["name"]} for other in others)]


def _add_aliases(definitions: dict[str, Any], run: str) -> None:
    for alias, key in KEYS.items():
        *path, last = alias.split(".")
        section = _section(definitions, run, path)
        if key in section["properties"]:
            section["properties"][last] = section["properties"][key] | {"description": f"Another name of {key}."}
            section["not"] = {"anyOf": [{"required": [key, last]}, *section.get("not", {}).get("anyOf", [])]}
    for name, values in VALUES.items():
        *path, last = name.split(".")
        names = _section(definitions, run, path)["properties"][last]
        names["enum"] = list(dict.fromkeys([*names["enum"], *values]))


def _section(definitions: dict[str, Any], run: str, path: list[str]) -> dict[str, Any]:
    section: dict[str, Any] = definitions[run]
    for part in path:
        section = definitions[section["properties"][part]["$ref"].rpartition("/")[2]]
    return section
