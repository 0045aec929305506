"""Where a run starts: never silently over again where it had checkpoints, and as was asked at first until it has its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import write_config
from support import final_state, save_checkpoint

from ddptrain.checkpoint import files as checkpoint
from ddptrain.cli import main
from ddptrain.config import load_config
from ddptrain.engine.resume import find_origin
from ddptrain.errors import UserError
from ddptrain.system.start import Start, read_start, write_start
from ddptrain.system.status import write_status
from launch.worker import again

BASE = "classes: [a]\ndata: {train: [{name: x, format: voc, root: r}], val: [{name: x, format: voc, root: r}]}\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run `runs/run`, which has nothing yet, and another one with a checkpoint of step 5."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "runs/other/checkpoints", {"bests": {}}, 5)
    path = tmp_path / "config.yaml"
    path.write_text(BASE)
    return path


def begin(config: Path, *overrides: str) -> tuple[int | None, list[str]]:
    """(step of the checkpoint that a start would take, warnings)."""
    warnings: list[str] = []
    origin = find_origin(load_config(config, overrides), warnings.append)
    return (None if origin.checkpoint is None else origin.checkpoint.step), warnings


def save_own(step: int) -> Path:
    return save_checkpoint(Path("runs/run/checkpoints"), {"bests": {}}, step)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_run_whose_checkpoints_are_all_lost_does_not_start_over_silently(config: Path, damage: str) -> None:
    paths = [save_own(step) for step in (10, 20)]
    write_status(Path("runs/run"), "stopped", 20, 40, "SIGTERM", paths[-1])
    for path in paths:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-20])
    if damage == "gone":
        shutil.rmtree("runs/run/checkpoints")
    why = "checkpoints/step_00000020.pt, its last one, is gone" if damage == "gone" else "each is named above"
    with pytest.raises(UserError, match=f"none of this run's checkpoints can be read, .*{why}; .*resume.allow=.fresh."):
        begin(config, "resume=auto")
    step, warnings = begin(config, "resume=auto", "resume.allow=[fresh]")
    assert step is None
    assert len(warnings) == (0 if damage == "gone" else 2)
    assert all(str(path) in line for path, line in zip(reversed(paths), warnings))


def test_a_run_that_never_had_a_checkpoint_starts_with_auto(config: Path) -> None:
    assert begin(config, "resume=auto") == (None, [])
    Path("runs/run").mkdir()
    write_status(Path("runs/run"), "running", 0, 40)
    assert begin(config, "resume=auto") == (None, [])


def test_the_start_that_was_given_holds_until_there_is_a_checkpoint(config: Path) -> None:
    told_first = ["resume=runs/other", "resume.allow=[seed]"]
    origin = find_origin(load_config(config, told_first), print)
    assert origin.start == Start(str(Path("runs/other").absolute()), ("seed",))
    Path("runs/run").mkdir()
    write_start(Path("runs/run"), origin.start)
    Path("runs/run/log.txt").write_text("")
    for overrides in (["resume=auto"], told_first, [*told_first, "resume=auto"]):
        assert begin(config, *overrides)[0] == 5
    assert find_origin(load_config(config, ["resume=auto"]), print).allow == ("seed",)
    assert "starting from" in begin(config, "resume=auto")[1][0]
    save_own(7)
    assert begin(config, "resume=auto")[0] == 7
    with pytest.raises(UserError, match="this run already exists without runs/other; continue it with resume=auto"):
        begin(config, *told_first)


def test_a_best_that_came_along_is_not_a_checkpoint_of_its_own(config: Path) -> None:
    Path("runs/run/checkpoints").mkdir(parents=True)
    write_start(Path("runs/run"), Start(str(Path("runs/other").absolute())))
    (other,) = Path("runs/other/checkpoints").glob("step_*.pt")
    checkpoint.carry(Path("runs/run/checkpoints"), "best.pt", other, 5)
    assert begin(config, "resume=auto")[0] == begin(config, "resume=runs/other")[0] == 5
    os.unlink("runs/run/checkpoints/best.pt")
    os.symlink("step_00000007.pt", "runs/run/checkpoints/last.pt")
    with pytest.raises(UserError, match="none of this run's checkpoints can be read"):
        begin(config, "resume=auto")


def test_a_fresh_start_after_going_back_needs_no_checkpoint(config: Path) -> None:
    """Where it went back to is lost with all others."""
    path = save_own(10)
    write_start(Path("runs/run"), Start(str(path.absolute())))
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"start over with resume=auto resume\.allow=\[fresh\]"):
        begin(config, "resume=auto")
    assert begin(config, "resume=auto", "resume.allow=[fresh]")[0] is None


def test_a_folder_with_jobs_only_is_not_a_run(config: Path) -> None:
    Path("runs/run/jobs/20250101").mkdir(parents=True)
    assert begin(config, "resume=runs/other")[0] == 5
    assert begin(config)[0] is None


def test_a_restart_keeps_how_the_run_was_started(config: Path) -> None:
    command = ["train", str(config), "resume=runs/other", "resume.allow=[seed]"]
    assert again(command) == command
    Path("runs/run").mkdir()
    write_start(Path("runs/run"), Start(str(Path("runs/older").absolute())))  # of an earlier start: this one has not begun
    assert again(command) == command
    write_start(Path("runs/run"), Start(str(Path("runs/other").absolute()), ("seed",)))
    assert again(command) == [*command, "resume=auto"]
    assert again(["train", str(config)]) == ["train", str(config), "resume=auto"]
    Path("runs/run/start.json").write_text("{")
    with pytest.raises(UserError, match=r"start\.json: does not describe the start of a run"):
        read_start(Path("runs/run"))


def test_a_fresh_start_puts_aside_what_is_left(
    small_data: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config("classification", small_data("classification"), tmp_path)
    train = ["train", str(path), "train.steps=2", "checkpoint.every_steps=1", "checkpoint.keep_last=5"]
    assert main(train) == 0
    folder = tmp_path / "run" / "checkpoints"
    for step in (1, 2):
        checkpoint.path_of(folder, step).write_bytes(b"x")
    assert main([*train, "resume=auto"]) == 2
    output = capsys.readouterr().err
    assert all(f"step_0000000{step}.pt" in output for step in (1, 2))
    assert main([*train, "resume=auto", "resume.allow=[fresh]", "train.steps=1"]) == 0
    assert final_state(tmp_path / "run")["step"] == 1
    assert sorted(p.name for p in (folder / "aside").glob("*.pt")) == ["step_00000001.pt", "step_00000002.pt"]
