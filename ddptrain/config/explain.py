"""What pydantic finds wrong in a config, in one line: file, dotted path, value, what is allowed."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ddptrain.config.places import dotted, keys_of, names_of, of_tasks
from ddptrain.config.run import RunConfig
from ddptrain.config.section import bound
from ddptrain.config.tasks import every_run
from ddptrain.system.printable import counted

# pydantic speaks of Python's and JSON's types, a config has YAML's
_WORDS = {
    "string_type": "must be text",
    "tuple_type": "must be a list, such as [a, b]",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "dict_type": "must be a mapping, such as {a: b}",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
}
_LIMITS = {"greater_than_equal": "≥", "greater_than": ">", "less_than_equal": "≤", "less_than": "<"}
# a wrong model makes all its other keys wrong, an unknown key may be why another is missing
_FIRST = {"union_tag_invalid": 0, "extra_forbidden": 1}


def explain(error: ValidationError, data: Any, source: str, run: type[RunConfig]) -> str:
    """The first mistake in one line and the number of further ones.

    Args:
        error: of the validation.
        data: what was validated.
        source: the file, or where else the config comes from.
        run: the class that it was validated by.
    """
    lines: dict[str, str] = {}  # one for each place: every branch of a union reports its own
    for e in sorted(error.errors(include_url=False), key=lambda e: _FIRST.get(e["type"], 2)):
        if e["type"] == "too_short" and len(e["input"]) >= e["ctx"]["min_length"]:
            continue  # pydantic counts the faulty items as absent
        line = _Mistake(e, data, run)
        if line.path in lines:
            other = line.allowed().removeprefix("must be ").removeprefix("allowed: ")
            lines[line.path] += f" or {other}" if other not in lines[line.path] else ""
        lines.setdefault(line.path, line.text())
    first, *more = lines.values()
    return f"{source}: {first}" + (f" (and {len(more)} more)" if more else "")


class _Mistake:
    """One error of pydantic and the place in the config that it is about."""

    def __init__(self, error: ErrorDetails, data: Any, run: type[RunConfig]) -> None:
        self.error, self.data, self.run = error, data, run
        self.value = error["input"]
        self.loc = _real_path(error, data)
        if error["type"] == "union_tag_invalid":
            self.loc, self.value = [*self.loc, "name"], self.value["name"]
        self.path = ".".join(str(part) for part in self.loc)

    def text(self) -> str:
        """Path, value, what is allowed."""
        e = self.error
        if e["type"] == "extra_forbidden":
            return f"{self.path}: {self._unknown()}"
        if e["type"] == "missing":
            return f"{self.path}: missing; it has no default"
        # what a section says of its keys begins with the key
        if e["type"] == "value_error" and isinstance(self.value, dict) and re.match(r"[\w.]+: ", self.allowed()):
            return f"{self.path}.{self.allowed()}".lstrip(".")
        line = f"{self.path}: {_shown(self.value)}: {self.allowed()}"
        if e["type"] == "string_type" and isinstance(self.value, (bool, int, float)):
            line += f"; put it in quotes, in a shell {self.path}='\"{_shown(self.value)}\"'"
        return line

    def allowed(self) -> str:
        """What is allowed in the place of the value."""
        e = self.error
        kind, limits = e["type"], e.get("ctx", {})
        if kind == "dict_type" and f"{self.path}.name" in keys_of(self.run):  # of several models or losses
            return _WORDS["model_type"]
        if kind in _WORDS:
            return _WORDS[kind]
        if kind in _LIMITS:
            (limit,) = limits.values()
            return f"must be {'an integer' if isinstance(limit, int) else 'a number'} {_LIMITS[kind]} {bound(limit)}"
        if kind == "literal_error":
            return f"{self._of_others()}allowed: {limits['expected'].replace(chr(39), '')}"
        if kind == "union_tag_invalid":
            return f"{self._of_others()}allowed: {limits['expected_tags'].replace(chr(39), '')}"
        if kind == "too_short":
            return f"must have at least {limits['min_length']} item{'s'[: limits['min_length'] - 1]}"
        if kind == "too_long":
            return f"must be a list of at most {counted(limits['max_length'], 'item')}"
        if kind == "string_pattern_mismatch":
            return f"must match the pattern {limits['pattern']}"
        return e["msg"].removeprefix("Value error, ").replace("Input should", "must").replace("String should", "must")

    def _unknown(self) -> str:
        place, outer = dotted(self.loc), dotted(self.loc[:-1])
        tasks = [task for task, run in every_run().items() if place in keys_of(run)]
        if tasks and place not in keys_of(self.run):
            return f"{self._only_for(tasks)}; remove it"
        inside = [(*path.rpartition("."), s) for path, fields in keys_of(self.run).items() for s, _ in fields]
        sections = [(key, section) for path, _, key, section in inside if path == outer]
        chosen = [key for key, section in sections if set(names_of(section)) & set(self.error["loc"][:-1])]
        known = sorted(set(chosen or [key for key, _ in sections]))
        near = difflib.get_close_matches(str(self.loc[-1]), known, n=1, cutoff=0.6)
        return "unknown key; " + (f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}")

    def _of_others(self) -> str:
        """Which other tasks the value is for, if it is a word of theirs."""
        place = dotted(self.loc)
        runs = {task: run for task, run in every_run().items() if run is not self.run}
        words = {
            task: [w for _, f in keys_of(run).get(place, []) for w in get_args(f.annotation)] for task, run in runs.items()
        }
        tasks = [task for task in words if self.value in words[task]]
        return f"{self._only_for(tasks)}; " if tasks else ""

    def _only_for(self, tasks: list[str]) -> str:
        return f"only for {of_tasks(tasks)}, not for {self.data.get('task', 'detection')}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"


def _real_path(e: ErrorDetails, data: Any) -> list[str | int]:
    """The error's location without the branches of unions, which are not keys of the file."""
    path: list[str | int] = []
    node = data
    for i, part in enumerate(e["loc"]):
        if isinstance(node, dict) and part in node:
            node = node[str(part)]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif not (e["type"] == "missing" and i == len(e["loc"]) - 1):
            continue
        path.append(part)
    return path
