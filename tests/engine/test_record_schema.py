"""The files of numbers have the columns that docs/records.md and docs/watching.md promise, for every task, and no others."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from small_runs import RUNS
from support import train

DOCS = Path(__file__).resolve().parents[2] / "docs"
OF_CLASSIFICATION = "classification, interaction"


def names(text: str, before: str) -> list[str]:
    """The names in the first cells of the first table behind a text."""
    table = re.split(r"\n\n", text[text.index(before) :].partition("\n|")[2])[0]
    return [name for line in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", line.lstrip("|").split("|")[0])]


def metrics(task: str) -> list[str]:
    """The metrics of a task."""
    row = next(r for r in (DOCS / "records.md").read_text().splitlines() if re.match(rf"\| [a-z, ]*\b{task}\b[a-z, ]* \|", r))
    return re.findall(r"`([^`]+)`", row.split("|")[2])


def undocumented(found: Iterable[str], known: Iterable[str], task: str) -> list[str]:
    """The names that none of the known ones, with their `<…>`, stands for."""
    own = "|".join(map(re.escape, metrics(task)))
    patterns = [re.sub(r"<\w+>", "[^/]+", re.escape(k).replace("<metric>", f"({own})")) for k in known]
    return [name for name in found if not any(re.fullmatch(pattern, name) for pattern in patterns)]


def watched_tags() -> list[str]:
    """Tags of docs/watching.md, those that are given by their last part alone in full."""
    tags: list[str] = []
    for tag in names((DOCS / "watching.md").read_text(), "## Numbers"):
        tags.append(tag if "/" in tag else f"{tags[-1].rpartition('/')[0]}/{tag}")
    return tags


@pytest.mark.parametrize("task", RUNS)
def test_every_name_is_documented(task: str, small_config: Callable[[str], Path], tmp_path: Path) -> None:
    train(1, small_config(task), "train.steps=4", "eval.every_steps=2")
    run, records = tmp_path / "run", (DOCS / "records.md").read_text()
    with (run / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    columns = names(records, "**`history.csv`**")
    assert undocumented(rows[0], columns, task) == []
    assert list(rows[0])[:5] == ["step", "epoch", "samples", "lr", "train/loss"]

    summary = json.loads((run / "summary.json").read_text())
    keys = names(records, "**`summary.json`**")
    assert undocumented(summary, keys, task) == []
    assert {key for key in keys if "<" not in key} <= set(summary)
    best = next(row for row in rows if float(row[summary["monitor"]]) == summary["best"])
    assert (summary["best_step"], summary["step"]) == (int(best["step"]), 4)
    assert summary[summary["monitor"]] == float(rows[-1][summary["monitor"]])

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 2), ("val", 2), ("train", 4), ("val", 4)]
    tags = [*watched_tags(), *(f"val/{c}" for c in columns), *(f"data/<dataset>/val/{c}" for c in columns)]
    every = {tag for line in lines for tag in line} - {"kind", "step", "seconds"}
    assert undocumented(every, tags, task) == []
    always = ("train/loss", "optim/gradient_norm/all", "optim/average_distance", "time/images_per_second", "system/memory_gb")
    for tag in always:
        assert all(tag in line for line in lines if line["kind"] == "train"), tag
