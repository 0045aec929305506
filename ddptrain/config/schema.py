"""The config as a JSON Schema, for editors and for checks without this package."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from ddptrain.config.aliases import KEYS, LISTS, SWITCHES, VALUES, canonical_key, concerned_keys
from ddptrain.config.own import PATTERN
from ddptrain.config.places import keys_of
from ddptrain.config.tasks import RUNS, every_run


def schema() -> dict[str, Any]:
    """JSON Schema of a config file: the keys are those of its task, detection where it names none."""
    runs = list(every_run().values())
    refs, whole = models_json_schema([(run, "validation") for run in runs])
    definitions = whole["$defs"]
    for run in runs:
        # of several models or losses only the first one may leave out its name
        for key in ("model", "loss"):
            for other in definitions[run.__name__]["properties"][key].get("oneOf", [])[1:]:
                other["required"] = ["name"]
    _add_aliases(definitions)
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


def _exclude(section: dict[str, Any], key: str, alias: str) -> None:
    """Refuse a section that has both."""
    section.setdefault("not", {"anyOf": []})["anyOf"].append({"required": [key, alias]})


def _add_aliases(definitions: dict[str, Any]) -> None:
    def places(key: str) -> dict[str, dict[str, Any]]:
        names = {section.__name__ for run in every_run().values() for section, _ in keys_of(run).get(key, [])}
        return {name: definitions[name]["properties"] for name in names}

    for alias, key in KEYS.items():
        last = alias.rpartition(".")[2]
        for name, keys in places(canonical_key(alias)).items():
            keys[last] = keys[key] | {"description": f"Another name of {key}."}
            _exclude(definitions[name], key, last)
    for alias, names in LISTS.items():
        last = alias.rpartition(".")[2]
        for section, keys in places(concerned_keys(alias)[0]).items():
            each = [{k: v for k, v in keys[name].items() if k not in ("default", "description")} for name in names]
            keys[last] = {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}
            keys[last] |= {"description": f"[{', '.join(names)}]"}
            for name in names:
                _exclude(definitions[section], name, last)
    for alias, (key, entry) in SWITCHES.items():
        for keys in places(concerned_keys(alias)[0]).values():
            keys[alias.rpartition(".")[2]] = {"type": "boolean", "description": f"Puts {entry} into {key}, or removes it."}
    for key, values in VALUES.items():
        for keys in places(key).values():
            keys[key.rpartition(".")[2]]["enum"] += values
