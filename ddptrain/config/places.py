"""Which keys stand where in the configs of the tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ddptrain.config.tasks import OWN, every_run
from ddptrain.system.printable import listing

Keys = dict[str, list[tuple[type[BaseModel], FieldInfo]]]


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The section classes inside an annotation, `tuple[DatasetConfig, ...]` and unions included, in their order."""
    # Python 3.10 takes tuple[int, ...] for a type
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [s for a in get_args(annotation) for s in sections_in(a)]


def names_of(section: type[BaseModel]) -> tuple[str, ...]:
    """The names that choose a section among those that could stand in its place."""
    field = section.model_fields.get("name")
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()


@cache
def keys_of(run: type[BaseModel]) -> Keys:
    """Every key of a run by its dotted path, which names no places of lists, with its section and field; there are several
    where a name chooses among sections."""
    keys: Keys = {}

    def add(section: type[BaseModel], prefix: str) -> None:
        for key, field in section.model_fields.items():
            keys.setdefault(prefix + key, []).append((section, field))
            for inner in sections_in(field.annotation):
                add(inner, f"{prefix}{key}.")

    add(run, "")
    return keys


def dotted(path: Iterable[str | int]) -> str:
    """The path of a key as in `keys_of`."""
    return ".".join(part for part in path if isinstance(part, str))


def of_tasks(tasks: Sequence[str]) -> str:
    """`detection, classification and segmentation`; a task of the user's own only where it is the only one."""
    return listing([task for task in tasks if task != OWN] or tasks)


def without_defaults_of_others(data: Any, run: type[BaseModel], stored: bool = False) -> Any:
    """A config without the keys of other tasks that say only what is so anyway, which older versions spelled out in every
    config; in one that is `stored` in a checkpoint, whatever they say: the run was trained without them."""
    own = keys_of(run)
    others = [keys_of(other) for other in every_run().values() if other is not run]

    def is_kept(name: str, value: Any) -> bool:
        fields = [field for keys in others for _, field in keys.get(name, [])]
        return name in own or not any(stored or _is_default(field, value) for field in fields)

    def kept(node: Any, path: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [kept(item, path) for item in node]
        if not isinstance(node, dict) or path in [("model",), ("loss",)]:
            return node
        return {key: kept(value, (*path, key)) for key, value in node.items() if is_kept(dotted((*path, key)), value)}

    return kept(data, ())


def _is_default(field: FieldInfo, value: Any) -> bool:
    """True where a value of YAML is what a key has anyway."""
    try:
        read = TypeAdapter(field.rebuild_annotation()).validate_json(json.dumps(value))
    except ValidationError:
        return False
    return bool(read == field.get_default())
