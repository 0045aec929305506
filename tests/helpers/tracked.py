"""What trackers have kept of a run, read back from their files."""

from __future__ import annotations

from pathlib import Path


def raw_scalars(folder: Path) -> dict[str, list[int]]:
    """The steps of each tag in TensorBoard's event files, in the order in which they stand there: nothing is hidden."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    out: dict[str, list[int]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                out.setdefault(value.tag, []).append(event.step)
    return out


def mlflow_history(run: Path) -> dict[str, list[int]]:
    """The steps of each metric in the files of MLflow beside a run folder, in the order in which they were written."""
    out: dict[str, list[int]] = {}
    for folder in (run.parent / "mlruns").glob("*/*/metrics"):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            out[path.relative_to(folder).as_posix()] = [int(line.split()[2]) for line in path.read_text().splitlines()]
    return out
