"""What every section of the config shares: strict, frozen, documented."""

import ast
import inspect
import textwrap
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

_WORDS = {"yes": True, "on": True, "no": False, "off": False}
Switch = Annotated[bool, BeforeValidator(lambda v: _WORDS.get(v.lower(), v) if isinstance(v, str) else v)]
"""true or false; `yes`, `no`, `on` and `off` are text in a config, since they may be names, and are accepted here as well."""
LONGEST_NAME = 200
"""In bytes of UTF-8: a file system takes 255, and names of files are made from it."""


def distinct(least: float, most: float) -> AfterValidator:
    """For a list: one or more different numbers in a range."""

    def check(value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or len(set(value)) < len(value) or not all(least <= v <= most for v in value):
            raise ValueError(f"must be one or more different numbers from {least:g} to {most:g}")
        return value

    return AfterValidator(check)


@cache
def _texts(section: type[BaseModel]) -> dict[str, str]:
    """The text below each key in the source of a section; read when it is asked for, since it takes longer than all else."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        key.target.id: inspect.cleandoc(text.value.value)
        for key, text in zip(tree.body, tree.body[1:])
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def documentation(section: type[BaseModel], key: str) -> str:
    """The text below a key; of a key that a task only narrows, the text in the section that it derives from."""
    sections = (base for base in section.__mro__ if issubclass(base, Section))
    return next((_texts(base)[key] for base in sections if key in _texts(base)), "")


def _document(schema: dict[str, Any], section: type[BaseModel]) -> None:
    schema["description"] = inspect.getdoc(section)
    for key, value in schema.get("properties", {}).items():
        value.setdefault("description", documentation(section, key))


class Section(BaseModel):
    """A frozen section that refuses unknown keys and silent conversions; the text below a field is its
    documentation."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
        json_schema_extra=_document,
    )


def bound(value: Any) -> str:
    """A limit as people write it: `0.5`, `1`, `2**63`."""
    if isinstance(value, int) and value > 2**31:
        return f"2**{value.bit_length() - 1}"
    return f"{value:g}" if isinstance(value, float) else str(value)


class NamedSection(Section):
    """A section of several kinds, such as the models: its `name` says which one it is."""

    name: str
    """The name by which it is chosen."""


class NetworkSection(NamedSection):
    """A network, of whatever task."""

    compile: Switch = False
    """Compile the network (torch.compile) in training, which takes minutes at the start: the bits differ from those without
    it, by rounding and, with dropout, by other random numbers; they do not depend on resuming or on the number of ranks."""
    checkpointing: Switch = False
    """Compute the stages of the backbone again in the backward pass instead of keeping them: less memory, slower, the same
    bits."""


def _plain_file_name(value: str) -> str:
    plain = value.isprintable() and not any(c.isspace() or c in "/\\" for c in value) and not value.endswith(".")
    if not (plain and 1 <= len(value.encode()) <= LONGEST_NAME):
        raise ValueError(
            f"must be a plain file name: 1 to {LONGEST_NAME} bytes, without white space, slashes, backslashes or control "
            "characters, and without a dot at its end"
        )
    return value


FileName = Annotated[
    str,
    AfterValidator(_plain_file_name),
    WithJsonSchema({"type": "string", "maxLength": LONGEST_NAME, "pattern": r"^[^/\\\s]*[^/\\\s.]$"}),
]
"""A name that files and folders can have and that contains no path."""
