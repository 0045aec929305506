"""steps.csv has a row for every step, to the last digit, whatever ended the run in between."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import pytest

from ddptrain.reporting.steps import StepLog, read_steps


def log(run: Path, position: int | None = None, source: Path | None = None) -> StepLog:
    steps = StepLog(run / "steps.csv", position, source)
    steps.settle()
    return steps


def add(steps: StepLog, *numbers: int, **parts: float) -> None:
    for n in numbers:
        steps.add(n, 8 * (n - 1), True, parts or {"a": n / 3, "b": 0.1}, 1e-30 / n, 8.0)
    steps.write()


def numbers(run: Path) -> list[int]:
    return [int(row["step"]) for row in read_steps(run)]


def test_a_number_is_read_back_as_it_was(tmp_path: Path) -> None:
    steps = log(tmp_path)
    add(steps, 1, 2)
    steps.add(3, 16, False, {"a": math.nan, "b": math.inf}, math.nan, 1.0)
    steps.write()
    steps.write()
    rows = list(read_steps(tmp_path))
    assert list(rows[0]) == ["step", "position", "updated", "loss", "a", "b", "gradient_norm", "normalizer"]
    assert [float(rows[1][name]) for name in ("loss", "a", "gradient_norm")] == [2 / 3 + 0.1, 2 / 3, 5e-31]
    assert [rows[2][name] for name in ("updated", "loss", "b")] == ["0", "nan", "inf"]
    assert len(rows) == 3


def test_a_resumed_run_drops_what_will_come_again(tmp_path: Path) -> None:
    add(log(tmp_path), 1, 2, 3, 4)
    with (tmp_path / "steps.csv").open("a") as file:
        file.write("5,32,1,0.")  # cut off in the middle of a write
    steps = log(tmp_path, position=16)
    assert steps.faults == 0
    add(steps, 3, 4)
    assert numbers(tmp_path) == [1, 2, 3, 4]
    add(log(tmp_path, position=0), 1)  # stopped before its first checkpoint
    assert numbers(tmp_path) == [1]
    add(log(tmp_path), 1)
    assert numbers(tmp_path) == [1]


def test_a_run_that_resumes_elsewhere_brings_its_steps(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    add(log(first), 1, 2, 3)
    add(log(second, 16, first / "steps.csv"), 3, 4)
    assert numbers(second) == [1, 2, 3, 4]
    add(log(second, 24, first / "steps.csv"), 4)  # its own file counts from now on
    assert numbers(second) == [1, 2, 3, 4]
    assert numbers(first) == [1, 2, 3]


def test_lines_that_are_not_rows_are_counted_and_dropped(tmp_path: Path) -> None:
    add(log(tmp_path), 1, 2, 3)
    text = (tmp_path / "steps.csv").read_text().splitlines(keepends=True)
    text[2:2] = ["\n", "x,y\n", text[1]]
    (tmp_path / "steps.csv").write_text("".join(text))
    steps = log(tmp_path, position=800)
    assert steps.faults == 3
    assert numbers(tmp_path) == [1, 2, 3]


def test_other_parts_of_the_loss_bring_columns_of_their_own(tmp_path: Path) -> None:
    add(log(tmp_path), 1, 2)
    add(log(tmp_path, position=8), 2, 3, a=1.0, **{"=b,c": 2.0})
    assert numbers(tmp_path) == [1, 2, 3]
    assert [row.get("=b,c") for row in read_steps(tmp_path)] == [None, "2.0", "2.0"]
    add(log(tmp_path, position=16), 3, a=1.0, **{"=b,c": 2.0})
    assert numbers(tmp_path) == [1, 2, 3]
    assert (tmp_path / "steps.csv").read_text().count("step,") == 2
    add(log(tmp_path, position=8), 2)
    assert (tmp_path / "steps.csv").read_text().count("step,") == 1
    assert [list(row)[4:6] for row in read_steps(tmp_path)] == [["a", "b"]] * 2


def test_rows_wait_for_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = log(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OSError, match="No space"):
            add(steps, 1)
    add(steps, 2)
    assert numbers(tmp_path) == [1, 2]


def test_another_rank_writes_nothing(tmp_path: Path) -> None:
    steps = StepLog(None)
    steps.settle()
    add(steps, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_was_cut_off_by_a_full_disk_is_taken_back(tmp_path: Path) -> None:
    """What can be written of it would stay, and the rows come again."""
    steps = log(tmp_path)
    add(steps, 1)
    size = (tmp_path / "steps.csv").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            add(steps, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "steps.csv").stat().st_size == size
    add(steps, 3)
    assert numbers(tmp_path) == [1, 2, 3]
