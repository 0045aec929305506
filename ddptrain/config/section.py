"""What every section of the config shares: strict, frozen, documented."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

_WORDS = {"yes": True, "on": True, "no": False, "off": False}
Switch = Annotated[bool, BeforeValidator(lambda v: _WORDS.get(v.lower(), v) if isinstance(v, str) else v)]
"""true or false; `yes`, `no`, `on` and `off` are text in a config, for they may be names, and are taken here all the same."""
LONGEST_NAME = 200
"""Bytes of a name in UTF-8: a file system takes 255, and names of files are made from it."""


class Section(BaseModel):
    """A frozen section that refuses unknown keys and silent conversions; the text below a field is its
    documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False)


def _plain_file_name(value: str) -> str:
    plain = value.isprintable() and not any(c.isspace() or c in "/\\" for c in value) and not value.endswith(".")
    if not (plain and 1 <= len(value.encode()) <= LONGEST_NAME):
        raise ValueError(
            f"must be a plain file name: 1 to {LONGEST_NAME} bytes, without white space, slashes, backslashes and control "
            "characters, and no dot at its end"
        )
    return value


FileName = Annotated[
    str,
    AfterValidator(_plain_file_name),
    WithJsonSchema({"type": "string", "maxLength": LONGEST_NAME, "pattern": r"^[^/\\\s]*[^/\\\s.]$"}),
]
"""A name that files and folders can have, and nothing else than that: no path leads out of it."""
