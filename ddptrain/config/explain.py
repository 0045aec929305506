"""What pydantic found wrong in a config, in one line: file, dotted path, value, what is allowed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from ddptrain.config.run import RunConfig

# pydantic speaks of Python's and JSON's types, a config has YAML's
_WORDS = {
    "string_type": "must be text",
    "tuple_type": "must be a list, such as [a, b]",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "dict_type": "must be a mapping, such as {a: b}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
}
# a wrong model makes all its other keys wrong, an unknown key may be why another is missing
_FIRST = {"unknown_model": 0, "extra_forbidden": 1}


def explain(error: ValidationError, data: Any, source: str) -> str:
    """The first mistake in one line and the number of further ones.

    Args:
        error: of `RunConfig`.
        data: what was validated.
        source: the file, or where else the config comes from.
    """
    lines: dict[str, str] = {}  # one for each place: every branch of a union reports its own
    for e in sorted(error.errors(include_url=False), key=lambda e: _FIRST.get(e["type"], 2)):
        path = ".".join(str(part) for part in _real_path(e, data))
        if e["type"] == "too_short" and e["input"]:
            continue  # pydantic counts the faulty items as absent
        if path in lines:
            lines[path] += f" or {_message(e)}" if _message(e) not in lines[path] else ""
        lines.setdefault(path, _line(path, e))
    first, *more = lines.values()
    return f"{source}: {first}" + (f" (and {len(more)} more)" if more else "")


def _line(path: str, e: ErrorDetails) -> str:
    if e["type"] == "extra_forbidden":
        known = known_keys(e["loc"][:-1])
        near = difflib.get_close_matches(str(e["loc"][-1]), known, n=1, cutoff=0.6)
        return f"{path}: unknown key; " + (f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}")
    if e["type"] == "missing":
        return f"{path}: missing; it has no default"
    if not path:
        return _message(e)
    line = f"{path}: {_shown(e['input'])}: {_message(e)}"
    if e["type"] == "string_type" and isinstance(e["input"], (bool, int, float)):
        line += f"; put it in quotes, in a shell {path}='\"{_shown(e['input'])}\"'"
    return line


def _message(e: ErrorDetails) -> str:
    if e["type"] in _WORDS:
        return _WORDS[e["type"]]
    if e["type"] == "literal_error":
        return f"allowed: {e['ctx']['expected'].replace(chr(39), '')}"
    if e["type"] == "too_short":
        return f"must have at least {e['ctx']['min_length']} item"
    if e["type"] == "string_pattern_mismatch":
        return f"must match the pattern {e['ctx']['pattern']}"
    return e["msg"].removeprefix("Value error, ").replace("Input should", "must").replace("String should", "must")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"


def _real_path(e: ErrorDetails, data: Any) -> list[str | int]:
    """The error's location without the branches of unions, which are no keys of the file."""
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


def known_keys(loc: Sequence[str | int]) -> list[str]:
    """The keys that the section at a pydantic location knows; tags of a union choose its branch."""
    sections: list[tuple[str | None, type[BaseModel]]] = [(None, RunConfig)]
    for part in loc:
        if any(part == tag for tag, _ in sections):
            sections = [(None, s) for tag, s in sections if tag == part]
        elif any(part in s.model_fields for _, s in sections):
            sections = [t for _, s in sections for t in _sections(s.model_fields[str(part)].annotation)]
    return sorted({key for _, s in sections for key in s.model_fields})


def _sections(annotation: Any, tag: str | None = None) -> list[tuple[str | None, type[BaseModel]]]:
    """The section classes inside an annotation, `tuple[DatasetConfig, ...]` or a tagged union included."""
    # Python 3.10 takes tuple[int, ...] for a type
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(tag, annotation)]
    if get_origin(annotation) is Annotated:
        tag = next((m.tag for m in annotation.__metadata__ if isinstance(m, Tag)), tag)
        return _sections(annotation.__origin__, tag)
    return [s for a in get_args(annotation) for s in _sections(a, tag)]
