"""Rows of a CSV file, whatever separates its fields, and the columns that its header names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from ddptrain.data.formats.fields import is_number
from ddptrain.data.formats.files import is_image
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError

COLUMNS = {
    "path": ("path", "filename", "file_name", "file", "image", "image_path", "image_name", "img"),
    "x1": ("x1", "xmin", "x_min", "left"),
    "y1": ("y1", "ymin", "y_min", "top"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "class": ("class", "label", "name", "category", "class_name"),
}
"""Each column and the names that a header may give it. Without a header the columns stand in this order."""
SEPARATORS = ",;\t"
LOOKED_AT = 20
"""Lines by which the separator is chosen."""


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, stripped fields) of each row that is not blank; `UserError` where the file is not a CSV in UTF-8. Fields are
    separated by commas, semicolons or tabs, whichever makes most of the first lines."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            separator = max(SEPARATORS, key=lambda s: _fields(path, s))
            reader = csv.reader(text, delimiter=separator)
            for fields in reader:
                if reader.line_num == 1 and separator.join(fields) == f"sep={separator}":  # a line for spreadsheets
                    continue
                if "\n" in "".join(fields):
                    raise UserError(f"{path}:{reader.line_num}: a quote is not closed on its line; close or double it")
                stripped = [f.strip() for f in fields]
                if any(stripped):
                    yield reader.line_num, stripped
    except (UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path} is not a CSV in UTF-8: {e}; save it as CSV in UTF-8") from e


def _fields(path: Path, separator: str) -> tuple[bool, int]:
    """Whether a field of the first lines names an image or the column of images, and the number of fields of the first."""
    with path.open(newline="", encoding="utf-8-sig") as text:
        rows = [r for r in islice(csv.reader(text, delimiter=separator), LOOKED_AT) if any(r)]
    known = any(is_image(f.strip()) or plain(f) in COLUMNS["path"] for r in rows for f in r)
    return known, len(rows[0]) if rows else 0


def plain(name: str) -> str:
    """A name of a header as it is compared."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def is_header(fields: Sequence[str]) -> bool:
    """Whether a first row holds names of columns: no number and no image."""
    return not any(is_image(f) or is_number(f) for f in fields)


def find_column(header: Sequence[str], names: Sequence[str], where: str, faults: Faults) -> int | None:
    """Place of the column that has one of these names, best first; None where there is none, `UserError` where two have the
    same."""
    plains = list(map(plain, header))
    matching = [n for n in names if n in plains]
    if not matching:
        return None
    if plains.count(matching[0]) > 1:
        raise UserError(f"{where}: column {matching[0]} is listed twice; remove one of them")
    if len(matching) > 1:
        faults.note(f"{where}: of the columns {', '.join(matching)} the first is taken")
    return plains.index(matching[0])


def required(header: Sequence[str], columns: Mapping[str, tuple[str, ...]], where: str, faults: Faults) -> list[int]:
    """Places of columns that must be there; `UserError` for one that is not."""
    places = []
    for column, names in columns.items():
        place = find_column(header, names, where, faults)
        if place is None:
            alone = "; fields must be separated by commas, semicolons or tabs" if len(header) == 1 else ""
            raise UserError(
                f"{where}: no column {column} in the header {', '.join(header)}; it may be called {', '.join(names)}{alone}"
            )
        places.append(place)
    return places
