"""JSON files, texts and lists of names, read whole; an error names the file and what is wrong with it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from ddptrain.errors import UserError

_JSON_NAMES: dict[type, str] = {list: "list", dict: "mapping"}


def load_json(name: str, file: Path, keys: Iterable[str], kind: type = list) -> dict[str, Any]:
    """Content of a JSON file that must have a `kind` (list or dict) under each of these keys; `UserError` of the dataset
    `name` where it has not."""
    if not file.is_file():
        raise UserError(f"{name}: {file} is not a file; give the JSON file as annotations, relative to the root")
    content = parse_json(name, file)
    lacking = [k for k in keys if not isinstance(content, dict) or not isinstance(content.get(k), kind)]
    if lacking:
        raise UserError(
            f"{name}: {file} has no {_JSON_NAMES[kind]} {lacking[0]!r}; it is not of the format that the config says"
        )
    return cast(dict[str, Any], content)


def parse_json(name: str, file: Path) -> Any:
    """Content of a JSON file, whatever it is; `UserError` that begins with `name` where it is not JSON."""
    try:
        return json.loads(file.read_bytes(), object_pairs_hook=_mapping)
    except (ValueError, RecursionError) as e:
        raise UserError(f"{name}: {file} is not valid JSON: {' '.join(str(e).split())}") from e


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON file; `ValueError` where a key is given twice, of which one would be lost in silence."""
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} is given twice in one object; remove one")
    return content


def read_text(path: Path) -> str:
    """A text in UTF-8, or in UTF-16 with its mark; `UserError` where it is neither."""
    try:
        return _decoded(path, "strict")
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not text in UTF-8: {e.reason} at byte {e.start}; save it as UTF-8") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from None


def text_lines(path: str | Path) -> list[str]:
    """The lines of a text of numbers in UTF-8, or in UTF-16 with its mark. A byte that is neither becomes a character that
    is not a number."""
    return _decoded(path, "replace").splitlines()


def _decoded(path: str | Path, errors: str) -> str:
    data = Path(path).read_bytes()
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return data.decode(encoding, errors)


def listed_names(path: Path) -> list[tuple[str, str]]:
    """(entry, `file:line`) of each line of a text file that is not blank."""
    lines = enumerate(read_text(path).splitlines(), 1)
    return [(line.strip(), f"{path}:{number}") for number, line in lines if line.strip()]
