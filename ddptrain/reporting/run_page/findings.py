"""`evaluation.json` in the folder of a report: what the page of a run says of its evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddptrain.reporting.history import plain
from ddptrain.reporting.run_page.parts import Section, restored, stored
from ddptrain.system.files import write_text

NAME = "evaluation.json"


@dataclass(frozen=True)
class Findings:
    """What an evaluation found.

    Attributes:
        about: which weights: `step`, `weights`, `digest`.
        metrics: all of them, flat.
        intervals: 95 % intervals over images by metric; None ends of none.
        sections: what the task says.
    """

    about: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    intervals: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    sections: Sequence[Section] = ()


def write_findings(folder: Path, findings: Findings) -> None:
    """Write them whole; raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    f = findings
    values = {"about": f.about, "metrics": f.metrics, "intervals": f.intervals}
    content = plain(values) | {"sections": [stored(section) for section in f.sections]}
    write_text(folder / NAME, json.dumps(content, allow_nan=False) + "\n")


def read_findings(folder: Path) -> Findings | None:
    """Those of a folder; None where there are none, or they are of a version with other parts."""
    try:
        values = json.loads((folder / NAME).read_text(encoding="utf-8"))
        sections = [restored(section) for section in values["sections"]]
        return Findings(values["about"], values["metrics"], values["intervals"], sections)
    except (OSError, ValueError, KeyError, TypeError):
        return None
