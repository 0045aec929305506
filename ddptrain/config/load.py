"""YAML files and `a.b.c=value` overrides → `RunConfig`, every mistake told in one line."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ddptrain.config.run import RunConfig
from ddptrain.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the floats people write (`1e-3`) and without duplicate keys that win in silence."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands there twice", key_node.start_mark)
        seen.add(key)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_yaml(text: str, source: str) -> Any:
    """Parse one YAML document; `source` names it in errors."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UserError(f"{source}{line}: not valid YAML: {e.problem or e.context}") from None
    except yaml.YAMLError as e:
        raise UserError(f"{source}: not valid YAML: {' '.join(str(e).split())}") from None


def load_config(path: str | Path, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> RunConfig:
    """Read a run's config.

    Args:
        path: a YAML file.
        overrides: `a.b.c=value` strings, applied in order; list indices are numbers, values are YAML.
        environ: where `${VAR}` and `${VAR:-default}` in strings are looked up.

    Raises:
        UserError: any mistake, in one line with file, dotted path, value and what is allowed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}; give the path of a YAML config") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; give the path of a YAML config") from None
    return resolve(parse_yaml(text, str(path)), overrides, source=str(path), environ=environ)


def resolve(
    data: Any, overrides: Sequence[str] = (), *, source: str = "config", environ: Mapping[str, str] = os.environ
) -> RunConfig:
    """The same for a config that is already a dictionary."""
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise UserError(f"{source}: a config is a mapping of keys, this is a {type(data).__name__}")
    data = json.loads(json.dumps(data, default=str))
    for override in overrides:
        _apply(data, override)
    data = _expand(data, environ, source, "")
    try:
        return RunConfig.model_validate_json(json.dumps(data))
    except ValidationError as e:
        raise UserError(_explain(e, data, source)) from None


def _apply(data: dict[str, Any], override: str) -> None:
    key, eq, text = override.partition("=")
    if not eq or not key:
        raise UserError(f"override {override!r}: write key=value, such as train.epochs=10")
    value = json.loads(json.dumps(parse_yaml(text, f"override {override!r}"), default=str))
    parts = key.split(".")
    node: Any = data
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                at = ".".join(parts[:i])
                raise UserError(f"override {override!r}: {at} is a list of {len(node)}; use a number from 0 to {len(node) - 1}")
            if last:
                node[int(part)] = value
            else:
                node = node[int(part)]
        elif isinstance(node, dict):
            if last:
                node[part] = value
            else:
                if node.get(part) is None:
                    node[part] = {}
                node = node[part]
        else:
            at = ".".join(parts[:i])
            raise UserError(f"override {override!r}: {at} is the value {node!r}, it has no key {part!r}")


_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def _expand(value: Any, environ: Mapping[str, str], source: str, path: str) -> Any:
    if isinstance(value, dict):
        return {k: _expand(v, environ, source, f"{path}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, environ, source, f"{path}.{i}") for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = environ.get(name) or default
        if found is None:
            raise UserError(f"{source}: {path}: {value!r} needs the variable {name}; set it or write ${{{name}:-default}}")
        return found

    return _VARIABLE.sub(look_up, value)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The section classes inside an annotation, `tuple[DatasetConfig, ...]` or a union included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [s for a in get_args(annotation) for s in _sections(a)]


def known_keys(path: Sequence[str | int]) -> list[str]:
    """The keys that the section at a dotted path knows."""
    sections: list[type[BaseModel]] = [RunConfig]
    for part in path:
        if isinstance(part, str) and any(part in s.model_fields for s in sections):
            sections = [t for s in sections if part in s.model_fields for t in _sections(s.model_fields[part].annotation)]
    return sorted({k for s in sections for k in s.model_fields})


def _explain(error: ValidationError, data: Any, source: str) -> str:
    """The first mistake in one line, unknown keys before all others; the number of further ones behind it."""
    errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{source}: {_line(errors[0], data)}{more}"


def _line(e: ErrorDetails, data: Any) -> str:
    # tags of a union stand in the location and are no key of the file
    loc = [p for i, p in enumerate(e["loc"]) if not (i and p in ("yolo", "torchvision") and e["loc"][i - 1] == "model")]
    dotted = ".".join(str(p) for p in loc)
    if e["type"] == "extra_forbidden":
        known = known_keys(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"{dotted}: unknown key; {hint}"
    if e["type"] == "missing":
        return f"{dotted}: missing; it has no default"
    message = e["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if e["type"] != "value_error" else message
    if not dotted:
        return message
    value = json.dumps(e["input"]) if not isinstance(e["input"], (dict, list)) or len(e["input"]) < 9 else "…"
    return f"{dotted}: {value}: {message}"
