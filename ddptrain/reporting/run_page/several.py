"""The page of several runs side by side, the others compared with the first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddptrain.config.changes import HOW_STARTED, flat, within
from ddptrain.config.text import dump_inline
from ddptrain.reporting.page import escape
from ddptrain.reporting.run_page import html, shared
from ddptrain.reporting.run_page.folder import RunFacts
from ddptrain.reporting.run_page.parts import Numbers
from ddptrain.reporting.run_page.single import NAME as PAGE
from ddptrain.system.files import write_text

NAME = "comparison.html"
OF_NAME = ("name", "output", *HOW_STARTED)
"""Keys and sections of the config that say which run it is."""


class Verdict(NamedTuple):
    """What a comparison of a run with the first says of a metric.

    Attributes:
        run: name of the run.
        verdict: `better`, `worse`, `cannot tell`; empty where they cannot be compared.
        difference, low, high: the run minus the first, with its 95 % interval; None where they cannot be compared.
        words: sentences.
    """

    run: str
    metric: str
    verdict: str
    difference: float | None
    low: float | None
    high: float | None
    words: Sequence[str]


def write_comparison(out: Path, runs: Mapping[str, RunFacts], verdicts: Sequence[Verdict]) -> Path:
    """Write the page of runs by their names to the folder `out`; raises `OSError`."""
    out.mkdir(parents=True, exist_ok=True)
    sections = [
        ("results", "Results", _results(runs, verdicts)),
        ("config", "What differs in the configs", _configs(runs)),
        ("curves", "Curves", html.side_by_side([html.one(chart, out) for chart in shared.curves_of(runs)])),
        ("classes", "By class and dataset", _scopes(runs)),
        ("machine", "Code, data, machine and time", _machines(runs)),
    ]
    links = " · ".join(_link(out, name, run) for name, run in runs.items())
    head = f'<p class="lead">the others are compared with {escape(next(iter(runs)))} · pages of the runs: {links}</p>'
    text = html.page(" – ".join(runs) if len(runs) == 2 else f"{len(runs)} runs", head, [s for s in sections if s[2]])
    write_text(out / NAME, text)
    return out / NAME


def _link(out: Path, name: str, run: RunFacts) -> str:
    page = run.report / PAGE
    if not page.is_file():
        return escape(name)
    return f'<a href="{escape(os.path.relpath(page.resolve(), out.resolve()))}">{escape(name)}</a>'


def _results(runs: Mapping[str, RunFacts], verdicts: Sequence[Verdict]) -> str:
    metrics = [h.name for h in shared.headlines(next(iter(runs.values())))]
    rows = []
    for name, run in runs.items():
        row: list[Any] = [name, run.state, run.status.step if run.status else None]
        for metric in metrics:
            row += [run.metrics.get(metric), shared.span(*shared.interval(run, metric))]
        rows.append([*row, shared.best_step(run, metrics[0]) if metrics else None, run.summary.get("images_per_second")])
    columns = [
        "run",
        "state",
        "step",
        *(c for metric in metrics for c in (metric, "95 % interval")),
        "best at step",
        "images/s",
    ]
    parts = [html.numbers(Numbers(columns, rows))]
    first = next(iter(runs))
    judged = [
        [v.run, v.metric, v.difference, shared.signed(v.low, v.high), v.verdict] for v in verdicts if v.difference is not None
    ]
    if judged:
        title = f"the difference to {first}, on the same draws of the images"
        parts.append(html.numbers(Numbers(("run", "metric", "difference", "95 % interval", "verdict"), judged, title)))
    for verdict in verdicts:
        parts += [
            html.paragraph(text, (verdict.verdict.split() or ["quiet"])[0] if i == 0 else "quiet")
            for i, text in enumerate(verdict.words)
        ]
    return "\n".join(parts)


def _configs(runs: Mapping[str, RunFacts]) -> str:
    known = {name: run.config for name, run in runs.items() if run.config is not None}
    lines = [html.paragraph(f"{name}: {run.fault}", "warning") for name, run in runs.items() if run.fault]
    values = {name: dict(flat(config.model_dump(mode="json"))) for name, config in known.items()}
    keys = [k for k in dict.fromkeys(k for each in values.values() for k in each) if not within(k, OF_NAME)]
    rows = [[key, *_shown(values.values(), key)] for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    if not rows:
        lines.append(html.paragraph("Identical, apart from their names and how they were started.", "quiet"))
    return "\n".join([*lines, html.numbers(Numbers(("key", *known), rows))])


def _shown(values: Any, key: str) -> Iterator[str]:
    for each in values:
        yield dump_inline(each[key]) if key in each else "–"


def _scopes(runs: Mapping[str, RunFacts]) -> str:
    """The main metric of each class and dataset, and by how much it differs from that of the first run."""
    first, *others = runs
    main = [h.name for h in shared.headlines(runs[first])][:1]
    parts = []
    for scope in ("dataset", "class"):
        for key in main:
            names = [k.split("/", 1)[1].rpartition("/")[0] for k in runs[first].metrics if _is_of(k, scope, key)]
            rows = []
            for name in names:
                values = [run.metrics.get(f"{scope}/{name}/{key}") for run in runs.values()]
                rows.append([name, *values, *(_minus(value, values[0]) for value in values[1:])])
            columns = (scope, *runs, *(f"{other} – {first}" for other in others))
            parts.append(html.numbers(Numbers(columns, rows, f"{key} by {scope}", tuple(runs))))
    return "\n".join(parts)


def _is_of(name: str, scope: str, key: str) -> bool:
    return name.startswith(f"{scope}/") and name.endswith(f"/{key}") and not name.startswith(f"{scope}//")


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _machines(runs: Mapping[str, RunFacts]) -> str:
    described = [_described(run) for run in runs.values()]
    keys = list(dict.fromkeys(key for each in described for key in each))
    rows = [[key, *(str(each.get(key, "–")) for each in described)] for key in keys]
    other = [row for row in rows if len(set(row[1:])) > 1]
    same = [row[:2] for row in rows if len(set(row[1:])) == 1 and row[1] not in ("None", "")]
    parts = [html.numbers(Numbers(("what differs", *runs), other)), html.numbers(Numbers(("the same in all", "value"), same))]
    return "\n".join(parts)


def _described(run: RunFacts) -> dict[str, Any]:
    last = run.starts[-1] if run.starts else {}
    own = {key: last.get(key) for key in ("ranks", "launcher", "host", "gpu", "cores", "python")}
    rate = run.summary.get("images_per_second")
    return {**run.record, **own, "images per second": f"{rate:.3g}" if rate else None, "weights": run.summary.get("digest")}
