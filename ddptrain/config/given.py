"""What a config says that its defaults do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ddptrain.config.section import NamedSection
from ddptrain.config.text import dump_inline


class Given(NamedTuple):
    """A key whose value is not its default, both as YAML; the default is empty where there is none."""

    key: str
    value: str
    default: str


def given(section: BaseModel, path: str = "") -> Iterator[Given]:
    """The keys of a section, and of the sections in it, with other values than their defaults, in the order of the config."""
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        default = field.get_default(call_default_factory=True)
        if value != default:
            yield from _inside(value, default, f"{path}{key}")


def _inside(value: Any, default: Any, path: str) -> Iterator[Given]:
    if isinstance(value, BaseModel):
        if isinstance(value, NamedSection) and isinstance(default, NamedSection) and value.name != default.name:
            yield Given(f"{path}.name", value.name, default.name)
            yield from (g for g in given(value, f"{path}.") if g.key != f"{path}.name")
        else:
            yield from given(value, f"{path}.")
    elif isinstance(value, tuple) and value and all(isinstance(v, BaseModel) for v in value):
        for i, inner in enumerate(value):
            yield from _inside(inner, None, f"{path}.{i}")
    else:
        before = "" if default is PydanticUndefined else _plain(default)
        yield Given(path, _plain(value), before)


def _plain(value: Any) -> str:
    """A value as YAML in one line."""
    return dump_inline(value.model_dump(mode="json") if isinstance(value, BaseModel) else _listed(value))


def _listed(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_listed(v) for v in value]
    return {k: _listed(v) for k, v in value.items()} if isinstance(value, dict) else value
