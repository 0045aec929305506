"""`ddptrain report`: figures, text and the page about the best weights of a run, or a page of several runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ddptrain import distributed
from ddptrain.checkpoint.files import checkpoints_in
from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.commands.compare import compare_sides
from ddptrain.commands.evaluate import about_weights, evaluate_checkpoint
from ddptrain.errors import UserError
from ddptrain.metrics.compare import in_words
from ddptrain.metrics.outcome import FILE, read_outcome
from ddptrain.reporting.history import History
from ddptrain.reporting.run_page.findings import write_findings
from ddptrain.reporting.run_page.folder import read_run
from ddptrain.reporting.run_page.several import Verdict, write_comparison
from ddptrain.reporting.run_page.shared import headlines
from ddptrain.reporting.run_page.single import write_page
from ddptrain.system.lock import NAME as LOCK
from ddptrain.system.owner import is_held
from ddptrain.system.printable import first_few, say, warn
from ddptrain.system.status import read_status
from ddptrain.tasks.build import build_task
from ddptrain.tasks.findings import findings_of


def report_run(run: Path, overrides: Sequence[str], out: Path | None) -> int:
    """Write the task's report on a run and its page to `out`, by default `report` in the run folder.

    It is made from what the last evaluation has left, if that was of these weights and data and is enough for the task; else
    the run is evaluated as by `evaluate_run`. Of a run that is still training, only the page is written, without evaluating.
    """
    if run.is_dir() and not overrides and (why := _no_evaluation(run)):
        say(f"{write_page(run, out)} written without a new evaluation: {why}")
        return 0
    folder = run if run.is_dir() else run.resolve().parents[1]
    place = out or folder / "report"
    if overrides or (source := _report_kept(run, folder, place)) is None:
        source = _report_evaluated(run, folder, overrides, place)
    if source:
        write_page(folder, place)
        say(f"report on {source}")
    return 0


def report_runs(runs: Sequence[Path], out: Path | None) -> int:
    """Write the page of several runs side by side to `out`, by default to `report` in the first one's folder."""
    facts = [read_run(run) for run in runs]
    names = [run.folder.resolve().name for run in facts]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    if len(set(names)) < len(names):
        raise UserError(f"report: {first_few(names)}: a run is given twice; give each once")
    metrics = [h.name for h in headlines(facts[0])]
    verdicts = [v for run, name in zip(runs[1:], names[1:]) for v in _verdicts(runs[0], run, names[0], name, metrics)]
    say(f"{write_comparison(out or facts[0].report, dict(zip(names, facts)), verdicts)}")
    return 0


def _verdicts(first: Path, second: Path, first_name: str, second_name: str, metrics: Sequence[str]) -> Iterator[Verdict]:
    """What `ddptrain compare` says of two runs: of the first metric in words, of all in numbers."""
    for number, metric in enumerate(metrics):
        try:
            _, c = compare_sides([read_outcome(first)], [read_outcome(second)], metric, seed=0)
        except UserError as e:
            if not number:
                why = [f"{second_name} was not compared with {first_name}: {e}"]
                yield Verdict(second_name, metric, "", None, None, None, why)
        else:
            words = () if number else in_words(c, metric, first_name, second_name)
            yield Verdict(second_name, metric, c.verdict, c.difference, c.low, c.high, words)


def _no_evaluation(run: Path) -> str:
    """Why a run is not evaluated for its page; empty where it is."""
    if is_held(run / LOCK):
        return f"the run is still training; ddptrain eval {run} evaluates it"
    begun = read_status(run) is not None and not checkpoints_in(run / "checkpoints")
    return "the run has no checkpoint yet" if begun else ""


def _report_evaluated(run: Path, folder: Path, overrides: Sequence[str], place: Path) -> str:
    """Evaluate a run, and write the report; what to say of it, empty on ranks that write nothing."""
    checkpoint, task, evaluation, world = evaluate_checkpoint(run, overrides)
    if not world.main:
        return ""
    about = about_weights(run, checkpoint)
    outcome = task.outcome(evaluation.predictions, evaluation.metrics, about)
    write_findings(place, findings_of(task.view, evaluation.predictions, outcome, evaluation.metrics, about))
    _draw(lambda: task.view.report(place, evaluation.predictions, _history(folder)))
    return f"{checkpoint.path} in {place}"


def _report_kept(run: Path, folder: Path, place: Path) -> str | None:
    """Write the report from the kept outcome of these weights; None where there is none, or it is not enough."""
    checkpoint = load_checkpoint(run, best=True)
    try:
        outcome = read_outcome(folder)
    except UserError:
        return None
    # a run that went back comes to the same step with other weights
    if (outcome.about.get("step"), outcome.about.get("digest")) != (checkpoint.step, checkpoint.digest):
        return None
    if not distributed.discover(checkpoint.config.train.device).main:
        return ""
    view = build_task(checkpoint.config).view
    if not _draw(lambda: view.report_outcome(place, outcome, _history(folder))):
        return None
    write_findings(place, findings_of(view, (), outcome, outcome.metrics, outcome.about))
    return f"{checkpoint.path} in {place}, from {folder / FILE}"


def _draw(draw: Callable[[], bool | None]) -> bool:
    """What `draw` returns; True where it got as far as the figures, for which a package is not installed."""
    try:
        return bool(draw())
    except ImportError as e:
        warn(f"report: only the page was written, {e.name} is not installed; pip install 'ddptrain[report]' for all figures")
        return True


def _history(folder: Path) -> Mapping[str, Sequence[float]]:
    history = History(folder / "history.csv", sys.maxsize)
    if history.faults:
        warn(f"{folder / 'history.csv'}: malformed, left out of the curves: {', '.join(history.faults)}")
    return history.table
