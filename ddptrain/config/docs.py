"""The config as text: all keys with their docs, a JSON Schema for editors, and a resolved config. No torch here."""

from __future__ import annotations

import textwrap
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ddptrain.config.run import RunConfig
from ddptrain.config.text import dump_inline, dump_yaml

WIDTH = 98  # and two for the comment signs before an alternative
# what `describe` writes for the keys that have no default, so that its output is a config
_EXAMPLES = {"classes": ["car", "van"], "name": "my_dataset", "root": "path/to/dataset"}
_GLUE = "\xa0"  # a space at which no line is broken
_LIMITS = {
    "ge": ">= {}",
    "gt": "> {}",
    "le": "<= {}",
    "lt": "< {}",
    "multiple_of": "a multiple of {}",
    "min_length": "not empty",
    "pattern": "pattern {}",
}
_HEAD = """
    All keys with their defaults, a config to start from: set classes, data.train and data.val, and leave out what is
    as you want it. Any string may hold ${VAR} or ${VAR:-default}, from the environment; any key can be set on the
    command line: ddptrain train my.yaml train.epochs=10 data.train.0.share=2
"""


def describe() -> str:
    """Every key with its documentation, type, allowed values and default: a YAML config that loads."""
    return "\n".join([*_comment(" ".join(_HEAD.split()), 0), "", *_section(RunConfig, 0)]) + "\n"


def schema() -> dict[str, Any]:
    """JSON Schema of a config file, for editors and for checks without this package."""
    out = RunConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **out, "title": "ddptrain run"}


def to_yaml(config: RunConfig) -> str:
    """The resolved config; `load_config` reads it back to an equal one."""
    return dump_yaml(config.model_dump(mode="json"))


def _section(section: type[BaseModel], depth: int, only_required: bool = False) -> list[str]:
    lines: list[str] = []
    lists: set[type[BaseModel]] = set()
    for name, field in section.model_fields.items():
        inner = _inner(field.annotation)
        if only_required and not field.is_required():
            continue
        if depth == 0 and inner:
            lines.append("")
        if not inner:
            lines += _key(name, field, depth)
        elif get_origin(field.annotation) is tuple:
            lines += _list(name, field, inner[0], depth, brief=inner[0] in lists)
            lists.add(inner[0])
        else:
            lines += _branches(name, field, inner, depth)
    return lines


def _branches(name: str, field: FieldInfo, inner: list[type[BaseModel]], depth: int) -> list[str]:
    """A section; where there is a choice, the default in full and the others as comments."""
    pad = "  " * depth
    lines = _comment(field.description or "", depth)
    if not field.is_required() and field.get_default() is None:
        lines.append(f"{pad}{name}: null")
    else:
        lines += [f"{pad}{name}:", *_section(inner.pop(0), depth + 1)]
    for other in inner:
        lines += _comment(f"Or: {other.__doc__}", depth)
        lines += [f"{pad}# {line}" for line in (f"{name}:", *_section(other, 1))]
    return lines


def _key(name: str, field: FieldInfo, depth: int) -> list[str]:
    value = _example(name, field) if field.is_required() else field.get_default()
    about = _comment(f"{field.description} [{_allowed(field)}]", depth)
    return [*about, f"{'  ' * depth}{name}: {dump_inline(list(value) if isinstance(value, tuple) else value)}"]


def _list(name: str, field: FieldInfo, item: type[BaseModel], depth: int, brief: bool) -> list[str]:
    """A list of sections with one item; `brief`: the keys of the item are documented further up."""
    pad = "  " * depth
    body = _section(item, depth + 2, only_required=brief)
    if brief:
        body = [line for line in body if not line.lstrip().startswith("#")]
    first = next(i for i, line in enumerate(body) if not line.lstrip().startswith("#"))
    body[first] = f"{pad}  - {body[first].lstrip()}"
    about = f"{field.description} A list; " + ("keys as above." if brief else "the keys of each:")
    return [*_comment(about, depth), f"{pad}{name}:", *body]


def _example(name: str, field: FieldInfo) -> Any:
    return get_args(field.annotation)[0] if get_origin(field.annotation) is Literal else _EXAMPLES[name]


def _comment(text: str, depth: int) -> list[str]:
    pad = "  " * depth + "# "
    lines = textwrap.wrap(text, WIDTH, initial_indent=pad, subsequent_indent=pad, break_on_hyphens=False)
    return [line.replace(_GLUE, " ") for line in lines]


def _inner(annotation: Any) -> list[type[BaseModel]]:
    """The sections inside an annotation, in their order."""
    # Python 3.10 takes tuple[int, ...] for a type
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [s for a in get_args(annotation) for s in _inner(a)]


def _allowed(field: FieldInfo) -> str:
    """`number, 0 <= value < 1`, `n | s | m | l`, `list of text, not empty; must be given`."""
    meta = {key: getattr(m, key) for m in field.metadata for key in _LIMITS if getattr(m, key, None) is not None}
    limits = [_LIMITS[key].format(_bound(value)) for key, value in meta.items()]
    return ", ".join([_type(field.annotation), *(limit.replace(" ", _GLUE) for limit in limits)]) + (
        "; must be given" if field.is_required() else ""
    )


def _bound(value: Any) -> str:
    return f"2**{value.bit_length() - 1}" if isinstance(value, int) and value > 2**31 else str(value)


def _type(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    simple = {bool: "true | false", int: "whole number", float: "number", str: "text", NoneType: "null", Any: "anything"}
    if annotation in simple:
        return simple[annotation]
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin is tuple:
        return f"list of {_type(args[0])}"
    if origin is dict:
        return f"mapping of {_type(args[0])} to {_type(args[1])}"
    if origin in (Union, UnionType):
        return " or ".join(_type(a) for a in args)
    if origin is Annotated:
        return _type(args[0])
    raise TypeError(f"no words for the type {annotation!r}")
