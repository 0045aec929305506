"""Which sections and keys stand at the same place of the configs of different tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ddptrain.config.section import NamedSection
from ddptrain.config.tasks import OWN, every_run

Sections = list[type[BaseModel]]


def sections_in(annotation: Any) -> Sections:
    """The section classes inside an annotation, `tuple[DatasetConfig, ...]` and unions included, in their order."""
    # Python 3.10 takes tuple[int, ...] for a type
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [s for a in get_args(annotation) for s in sections_in(a)]


def names_of(section: type[BaseModel]) -> tuple[str, ...]:
    """The names that choose a section among those that could stand in its place."""
    field = section.model_fields.get("name")
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()


def below(sections: Iterable[type[BaseModel]], key: str, value: Any = None) -> Sections:
    """The sections below a key; where there is a choice, those of the name that the value has."""
    fields = [section.model_fields[key] for section in sections if key in section.model_fields]
    inner = [s for field in fields for s in sections_in(field.annotation)]
    named = [s for s in inner if isinstance(value, dict) and value.get("name") in names_of(s)]
    return named or inner


def sections_at(run: type[BaseModel], path: Sequence[str | int], data: Any = None) -> Sections:
    """The sections that may stand at a path of a run's config; `data`, the config, chooses among them by its names."""
    sections: Sections = [run]
    for part in path:
        data = _item(data, part)
        if not isinstance(part, int):
            sections = below(sections, part, data)
    return sections


def _item(data: Any, part: str | int) -> Any:
    try:
        return data[part]
    except (KeyError, IndexError, TypeError):
        return None


def other_tasks(run: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The tasks that know a key that a run does not know."""
    *outer, key = path
    others = {task: other for task, other in every_run().items() if other is not run}
    return [task for task, other in others.items() if any(key in s.model_fields for s in sections_at(other, outer))]


def only_for(tasks: Sequence[str], task: str) -> str:
    """`only for detection and classification, not for interaction`."""
    return f"only for {listing(tasks)}, not for {task}"


def listing(tasks: Sequence[str]) -> str:
    """`detection, classification and segmentation`; a task of the user's own only where it is the only one."""
    *others, last = [task for task in tasks if task != OWN] or tasks
    return f"{', '.join(others)} and {last}" if others else last


def without_defaults_of_others(data: Any, run: type[BaseModel], stored: bool = False) -> Any:
    """A config without the keys of other tasks that say only what is so anyway, which older versions spelled out in every
    config; in one that is `stored` in a checkpoint, whatever they say: the run was trained without them."""
    return _without(data, [run], (), run, stored)


def _without(node: Any, sections: Sections, path: tuple[str | int, ...], run: type[BaseModel], stored: bool) -> Any:
    if isinstance(node, list):
        return [_without(item, sections, (*path, i), run, stored) for i, item in enumerate(node)]
    if not isinstance(node, dict) or not sections or any(issubclass(s, NamedSection) for s in sections):
        return node
    kept = {}
    for key, value in node.items():
        if any(key in s.model_fields for s in sections):
            kept[key] = _without(value, below(sections, key), (*path, key), run, stored)
        elif not any(stored or _is_default(field, value) for field in _fields_of_others(run, path, key)):
            kept[key] = value
    return kept


def _fields_of_others(run: type[BaseModel], path: Sequence[str | int], key: str) -> Iterator[FieldInfo]:
    others = [other for other in every_run().values() if other is not run]
    return (s.model_fields[key] for other in others for s in sections_at(other, path) if key in s.model_fields)


def _is_default(field: FieldInfo, value: Any) -> bool:
    """True where a value of YAML is what a key has anyway."""
    try:
        read = TypeAdapter(field.rebuild_annotation()).validate_json(json.dumps(value))
    except ValidationError:
        return False
    return bool(read == field.get_default())
