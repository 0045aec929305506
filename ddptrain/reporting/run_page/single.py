"""The page of one run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ddptrain.config.given import given
from ddptrain.reporting.page import escape
from ddptrain.reporting.run_page import html, shared
from ddptrain.reporting.run_page.folder import RunFacts, read_run
from ddptrain.reporting.run_page.parts import Chart, Numbers, line
from ddptrain.system.files import write_text
from ddptrain.system.printable import counted

NAME = "report.html"
MIXTURE = {
    "name": "dataset",
    "size": "images",
    "share_asked": "share asked for",
    "share_drawn": "share drawn",
    "drawn": "samples drawn",
    "passes": "passes",
    "coverage": "part seen",
    "loss": "loss an image",
    "loss_share": "share of the loss",
}
"""Columns of the mixture in summary.json, and what they are called."""
SETTINGS = ("precision", "tf32", "micro_batch", "reduction", "deterministic")
"""Entries of the record that the config has chosen."""
BALANCE = {"name": "class", "images": "images", "drawn": "images drawn", "drawn_by_ap": "AP by which they are drawn"}
"""The same of its classes, where `data.balance` draws some more often."""
_PROGRESS = re.compile(r"  step (\d+)/\d+  .*  ([\d.]+) img/s  data (\d+)%")


def write_page(folder: Path, report: Path | None = None) -> Path:
    """Write the page of a run to `report/report.html` in its folder, or to another folder of a report.

    Raises:
        UserError: it is not the folder of a run.
        OSError: the page cannot be written.
    """
    run = read_run(folder, report)
    run.report.mkdir(parents=True, exist_ok=True)
    path = run.report / NAME
    write_text(path, page_of(run))
    return path


def page_of(run: RunFacts) -> str:
    """The whole page."""
    found = [(s.key, s.title, html.section(s, run.report)) for s in (run.findings.sections if run.findings else ())]
    sections = [
        ("results", "Results", _results(run)),
        ("curves", "Curves", html.side_by_side([html.one(chart, run.report) for chart in shared.curves(run)])),
        *found,
        ("mixture", "Mixture", _mixture(run)),
        ("time", "Time", _time(run)),
        ("machine", "Machine and versions", _machine(run)),
        ("config", "Config", _config(run)),
        ("again", "Run it again", _again(run)),
        ("numbers", "All numbers", _all_numbers(run)),
    ]
    return html.page(_name(run), _head(run), [s for s in sections if s[2]])


def _name(run: RunFacts) -> str:
    return run.config.name if run.config is not None else run.folder.resolve().name


def _head(run: RunFacts) -> str:
    status, config, summary = run.status, run.config, run.summary
    parts = [] if config is None else [f"{config.task} with {getattr(config.model, 'name', 'a model of its own')}"]
    if status is not None:
        parts.append(f"step {status.step:,} of {status.steps:,}")
    if "epoch" in summary:
        parts.append(f"{summary['epoch']:.4g} epochs")
    parts.append(f"written {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC")
    state = f'<span class="state {run.state}">{run.state}</span>' if run.state else ""
    reason = "" if status is None or not status.reason else html.paragraph(status.reason, "warning")
    lost = [line[21:] for line in run.log if line[21:].startswith("warning:")]
    warned = list(dict.fromkeys(text.removeprefix("warning: ") for text in lost))
    warnings = "".join(html.paragraph(text, "warning") for text in warned[:200])
    notes = html.folded(counted(len(warned), "warning"), warnings) if warned else ""
    return f'<p class="lead">{state}{escape(" · ".join(parts))}</p>{reason}{_cards(run)}{notes}'


def _cards(run: RunFacts) -> str:
    cards: list[tuple[str, Any, str]] = [(h.name, h.value, f"95 %: {h.span}" if h.span else "") for h in shared.headlines(run)]
    best = shared.best_step(run, cards[0][0]) if cards else None
    if best is not None:
        cards.append((f"best {cards[0][0]} at step", best, f"of {counted(len(run.history['step']), 'evaluation')}"))
    if run.summary.get("images_per_second"):
        cards.append(
            ("images per second", f"{run.summary['images_per_second']:.3g}", f"on {_hardware(run)}" if run.starts else "")
        )
    body = "".join(
        f'<div class="card"><span>{escape(name)}</span><b>{escape(html.cell(value))}</b><span>{escape(note)}</span></div>'
        for name, value, note in cards
    )
    return f'<div class="cards">{body}</div>'


def _hardware(run: RunFacts) -> str:
    last = run.starts[-1]
    return f"{last.get('ranks', 1)} × {last['gpu']}" if "gpu" in last else counted(int(last.get("ranks", 1)), "CPU rank")


def _results(run: RunFacts) -> str:
    if not run.metrics:
        return html.paragraph("There has been no evaluation yet.", "quiet")
    findings = run.findings
    if findings is not None and findings.about:
        which = f"the {findings.about.get('weights', '')} weights, of step {findings.about.get('step', '?')}"
        text = f"Of {which}. Intervals: 1000 bootstrap draws over the validation images."
    else:
        text = "Of the last evaluation. Intervals and errors come at the end of the run, or with ddptrain report."
    tables = [shared.dataset_table(run), shared.class_table(run)]
    return "\n".join([html.paragraph(text, "quiet"), *(html.numbers(t) for t in tables if t is not None)])


def _mixture(run: RunFacts) -> str:
    parts = _named(run.summary.get("mixture"), MIXTURE, "") + _named(
        run.summary.get("classes"), BALANCE, "images that show a class"
    )
    return "\n".join(html.numbers(table) for table in parts)


def _named(rows: Any, names: Mapping[str, str], title: str) -> list[Numbers]:
    """A table of what summary.json lists, its columns by the names that they have there; none where it lists nothing."""
    columns = [key for key in names if any(key in row for row in rows or ())]
    cells = [[row.get(key) for key in columns] for row in rows or ()]
    return [Numbers([names[key] for key in columns], cells, title, bars=("share drawn", "part seen"))] if cells else []


def _time(run: RunFacts) -> str:
    found = [(int(m[1]), float(m[2]), int(m[3]) / 100) for text in run.log if (m := _PROGRESS.search(text))]
    charts = []
    if len(found) > 1:
        step, rate, wait = zip(*sorted({f[0]: f for f in found}.values()))
        speed, waiting = line("images", step, rate), line("waiting", step, wait)
        charts.append(Chart("speed", shared.STEP, "images per second", [speed], y_range=(0, max(rate) * 1.05)))
        charts.append(Chart("waiting for data", shared.STEP, "part of the time", [waiting], y_range=(0, 1)))
    title, table = _profile(run.profile)
    out = [html.side_by_side([html.one(chart, run.report) for chart in charts])] if charts else []
    out += [html.paragraph(title), html.numbers(table)] if table is not None else []
    if table is None and out:
        out.append(html.paragraph("monitor.profile=20 adds a table of the time that each part of a step takes.", "quiet"))
    return "\n".join(out)


def _profile(text: str) -> tuple[str, Numbers | None]:
    """The title and the table of profile/steps.txt, the share of each part in 0..1."""
    title, *lines = text.splitlines() or [""]
    cells = [re.split(r"\s{2,}", each.strip()) for each in lines]
    if len(cells) < 3 or any(len(row) != len(cells[0]) for row in cells):
        return title, None
    rows: list[list[Any]] = [[row[0], *(None if c == "-" else float(c) for c in row[1:])] for row in cells[2:]]
    for row in rows:
        row[2] = None if row[2] is None else row[2] / 100
    columns = [*cells[0][:2], "part of the step", *cells[0][3:]]
    return title, Numbers(columns, [row for row in rows if row[0] != "step"], bars=("part of the step",))


def _machine(run: RunFacts) -> str:
    record, last = run.record, run.starts[-1] if run.starts else {}
    memory = f"{last['memory_gb']:g} GB" if "memory_gb" in last else ""
    gpu = f"{last['gpu']}, {last['gpu_memory_gb']:g} GB, CUDA {last.get('cuda')}" if "gpu" in last else ""
    slurm = last.get("slurm", {})
    words = {"SLURM_JOB_ID": "", "SLURM_JOB_NODELIST": " on ", "SLURM_JOB_PARTITION": ", partition "}
    job = "".join(f"{word}{slurm[key]}" for key, word in words.items() if key in slurm)
    values = {
        "ddptrain": record.get("code"), "git commit": record.get("commit"), "Python": last.get("python"),
        **{name: record.get(name) for name in ("torch", "torchvision", "numpy", "opencv")},
        "device": record.get("device"), "GPU": gpu, "ranks": last.get("ranks"), "started by": last.get("launcher"),
        "threads of a rank": record.get("threads"), "host": last.get("host"), "system": last.get("system"),
        "cores": last.get("cores"), "memory": memory, "Slurm job": job,
        **{name.replace("_", " "): str(record[name]) for name in SETTINGS if name in record},
        "fingerprint of the data": record.get("data"), "fingerprint of the config": record.get("config"),
        "SHA-256 of the weights": run.summary.get("digest"),
    }  # fmt: skip
    keys = ("time", "step", "host", "ranks", "launcher")
    starts = [[start.get(key) for key in keys] for start in run.starts]
    columns = ("started", "from step", "host", "ranks", "started by")
    tables = [Numbers(columns, starts, counted(len(starts), "start"))] if len(starts) > 1 else []
    if run.jobs:
        tables.append(Numbers(list(run.jobs[0]), [list(job.values()) for job in run.jobs], "Slurm jobs"))
    return "\n".join([html.facts(values), *map(html.numbers, tables)])


def _config(run: RunFacts) -> str:
    parts = [html.paragraph(run.fault, "warning")] if run.fault else []
    if run.config is not None:
        rows = [[g.key, g.value, g.default or "none: must be given"] for g in given(run.config)]
        parts.append(html.numbers(Numbers(("key", "value", "default"), rows, "what differs from the defaults")))
    return "\n".join([*parts, html.folded("the whole config, config.yaml", html.code(run.text))])


def _again(run: RunFacts) -> str:
    return html.code("\n".join(_commands(run)))


def _commands(run: RunFacts) -> Iterator[str]:
    """What leads to the same weights again."""
    record, last = run.record, run.starts[-1] if run.starts else {}
    if record.get("commit"):
        yield f"git checkout {record['commit']}  # ddptrain {record.get('code', '')}"
    if record:
        yield install_command(record)
    if run.starts and run.starts[0].get("command"):
        first = run.starts[0]
        yield f"cd {shlex.quote(first['folder'])} && {first['command']}  # as it was typed"
    name, folder = _name(run), shlex.quote(str(run.folder))
    ranks = f" --nproc {last['ranks']}" if last.get("ranks", 1) > 1 and last.get("ranks") == last.get("ranks_here") else ""
    again = f"{name}-again"
    yield f"ddptrain train {folder}/config.yaml {shlex.quote(f'name={again}')} resume=null{ranks}  # from the resolved config"
    yield f"ddptrain eval {folder}"
    other = run.folder.parent / again
    yield f"ddptrain diff {folder} {shlex.quote(str(other))}  # equal to the last bit on the same device with the same versions"


def install_command(record: Mapping[str, Any]) -> str:
    """The command that installs the versions of a record. A build of torch (`2.9.0+cpu`) is in no registry but PyTorch's own;
    packages of OpenCV have a fourth number, which the library does not tell."""
    packages = {"torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "opencv": "opencv-python"}
    wanted = [f"{package}=={str(record[name]).split('+')[0]}" for name, package in packages.items() if name in record]
    builds = re.findall(r"\+(cpu|xpu|cu\d+|rocm[\d.]+)$", str(record.get("torch", "")))
    index = [f"--extra-index-url https://download.pytorch.org/whl/{build}" for build in builds]
    return " ".join(["pip install", *(f"'{each}.*'" if each.startswith("opencv") else each for each in wanted), *index])


def _all_numbers(run: RunFacts) -> str:
    rows = [[name, value, shared.span(*shared.interval(run, name))] for name, value in run.metrics.items()]
    table = html.numbers(Numbers(("metric", "value", "95 % interval"), rows))
    log = html.folded("the end of log.txt", html.code("\n".join(run.log[-60:]))) if run.log else ""
    return (html.folded(counted(len(rows), "metric"), table) if rows else "") + log
