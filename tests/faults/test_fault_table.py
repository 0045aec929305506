"""The table of faults in the docs names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_row_of_the_table_names_a_test() -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    rows = [line for line in text.split("## Faults")[1].split("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        match = re.search(r"`(tests/[\w/]+\.py)::(\w+)` \|$", row)
        assert match, row
        path, name = match.groups()
        assert f"\ndef {name}(" in (ROOT / path).read_text(), row
