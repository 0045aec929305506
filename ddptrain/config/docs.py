"""The config as text: all keys with their documentation, and a resolved config."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ddptrain.config.aliases import VALUES, aliases_of
from ddptrain.config.places import of_tasks, sections_in
from ddptrain.config.run import RunConfig
from ddptrain.config.section import bound, documentation
from ddptrain.config.tasks import OWN, every_run
from ddptrain.config.text import dump_inline, dump_yaml

WIDTH = 98  # and two for the comment signs before an alternative
# what `describe` writes for the keys that have no default, so that its output is a config
_EXAMPLES = {"classes": ["car", "van"], "name": "my_dataset", "root": "path/to/dataset"}
_GLUE = "\xa0"  # a space at which no line is broken
_LIMITS = {
    "ge": "≥ {}",
    "gt": "> {}",
    "le": "≤ {}",
    "lt": "< {}",
    "multiple_of": "a multiple of {}",
    "pattern": "pattern {}",
}
_HEAD = """
    All keys with their defaults, a config to start from: set classes, data.train and data.val, and delete the lines whose
    defaults suit you. It is a config of detection, the default task; the keys of other tasks are comments that name them. Any
    string may hold ${VAR} or ${VAR:-default}, from the environment; any key can be set on the command line:
    ddptrain train my.yaml train.epochs=10 data.train.0.share=2
"""
Places = Mapping[str, type[BaseModel]]
"""By task, the section that stands at one place of its config; the first task is the one that is printed, the others are
comments."""


def describe() -> str:
    """Every key with its task, documentation, type, allowed values and default: a YAML config that loads."""
    return "\n".join([*_comment(" ".join(_HEAD.split()), 0), "", *_section(every_run(), "", 0)]) + "\n"


def to_yaml(config: RunConfig) -> str:
    """The resolved config; `load_config` reads it back to an equal one."""
    return dump_yaml(config.model_dump(mode="json"))


def _section(places: Places, path: str, depth: int, only_required: bool = False) -> list[str]:
    lines: list[str] = []
    first = next(iter(places))
    for key in dict.fromkeys(key for section in places.values() for key in section.model_fields):
        knows = {task: section for task, section in places.items() if key in section.model_fields}
        fields = {task: section.model_fields[key] for task, section in knows.items()}
        field = next(iter(fields.values()))
        inner = {task: sections_in(f.annotation) for task, f in fields.items()}
        if only_required and not field.is_required():
            continue
        only = "" if set(places) - set(knows) <= {OWN} else f"Only for {of_tasks(list(knows))}: "
        text = only + documentation(next(iter(knows.values())), key)
        if depth == 0 and any(inner.values()):
            lines.append("")
        if not any(inner.values()):
            new = _key(key, fields, text, path, depth)
        elif get_origin(field.annotation) is tuple:
            items = {task: sections[0] for task, sections in inner.items()}
            new = _list(key, items, text, path, depth, brief=key == "val")
        else:
            new = _branches(key, inner, field, text, path, depth)
        lines += new if first in knows else [_commented(line, depth) for line in new]
    return lines


def _commented(line: str, depth: int) -> str:
    pad = "  " * depth
    return line if line.startswith(f"{pad}#") else f"{pad}# {line[len(pad) :]}"


def _branches(
    key: str, inner: Mapping[str, list[type[BaseModel]]], field: FieldInfo, text: str, path: str, depth: int
) -> list[str]:
    """A section; where there is a choice, the default in full and the others as comments."""
    pad = "  " * depth
    lines = _comment(text, depth)
    # of models and losses, which a name chooses, only the first task's
    choice = any(len(sections) > 1 for sections in inner.values())
    chosen = {task: sections[0] for task, sections in inner.items() if not choice or task == next(iter(inner))}
    if not field.is_required() and field.get_default() is None:
        body = [f"{pad}{key}:", *_section(chosen, f"{path}{key}.", depth + 1)]
        lines += [f"{pad}{key}: null", *_comment(f"Or: {next(iter(chosen.values())).__doc__}", depth)]
        return [*lines, *(f"{pad}# {line[len(pad) :]}" for line in body)]
    lines += [f"{pad}{key}:", *_section(chosen, f"{path}{key}.", depth + 1)]
    others: dict[type[BaseModel], list[str]] = {}
    for task, sections in inner.items():
        for section in sections:
            if section not in chosen.values() and task != OWN:
                others.setdefault(section, []).append(task)
    for section, tasks in others.items():
        lines += _comment(f"Or, for {of_tasks(tasks)}: {section.__doc__}", depth)
        body = _section(dict.fromkeys(tasks, section), f"{path}{key}.", 1)
        lines += [f"{pad}# {line}" for line in (f"{key}:", *body)]
    return lines


def _key(key: str, fields: Mapping[str, FieldInfo], text: str, path: str, depth: int) -> list[str]:
    field = next(iter(fields.values()))
    words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    value = field.get_default() if not field.is_required() else words[0] if words else _EXAMPLES[key]
    allowed: dict[str, list[str]] = {}
    for task, f in fields.items():
        allowed.setdefault(allowed_values(f, VALUES.get(path + key, {})), []).append(task)
    kinds = [kind if len(allowed) == 1 else f"{of_tasks(tasks)}: {kind}" for kind, tasks in allowed.items()]
    names = aliases_of(path + key)
    other = f" Another name of it is {names[0]}." if names else ""
    about = _comment(f"{text}{other} [{'; '.join(kinds)}{'; must be given' if field.is_required() else ''}]", depth)
    return [*about, f"{'  ' * depth}{key}: {dump_inline(list(value) if isinstance(value, tuple) else value)}"]


def _list(key: str, items: Places, text: str, path: str, depth: int, brief: bool) -> list[str]:
    """A list of sections with one item; `brief`: the keys of the item are documented further up."""
    pad = "  " * depth
    body = _section(items, f"{path}{key}.", depth + 2, only_required=brief)
    if brief:
        body = [line for line in body if not line.lstrip().startswith("#")]
    first = next(i for i, line in enumerate(body) if not line.lstrip().startswith("#"))
    body[first] = f"{pad}  - {body[first].lstrip()}"
    about = f"{text} A list; " + ("keys as above." if brief else "the keys of each:")
    return [*_comment(about, depth), f"{pad}{key}:", *body]


def _comment(text: str, depth: int) -> list[str]:
    pad = "  " * depth + "# "
    lines = textwrap.wrap(text, WIDTH, initial_indent=pad, subsequent_indent=pad, break_on_hyphens=False)
    return [line.replace(_GLUE, " ") for line in lines]


def allowed_values(field: FieldInfo, aliases: Mapping[str, str]) -> str:
    """`number, 0 ≤ value < 1`, `n | s | m | l`, `list of text, not empty`."""
    meta = {key: getattr(m, key) for m in field.metadata for key in _LIMITS if getattr(m, key, None) is not None}
    limits = [_LIMITS[key].format(bound(value)) for key, value in meta.items()]
    least = next((m.min_length for m in field.metadata if hasattr(m, "min_length")), 0)
    limits += ["not empty"] if least == 1 else [f"{least} of them"] if least else []
    kind = _type(field.annotation)
    for alias, value in aliases.items():
        kind = kind.replace(value, f"{value} (or {alias})")
    return ", ".join([kind, *(limit.replace(" ", _GLUE) for limit in limits)])


def _type(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    simple = {bool: "true | false", int: "integer", float: "number", str: "text", NoneType: "null", Any: "anything"}
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
