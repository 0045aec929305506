"""YAML files and `a.b.c=value` overrides → the `RunConfig` of the task; every mistake is reported in one line."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ddptrain.config.aliases import LISTS, canonical_key, concerned_keys, spell_out, spread
from ddptrain.config.explain import explain
from ddptrain.config.places import without_defaults_of_others
from ddptrain.config.run import RunConfig
from ddptrain.config.tasks import run_of
from ddptrain.config.text import dump_inline, parse_yaml
from ddptrain.config.unused import split_unused, touches, unused
from ddptrain.errors import UserError
from ddptrain.system.printable import printable

SHORT = {"resume": "source"}
"""Sections that may be given as one value, and the key that it stands for: `resume=auto resume.allow=[seed]`, in any order."""


def no_line(line: str) -> None:
    """Report nothing, since another process does or has done so."""


def _note(line: str) -> None:
    print(f"ddptrain: note: {printable(line)}", file=sys.stderr)


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    tell: Callable[[str], None] = _note,
) -> RunConfig:
    """Read a run's config.

    Args:
        path: a YAML file.
        overrides: `a.b.c=value` strings, applied in order; list indices are numbers, values are YAML.
        environ: where `${VAR}` and `${VAR:-default}` in strings are looked up.
        tell: takes a line about keys that are left out, see `resolve`.

    Returns:
        The config of the class of its task, such as `DetectionRun`.

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
    return resolve(parse_yaml(text, str(path)), overrides, source=str(path), environ=environ, tell=tell)


def resolve(
    data: Any,
    overrides: Sequence[str] = (),
    *,
    source: str = "config",
    environ: Mapping[str, str] = os.environ,
    stored: bool = False,
    tell: Callable[[str], None] = _note,
) -> RunConfig:
    """The same for a config that is already a dictionary; one that is `stored` in a checkpoint cannot be corrected any
    more: it may set what nothing uses, overrides may not.

    Keys whose reader an override has switched off (`ema.enabled=false` beside the file's `ema.decay`) are left out, and
    reported.
    """
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise UserError(f"{source}: a config is a mapping of keys, this is a {type(data).__name__}")
    data = _spelled_out(json.loads(json.dumps(data, default=str)), source)
    if stored:
        data = without_defaults_of_others(data, _run_of(data, source), stored=True)
    for override in overrides:
        _apply(data, override)
        _spelled_out(data, f"override {override!r}")
    data = _spelled_out(_expand(data, environ, source, "", stored), source)
    config = _validated(data, source)
    given = [key for override in overrides for key in concerned_keys(override.partition("=")[0])]
    refused, left_out = split_unused(unused(config), given)
    if stored:
        refused, left_out = [key for key in refused if touches(given, key.key)], []
    if refused:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise UserError(f"{source}: {refused[0].line()}{more}")
    if not left_out:
        return config
    keys = ", ".join(f"{key.key}={dump_inline(key.value)} (only {key.user} uses it)" for key in left_out)
    have, are = ("1 key has", "is") if len(left_out) == 1 else (f"{len(left_out)} keys have", "are")
    tell(f"{source}: {have} no effect with these overrides and {are} left out: {keys}")
    for key in left_out:
        _take_out(data, key.key)
    return _validated(data, source)


def _spelled_out(data: Any, source: str) -> Any:
    try:
        return spell_out(data)
    except ValueError as e:
        raise UserError(f"{source}: {e}") from None


def _run_of(data: Mapping[str, Any], source: str) -> type[RunConfig]:
    try:
        return run_of(data.get("task", "detection"))
    except ValueError as e:
        raise UserError(f"{source}: {e}") from None


def _validated(data: dict[str, Any], source: str) -> RunConfig:
    run = _run_of(data, source)
    data = without_defaults_of_others(data, run)
    for key, name in run.default_names(data).items():
        section = data.setdefault(key, {})
        if isinstance(section, dict) and "name" not in section:
            data[key] = {"name": name, **section}
    try:
        return run.model_validate_json(json.dumps(data))
    except ValidationError as e:
        raise UserError(explain(e, data, source, run)) from None


def _take_out(data: Any, key: str) -> None:
    *path, last = key.split(".")
    for part in path:
        data = data[int(part)] if isinstance(data, list) else data[part]
    del data[last]


def _apply(data: dict[str, Any], override: str) -> None:
    key, eq, text = override.partition("=")
    key = canonical_key(key)
    if not eq or not all(key.split(".")):
        raise UserError(f"override {override!r}: write key=value, such as train.epochs=10")
    value = json.loads(json.dumps(parse_yaml(text, f"override {override!r}"), default=str))
    if key in LISTS:
        try:
            each = spread(key, value)
        except ValueError as e:
            raise UserError(f"override {override!r}: {e}") from None
        for name, one in each.items():
            _apply(data, f"{name}={json.dumps(one)}")
        return
    if key in SHORT and isinstance(value, str) and isinstance(data.get(key), dict):
        key = f"{key}.{SHORT[key]}"
    parts = key.split(".")
    if parts[0] in SHORT and len(parts) > 1 and isinstance(data.get(parts[0]), str):
        data[parts[0]] = {SHORT[parts[0]]: data[parts[0]]}
    node: Any = data
    for i, part in enumerate(parts):
        at = ".".join(parts[:i])
        index: Any = part
        if isinstance(node, list):
            if not part.isdecimal() or int(part) >= len(node):
                use = f"use a number from 0 to {len(node) - 1}" if node else f"give it whole, {at}=[…]"
                raise UserError(f"override {override!r}: {at} is a list of {len(node)}; {use}")
            index = int(part)
        elif not isinstance(node, dict):
            raise UserError(f"override {override!r}: {at} is the value {node!r}, it has no key {part!r}")
        elif node.get(part) is None:
            node[part] = {}
        outer, node = node, node[index]
    outer[index] = value


_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_SHELL = ("slurm.setup", "slurm.container", "slurm.check_command", "slurm.env")
"""Texts that are read again on the machines of a job, where `~`, `$` and `${` may have a meaning of their own."""


def _expand(value: Any, environ: Mapping[str, str], source: str, path: str, stored: bool) -> Any:
    if isinstance(value, dict):
        return {k: _expand(v, environ, source, f"{path}.{k}".lstrip("."), stored) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, environ, source, f"{path}.{i}", stored) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise UserError(f"{source}: {path}: {value!r} holds a character that no file name and no text file can hold; remove it")

    def look_up(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = environ.get(name) or default
        if found is None:
            raise UserError(f"{source}: {path}: {value!r} needs the variable {name}; set it or write ${{{name}:-default}}")
        return found

    if not stored and not path.startswith(_SHELL):
        if "${" in _VARIABLE.sub(lambda match: match[2] or "", value) or re.match(r"\$\w+(/|$)", value):
            raise UserError(
                f"{source}: {path}: {value!r}: write a variable as ${{VAR}} or ${{VAR:-default}}; defaults cannot be nested"
            )
        if value.startswith("~/") and "HOME" in environ:
            value = environ["HOME"] + value[1:]
    return _VARIABLE.sub(look_up, value)
