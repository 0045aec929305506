"""What the page of one run and that of several show in the same way: headline numbers, curves, metrics by class and dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ddptrain.reporting.run_page.folder import RunFacts
from ddptrain.reporting.run_page.parts import POINTS, Chart, Line, Numbers, line, rounded

STEP = "step (update of the weights)"
MAIN = ("AP", "AP50", "APs", "mIoU", "mean_accuracy", "accuracy", "balanced_accuracy", "f1", "auc")
"""Metrics that head a page, where there are no intervals that say which do."""
HEADLINES = 4
DRAWN = 24
"""Classes up to which each has a curve over the steps."""
LEARNED = ("step", "loss", "gradient_norm")
"""Columns of steps.csv that are not parts of the loss."""


class Headline(NamedTuple):
    """A metric with its 95 % interval; None for no value."""

    name: str
    value: float | None
    low: float | None
    high: float | None

    @property
    def span(self) -> str:
        """The interval as text, empty where there is none."""
        return span(self.low, self.high)


def span(low: float | None, high: float | None) -> str:
    """An interval as text, empty where there is none."""
    return "" if low is None or high is None else f"{low:.3f} – {high:.3f}"


def signed(low: float | None, high: float | None) -> str:
    """The interval of a difference as text."""
    return "" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"


def interval(run: RunFacts, name: str) -> tuple[float | None, float | None]:
    """The ends of a metric's interval."""
    low, high = run.findings.intervals.get(name, (None, None)) if run.findings is not None else (None, None)
    return low, high


def headlines(run: RunFacts) -> list[Headline]:
    """The main metrics of a run, the most important first."""
    with_interval = [name for name in (run.findings.intervals if run.findings else ()) if "/" not in name]
    names = with_interval or [name for name in MAIN if name in run.metrics]
    names = (names or [name for name in run.metrics if "/" not in name])[:HEADLINES]
    return [Headline(name, run.metrics.get(name), *interval(run, name)) for name in names]


def best_step(run: RunFacts, metric: str) -> int | None:
    """The step of the evaluation with the best value of a metric; lower is better for a loss."""
    values = np.array(run.history.get(metric, ()), np.float64)
    if not np.isfinite(values).any():
        return None
    place = np.nanargmin(values) if metric.startswith("loss") else np.nanargmax(values)
    return int(run.history["step"][int(place)])


def class_table(run: RunFacts) -> Numbers | None:
    """Every metric of each class, the main one with its interval."""
    return _by_name(run, "class", run.classes, "class")


def dataset_table(run: RunFacts) -> Numbers | None:
    """Every metric of each validation dataset, where there are several."""
    names = [] if run.config is None else [data.name for data in run.config.data.val]
    return _by_name(run, "dataset", names, "dataset") if len(names) > 1 else None


def _by_name(run: RunFacts, scope: str, names: Sequence[str], title: str) -> Numbers | None:
    prefix = {name: f"{scope}/{name}/" for name in names}
    known = set(prefix.values())
    found = [key for head, slash, key in (k.rpartition("/") for k in run.metrics) if head + slash in known]
    keys = list(dict.fromkeys(found))
    if not keys:
        return None
    main = next((h.name for h in headlines(run) if h.name in keys), keys[0])
    keys.sort(key=lambda key: key != main)
    with_interval = any(interval(run, f"{p}{main}")[0] is not None for p in prefix.values())
    columns = [title, main, *(["95 % interval"] if with_interval else []), *keys[1:]]
    rows = []
    for name, p in prefix.items():
        row: list[Any] = [name, run.metrics.get(f"{p}{main}")]
        row += [span(*interval(run, f"{p}{main}"))] if with_interval else []
        rows.append([*row, *(run.metrics.get(f"{p}{key}") for key in keys[1:])])
    return Numbers(columns, rows, f"by {title}", bars=(main,))


def means(name: str, x: Sequence[float], y: Sequence[float], points: int = POINTS) -> Line:
    """A curve of many points as the means of as many equal parts as can be shown."""
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(xs) <= points:
        return line(name, xs, ys)
    parts = [(a[-1], b.mean()) for a, b in zip(np.array_split(xs, points), np.array_split(ys, points))]
    return Line(name, [rounded(a) for a, _ in parts], [rounded(b) for _, b in parts])


def curves(run: RunFacts) -> list[Chart]:
    """Losses, metrics, rate and gradients over the steps."""
    step, history, steps = run.history.get("step", ()), run.history, run.steps
    training = (
        means("training", steps["step"], steps["loss"]) if steps else line("training", step, history.get("train/loss", ()))
    )
    parts = [means(name, steps["step"], steps[name]) for name in steps if name not in LEARNED]
    main = [h.name for h in headlines(run) if h.name in history]
    charts = [Chart("loss", STEP, "mean loss", _some([training, *_columns(run, {"loss": "validation"})]))]
    charts.append(Chart("parts of the training loss", STEP, "mean loss", _some(parts) if len(parts) > 1 else []))
    charts.append(_metric_chart("metrics", _columns(run, {name: name for name in main})))
    for scope, names in (("class", run.classes if len(run.classes) <= DRAWN else ()), ("dataset", _val_names(run))):
        of = {f"{scope}/{name}/{key}": name for name in names for key in main[:1]}
        charts.append(_metric_chart(f"{main[0] if main else ''} by {scope}", _columns(run, of) if len(of) > 1 else []))
    charts.append(Chart("learning rate", STEP, "rate per step", _columns(run, {"lr": "learning rate"})))
    norm = [means("norm before clipping", steps["step"], steps["gradient_norm"])] if steps.get("gradient_norm") else []
    charts.append(Chart("gradient", STEP, "norm", _some(norm)))
    return [chart for chart in charts if any(len(each.x) > 1 for each in chart.lines)]


def curves_of(runs: Mapping[str, RunFacts]) -> list[Chart]:
    """The same columns of several runs, a chart each."""
    first = next(iter(runs.values()))
    main = [h.name for h in headlines(first)]
    charts = []
    trained = [means(name, r.steps["step"], r.steps["loss"]) for name, r in runs.items() if r.steps]
    charts.append(Chart("training loss", STEP, "mean loss", _some(trained)))
    for column in ("loss", *main, "lr"):
        found = [line(name, r.history["step"], r.history[column]) for name, r in runs.items() if column in r.history]
        title = {"loss": "validation loss", "lr": "learning rate"}.get(column, column)
        charts.append(_metric_chart(title, _some(found)) if column in main else Chart(title, STEP, title, _some(found)))
    return [chart for chart in charts if any(len(each.x) > 1 for each in chart.lines)]


def _metric_chart(title: str, lines: Sequence[Line]) -> Chart:
    """Metrics in 0..1, from 0 on."""
    most = max((y for each in lines for y in each.y if y is not None), default=1.0)
    return Chart(title, STEP, "0 to 1", lines, y_range=(0.0, 1.05 * most if most > 0 else 1.0))


def _val_names(run: RunFacts) -> list[str]:
    return [] if run.config is None else [data.name for data in run.config.data.val]


def _columns(run: RunFacts, names: Mapping[str, str]) -> list[Line]:
    """Columns of history.csv by the names that their curves have."""
    return _some([line(name, run.history["step"], run.history[c]) for c, name in names.items() if c in run.history])


def _some(lines: Iterable[Line]) -> list[Line]:
    """The curves with a value."""
    return [each for each in lines if any(y is not None for y in each.y)]
