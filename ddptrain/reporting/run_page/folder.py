"""What a run folder tells of a run, read without a model and without its data. Whatever is missing or malformed is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddptrain.config import RunConfig, resolve
from ddptrain.config.load import no_line
from ddptrain.config.text import parse_yaml
from ddptrain.errors import UserError
from ddptrain.reporting.history import History
from ddptrain.reporting.run_page.findings import Findings, read_findings
from ddptrain.reporting.steps import read_steps
from ddptrain.system.lock import NAME as LOCK
from ddptrain.system.owner import is_held
from ddptrain.system.status import Status, read_status

STARTS = "starts.jsonl"
"""A line of JSON for each start of the run: when, from which step, on which machine, with which code and command."""


@dataclass(frozen=True)
class RunFacts:
    """All of it.

    Attributes:
        folder: of the run.
        report: of its report: pictures and `evaluation.json`.
        text: config.yaml as it is; empty where there is none.
        state: that of the status; `killed` where the status says `running`, but nobody trains here; empty without a status.
        config: the same, checked; None where this version does not know its keys, and `fault` says which.
        history: columns of history.csv.
        steps: steps.csv: `step`, `loss`, the parts of the loss and `gradient_norm` by name, of the steps that were made.
        starts: those of `STARTS`.
        jobs: number, name and ends of each Slurm job.
        log: lines of log.txt.
        profile: profile/steps.txt; empty where none was asked for.
    """

    folder: Path
    report: Path
    text: str
    config: RunConfig | None
    fault: str
    status: Status | None
    state: str
    summary: Mapping[str, Any]
    history: Mapping[str, Sequence[float]]
    steps: Mapping[str, Sequence[float]]
    findings: Findings | None
    starts: Sequence[Mapping[str, Any]]
    jobs: Sequence[Mapping[str, Any]]
    log: Sequence[str]
    profile: str

    @property
    def record(self) -> Mapping[str, Any]:
        """What the bits depend on: that of the last start, or of the summary."""
        last = self.starts[-1] if self.starts else {}
        return last.get("record") or self.summary.get("record") or {}

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """Those of the findings; before there are any, of the last evaluation."""
        if self.findings is not None and self.findings.metrics:
            return self.findings.metrics
        return {name: column[-1] for name, column in self.history.items() if column and not _is_training(name)}

    @property
    def classes(self) -> Sequence[str]:
        """Of the config."""
        return () if self.config is None else self.config.classes


def read_run(folder: Path, report: Path | None = None) -> RunFacts:
    """Read a run folder; `report` is the folder of its report, if it is another than its own.

    Raises:
        UserError: it is not the folder of a run.
    """
    text = _text(folder / "config.yaml")
    if not text:
        raise UserError(f"{folder}: no config.yaml in it; name a run folder")
    report = report or folder / "report"
    fault = ""
    try:
        config = resolve(parse_yaml(text, "config.yaml"), source="config.yaml", environ={}, stored=True, tell=no_line)
    except UserError as e:
        config, fault = None, str(e)
    try:
        status = read_status(folder)
    except UserError:
        status = None
    state: str = "" if status is None else status.state
    if state == "running" and not is_held(folder / LOCK):
        state = "killed"
    history = History(folder / "history.csv", 2**62).table
    findings, steps = read_findings(report), history.get("step", ())
    if findings is not None and state == "running" and findings.about.get("step") != (steps[-1] if steps else None):
        findings = None  # of an end that the run had before it was resumed
    starts = [start for line in _text(folder / STARTS).splitlines() if (start := _json(line))]
    return RunFacts(
        folder, report, text, config, fault, status, state, _json(_text(folder / "summary.json")), history, _steps(folder),
        findings, starts, _jobs(folder), _text(folder / "log.txt").splitlines(),
        _text(folder / "profile" / "steps.txt"),
    )  # fmt: skip


def _is_training(name: str) -> bool:
    return name in ("step", "epoch", "samples", "lr") or name.startswith("train/")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _steps(folder: Path) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {}
    for row in read_steps(folder):
        if row["updated"] == "1":
            with suppress(ValueError):
                numbers = {name: float(row[name]) for name in row if name not in ("position", "updated", "normalizer")}
                for name, number in numbers.items():
                    columns.setdefault(name, []).append(number)
    whole = len(columns.get("step", ()))
    return {name: column for name, column in columns.items() if len(column) == whole}


def _jobs(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.glob("jobs/*/job.json")):
        job, ends = _json(_text(path)), _json(_text(path.with_name("ends.json")))
        slurm = job.get("slurm", {})
        found.append({
            "job": _text(path.with_name("id")).strip() or "not submitted",
            "name": path.parent.name,
            "nodes": slurm.get("nodes"),
            "GPUs per node": slurm.get("gpus_per_node"),
            "partition": slurm.get("partition"),
            "starts": len(ends) or None,
        })  # fmt: skip
    return found
