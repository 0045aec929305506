"""Keys that nothing would read beside the values of other keys: refused, so that no setting is accepted and then ignored; or
left out and reported, where it is the command line that has switched off what would read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from ddptrain.config.rules import Rule
from ddptrain.config.run import RunConfig
from ddptrain.config.text import dump_inline


class Unused(NamedTuple):
    """A key that is set to something, and that nothing would read; names are dotted, from the config."""

    key: str
    value: Any
    default: Any
    user: str
    switches: tuple[str, ...]

    def line(self) -> str:
        """What the user is shown, with the way out."""
        value, default = dump_inline(self.value), dump_inline(self.default)
        way = f"take it out, or set {self.key}={default}"
        return f"{self.key}: {value} has no effect here, only {self.user} uses it; {way}"

    def is_given(self, given: Sequence[str]) -> bool:
        """True where one of the overrides' keys says something of it."""
        return any(_touches(g, self.key) for g in given)


def unused(config: RunConfig) -> Iterator[Unused]:
    """The keys that are set to something, and that nothing would read beside the other keys' values."""
    seen: set[str] = set()
    for rule in config.rules:
        if rule.idle(config):
            yield from _set(config, rule, "", seen)
    for part in ("train", "val"):
        for i, dataset in enumerate(getattr(config.data, part)):
            for rule in config.dataset_rules:
                if rule.idle(config, part, dataset):
                    yield from _set(dataset, rule, f"data.{part}.{i}.", seen)


def split_unused(config: RunConfig, given: Sequence[str]) -> tuple[list[Unused], list[Unused]]:
    """Those that must be refused, and those whose reader the command line has switched off.

    Args:
        given: keys of the overrides.
    """
    refused: list[Unused] = []
    left_out: list[Unused] = []
    for key in unused(config):
        switched = any(_touches(g, s) for g in given for s in key.switches)
        (left_out if switched and not key.is_given(given) else refused).append(key)
    return refused, left_out


def _touches(given: str, key: str) -> bool:
    """True where an override of `given` says something of `key`."""
    return given == key or key.startswith(f"{given}.") or given.startswith(f"{key}.")


def _set(section: BaseModel, rule: Rule, prefix: str, seen: set[str]) -> Iterator[Unused]:
    for key in rule.keys:
        value, default = _value_and_default(section, key)
        name = prefix + key
        if value == default or name in seen:
            continue
        seen.add(name)
        switches = tuple(s if s.startswith(("model.", "data.")) else prefix + s for s in rule.switches)
        yield Unused(name, _plain(value), _plain(default), rule.user, switches)


def _value_and_default(section: Any, key: str) -> tuple[Any, Any]:
    """Of a dotted key; None twice where the section, of several kinds, has no such key."""
    *path, last = key.split(".")
    for part in path:
        section = getattr(section, part)
    field = type(section).model_fields.get(last)
    return (None, None) if field is None else (getattr(section, last), field.get_default())


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
