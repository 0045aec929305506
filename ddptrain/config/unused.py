"""Keys that nothing would read beside the values of other keys: refused, so that no setting is accepted and then ignored; or
left out and reported, where it is the command line that has switched off what would read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from ddptrain.config.rules import Rule
from ddptrain.config.run import RunConfig
from ddptrain.config.section import Section
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
        way = f"remove it, or set {self.key}={dump_inline(self.default)}"
        return f"{self.key}: {dump_inline(self.value)} has no effect here, only {self.user} uses it; {way}"


def unused(config: RunConfig) -> list[Unused]:
    """The keys that are set to something, and that nothing would read beside the other keys' values, each once."""
    idle = [key for rule in config.rules if rule.idle(config) for key in _set(config, rule, "")]
    for part in ("train", "val"):
        for i, dataset in enumerate(getattr(config.data, part)):
            for rule in config.dataset_rules:
                if rule.idle(config, part, dataset):
                    idle += _set(dataset, rule, f"data.{part}.{i}.")
    first: dict[str, Unused] = {}
    for key in idle:
        first.setdefault(key.key, key)
    return list(first.values())


def split_unused(keys: Sequence[Unused], given: Sequence[str]) -> tuple[list[Unused], list[Unused]]:
    """Those of `keys` that must be refused, and those whose reader the command line has switched off.

    Args:
        given: keys of the overrides.
    """
    refused: list[Unused] = []
    left_out: list[Unused] = []
    for key in keys:
        switched = any(touches(given, switch) for switch in key.switches) and not touches(given, key.key)
        (left_out if switched else refused).append(key)
    return refused, left_out


def touches(given: Sequence[str], key: str) -> bool:
    """True where one of the keys of overrides says something of a key."""
    return any(f"{key}.".startswith(f"{g}.") or g.startswith(f"{key}.") for g in given)


def _set(section: Section, rule: Rule, prefix: str) -> Iterator[Unused]:
    """The keys of a rule that have other values than their defaults, and stand in the section that was chosen."""
    for key in rule.keys.split():
        *path, last = key.split(".")
        inner: Any = section
        for part in path:
            inner = getattr(inner, part)
        field = type(inner).model_fields.get(last)
        if field is not None and getattr(inner, last) != field.get_default():
            value, default = to_jsonable_python((getattr(inner, last), field.get_default()))
            switches = tuple(s if s.startswith(("model.", "data.")) else prefix + s for s in rule.switches.split())
            yield Unused(prefix + key, value, default, rule.user, switches)
