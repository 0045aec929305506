"""YAML text ↔ plain values, with the surprises of YAML 1.1 that hurt in a config taken out."""

from __future__ import annotations

import re
from typing import Any

import yaml

from ddptrain.errors import UserError

REPEATED = 1_000_000
"""Characters that the aliases of a document may stand for, all together: a few lines of them can stand for more than memory
holds."""

_INT, _FLOAT, _MERGE, _BOOL, _DATE = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "merge", "bool", "timestamp"))


class _Loader(yaml.SafeLoader):
    """YAML with the numbers and switches of YAML 1.2 (`1e-3` is a number; `24:00:00`, `007`, `no` and dates are text), keys
    as they are written and none twice, and aliases that repeat only so much."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _weigh(node, {})
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what a reader of YAML 1.1 or 1.2 would not take for text; lists of scalars in one line."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        flat = not any(isinstance(value, (list, dict)) for value in sequence)
        return super().represent_sequence(tag, sequence, flow_style=flat or None)

    def represent_scalar(self, tag: str, value: str, style: str | None = None) -> yaml.ScalarNode:
        # PyYAML writes line ends bare, and reads some of them back as spaces
        return super().represent_scalar(tag, value, '"' if any(c in value for c in "\n\x85\u2028\u2029") else style)

    def ignore_aliases(self, data: Any) -> bool:
        return True


# a copy: SafeLoader's own table must stay as it is
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT, _BOOL)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_NUMBER = r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.Inf|\.INF)$|^\.(?:nan|NaN|NAN)$"
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(_FLOAT, re.compile(_NUMBER), list("-+0123456789."))


def _weigh(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Characters and values of a node with all its aliases written out, and those of its aliases alone.

    Args:
        known: what was found of other nodes by their id; (-1, -1) for one that is being weighed.

    Raises:
        ConstructorError: aliases repeat more than `REPEATED`, or one is inside what it stands for.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value), 0
    known[id(node)] = (-1, -1)
    children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    whole, repeated = 1, 0
    for child in children:
        if id(child) in known:
            size, _ = known[id(child)]
            more = size
            if size < 0:
                raise yaml.constructor.ConstructorError(None, None, "an alias is inside its own anchor", child.start_mark)
        else:
            size, more = known[id(child)] = _weigh(child, known)
        whole, repeated = whole + size, repeated + more
        if repeated > REPEATED:
            text = f"its aliases repeat more than {REPEATED} characters; write the document without them"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark)
    return whole, repeated


class _TextLoader(_Loader):
    """The same, with every plain word taken for text."""

    yaml_implicit_resolvers = {"<": _Loader.yaml_implicit_resolvers["<"]}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be one word", key_node.start_mark)
        if key_node.value in seen:
            text = f"key {key_node.value!r} is listed twice"
            raise yaml.constructor.ConstructorError(None, None, text, key_node.start_mark)
        seen.add(key_node.value)
    loader.flatten_mapping(node)
    return {key.value: loader.construct_object(value, deep=True) for key, value in node.value}


def _date(loader: _Loader, node: yaml.ScalarNode) -> str:
    """A date as it is written, if it is one."""
    loader.construct_yaml_timestamp(node)
    return str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor(_DATE, _date)


def parse_yaml(text: str, source: str, typed: bool = True) -> Any:
    """Parse one YAML document; all keys are text.

    Args:
        text: the document.
        source: names it in errors.
        typed: false takes plain words such as `3`, `true` and `~` for the text that they are, too.

    Raises:
        UserError: it is not valid YAML, with the line.
    """
    try:
        return yaml.load(text, _Loader if typed else _TextLoader)
    except RecursionError:
        raise UserError(f"{source}: not valid YAML: its brackets are nested too deeply") from None
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        hint = "; indent with spaces" if "'\\t'" in (e.problem or "") else ""
        raise UserError(f"{source}{line}: not valid YAML: {e.problem or e.context}{hint}") from None
    except (yaml.YAMLError, ValueError) as e:  # ValueError: a date such as 2024-13-99
        raise UserError(f"{source}: not valid YAML: {' '.join(str(e).split())}") from None


def dump_yaml(value: Any) -> str:
    """Plain values as block-style YAML that `parse_yaml` reads back to the same."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)


def dump_inline(value: Any) -> str:
    """One value as YAML in one line."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").rstrip("\n")
