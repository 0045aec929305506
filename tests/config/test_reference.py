"""The page of the documentation that lists the config: every key of every task, once for each place that it has."""

from __future__ import annotations

import re

import pytest

from ddptrain.config.places import keys_of, names_of, sections_in
from ddptrain.config.reference import reference
from ddptrain.config.section import documentation
from ddptrain.config.tasks import every_run

PAGE = reference()
ANCHORS = re.findall(r'<a id="([^"]+)"></a>|\{ #([^ ]+) \}', PAGE)


@pytest.mark.parametrize("task", every_run())
def test_every_key_of_a_task_is_listed_with_its_text(task: str) -> None:
    anchors = {key or section for key, section in ANCHORS}
    plain = re.sub(r"\\([*_[\]<])", r"\1", PAGE)
    for path, places in keys_of(every_run()[task]).items():
        outer, _, key = path.rpartition(".")
        for section, field in places:
            if path.startswith("data.val.") or sections_in(field.annotation):
                continue  # as in data.train; a section with a heading
            wanted = {path, *(f"{outer}.{name}.{key}" for name in names_of(section)[:1])}
            assert anchors & wanted, path
            assert " ".join(documentation(section, key).split()) in plain, path


def test_an_anchor_leads_to_one_place() -> None:
    found = [key or section for key, section in ANCHORS]
    assert len(found) == len(set(found))
