"""A short run's words to its console."""

from __future__ import annotations

import math

from ddptrain.reporting.console import Console
from ddptrain.reporting.table import Table
from ddptrain.reporting.timing import Reading

READING = Reading(images_per_second=96.4, data_wait=0.031, step_seconds=0.17, eta_seconds=750.0, seconds=8.5)


def talk(console: Console) -> None:
    with console:
        console.line("start of [the] run :smile:")
        console.table("AP per dataset", Table(["dataset", "AP", "images"], [["bccd", 0.5181, 72], ["all", math.nan, None]]))
        for step in range(1, 6):
            console.step(step, {"box": 1.5, "cls": 0.25}, 2.0)
        console.progress(5, {"box": 1.25, "cls": 0.5}, READING)
        console.status("evaluating")
        console.status("")
