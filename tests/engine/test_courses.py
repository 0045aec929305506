"""A run that goes back, recounts its steps, or is cut off between two renames goes on from the checkpoint that it started from,
and `best.pt` is what its best value says."""

from __future__ import annotations

import csv
import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import write_config
from support import final_state, save_checkpoint, summary

from ddptrain.checkpoint import files, writer
from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.checkpoint.writer import CheckpointWriter
from ddptrain.cli import main
from ddptrain.engine.reporting import RunReporter
from ddptrain.engine.run_folder import RunFolder

RUN = ("eval.every_steps=2", "checkpoint.every_steps=2", "train.steps=8")


class Killed(BaseException):
    """What ends a run at once."""


@pytest.fixture
def train(small_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Train the run `run`, four samples a step; with `killed=True` until it would save for the first time."""
    config = str(write_config("classification", small_data("classification"), tmp_path))
    monkeypatch.setattr(RunReporter, "report", lambda *_: None)  # pages and figures take longer than the runs
    monkeypatch.setattr(RunReporter, "write_page", lambda *_: None)

    def start(*overrides: str, killed: bool = False) -> None:
        arguments = ["train", config, "train.global_batch=4", "train.micro_batch=null", *RUN, *overrides]
        if not killed:
            assert main(arguments) == 0
            return

        def kill(*_: Any, **__: Any) -> None:
            raise Killed

        with pytest.MonkeyPatch.context() as m:
            m.setattr(RunFolder, "save", kill)
            with pytest.raises(Killed):
                main(arguments)

    return start


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("step_*.pt"))


@pytest.mark.parametrize("batch", [16, 2])
def test_a_recounted_run_that_is_killed_before_its_first_save_goes_on_where_it_was(
    train: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: int
) -> None:
    train("checkpoint.keep_last=2")
    folder, before = tmp_path / "run" / "checkpoints", final_state(tmp_path / "run")
    best = (folder / "best.pt").read_bytes()
    other = (f"train.global_batch={batch}", "resume=auto", "resume.allow=[global_batch]", "train.steps=20")
    train(*other, killed=True)
    steps = before["step"] * 4 // batch
    assert load_checkpoint(folder / "last.pt").step == steps
    assert (folder / "best.pt").read_bytes() == best
    capsys.readouterr()
    train(*other, killed=True)
    assert f"from step {steps} to step 20" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [round(int(row["samples"]) / batch) for row in rows]
    assert rows
    assert load_checkpoint(folder / "best.pt").state["bests"] == before["bests"]


def test_a_restart_after_going_back_to_a_left_course_stays_on_it(train: Callable[..., None], tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    train("checkpoint.keep_last=9")
    first = final_state(tmp_path / "run")
    train(f"resume={folder}/step_00000004.pt", "optimizer.lr=0.3", "checkpoint.keep_last=9")
    left = folder / "aside" / "step_00000008.pt"
    train(f"resume={left}", "train.steps=10", "checkpoint.keep_last=9", killed=True)
    assert names(folder) == ["step_00000008.pt"]
    again = load_checkpoint(folder / "step_00000008.pt")
    assert again.digest == first["digest"]
    assert again.state["bests"] == first["bests"]
    best = load_checkpoint(folder / "best.pt").state
    assert best["bests"] == first["bests"]
    assert best["step"] == first["best_steps"]["accuracy"]


def test_nothing_that_is_set_aside_is_overwritten(tmp_path: Path) -> None:
    kept = set()
    for value in range(3):
        path = save_checkpoint(tmp_path, {"value": value}, 20)
        kept.add(hashlib.sha256(path.read_bytes()).hexdigest())
        files.set_aside(tmp_path, 10)
    aside = list((tmp_path / "aside").glob("*.pt"))
    assert {hashlib.sha256(p.read_bytes()).hexdigest() for p in aside} == kept
    assert {files.step_of(p) for p in aside} == {20}


def test_going_back_takes_the_best_back(train: Callable[..., None], tmp_path: Path) -> None:
    """`best.pt` had come from a later step."""
    train("checkpoint.keep_last=9")
    folder = tmp_path / "run" / "checkpoints"
    state = load_checkpoint(folder / "step_00000004.pt").state
    best = state["best_steps"]["accuracy"]
    files.point(folder / "best.pt", "step_00000008.pt")
    train(f"resume={folder}/step_00000004.pt", "optimizer.lr=1e-9", killed=True)
    assert load_checkpoint(folder / "best.pt").step == best


def test_a_best_without_its_link_is_found_again(train: Callable[..., None], tmp_path: Path) -> None:
    """As where the process is killed between the rename of the checkpoint and that of the link."""
    train()
    folder = tmp_path / "run" / "checkpoints"
    before = (folder / "best.pt").resolve()
    (folder / "best.pt").unlink()
    train("resume=auto", "train.steps=9")
    assert final_state(tmp_path / "run")["best_steps"]["accuracy"] == load_checkpoint(folder / "best.pt").step
    assert (folder / "best.pt").resolve() == before or load_checkpoint(folder / "best.pt").step == 9
    assert summary(tmp_path / "run")["best"] == load_checkpoint(folder / "best.pt").state["bests"]["accuracy"]


def test_a_best_that_cannot_be_saved_is_the_save_before_its_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    saver = CheckpointWriter(tmp_path, keep_last=1, keep_every=None, report=lines.append)
    save = files.save

    def full(folder: Path, state: dict, step: int, best: bool = False, links: tuple[str, ...] = ()) -> Path:
        if best and step != 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(folder, state, step, best, links)

    monkeypatch.setattr(writer.checkpoint, "save", full)
    for step, best in ((1, True), (2, False), (2, True), (3, False), (4, True), (5, False)):
        saver.submit({"model": {}}, step, best=best, links=["best_loss.pt"] if best else [])
    saver.wait()
    assert load_checkpoint(tmp_path / "best.pt").step == load_checkpoint(tmp_path / "best_loss.pt").step == 2
    assert names(tmp_path) == ["step_00000002.pt", "step_00000005.pt"]
    assert [line.endswith("best.pt and best_loss.pt cannot point to it") for line in lines] == [False, True]
