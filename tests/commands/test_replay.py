"""`ddptrain replay` makes a step again, exactly, and shows all of it; the run stays as it was."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from small_runs import RUNS
from support import cut_back, train

from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.cli import main
from ddptrain.reporting.steps import read_steps

Capture = pytest.CaptureFixture[str]
Made = Callable[[str], Path]


def files(run: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a run but those of replays, with its time and content."""
    paths = [p for p in run.rglob("*") if p.is_file() and "replay" not in p.parts]
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in paths}


def replayed(folder: Path, step: int) -> dict[str, Any]:
    (file,) = folder.glob(f"step_{step:08d}_position_*/replay.json")
    known = json.loads(file.read_text())
    assert file.parent.name.endswith(f"position_{known['position']}")
    return dict(known)


@pytest.mark.parametrize("task", RUNS)
def test_the_loss_is_the_one_that_the_run_recorded(made: Made, task: str, tmp_path: Path, capsys: Capture) -> None:
    run = made(task)
    before = files(run)
    row = next(row for row in read_steps(run) if row["step"] == "4")
    assert main(["replay", str(run), "--step", "4", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"from {run / 'checkpoints/step_00000002.pt'}, 2 steps" in out
    assert "the same numbers as the run recorded, to the last digit" in out
    known = replayed(tmp_path, 4)
    assert known["gap"] == 0
    assert {k: repr(v) for k, v in known["numbers"].items()} == {k: row[k] for k in known["numbers"]}
    assert set(known["numbers"]) == set(row) - {"step", "position", "updated"}
    parts = [name for name in known["numbers"] if name not in ("loss", "gradient_norm", "normalizer")]
    for name in ("loss", *parts):  # the samples add up to the step
        assert math.fsum(s[name] for s in known["samples"]) == pytest.approx(known["numbers"][name], rel=1e-5)
    losses = [s["loss"] for s in known["samples"]]
    assert losses == sorted(losses, reverse=True)
    assert sorted(s["position"] for s in known["samples"]) == list(range(36, 48))
    assert math.hypot(*(r["gradient_norm"] for r in known["layers"])) == pytest.approx(row_number(row), rel=1e-5)
    for sample in known["samples"]:
        assert Path(sample["file"]).is_file()
        assert cv2.imread(str(next(tmp_path.glob("step_*")) / sample["picture"])).ndim == 3
    assert files(run) == before


def row_number(row: dict[str, str]) -> float:
    return float(row["gradient_norm"])


def test_before_the_first_checkpoint_it_begins_at_the_start(made: Made, tmp_path: Path, capsys: Capture) -> None:
    run = made("detection")
    assert main(["replay", str(run), "--step", "1", "--out", str(tmp_path), "--images", "0"]) == 0
    assert "from the start of the run, 1 step\n" in capsys.readouterr().out
    assert replayed(tmp_path, 1)["gap"] == 0
    assert not list(tmp_path.glob("*/*.png"))


def test_a_damaged_checkpoint_costs_more_steps_and_nothing_else(made: Made, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    cut_back(made("classification"), run, 4)
    (run / "checkpoints/step_00000004.pt").write_bytes(b"damaged")
    assert main(["replay", str(run), "--step", "6", "--images", "2"]) == 0
    said = capsys.readouterr()
    assert f"from {run / 'checkpoints/step_00000002.pt'}, 4 steps" in said.out
    assert "step_00000004.pt: does not match its checksum" in said.err
    known = replayed(run / "replay", 6)
    assert known["gap"] == 0
    assert len(list((run / "replay").rglob("*.png"))) == 2
    assert [s["picture"] for s in known["samples"] if "picture" in s] == ["000.png", "001.png"]


def test_a_step_that_is_not_the_recorded_one_is_reported_as_different(made: Made, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    cut_back(made("classification"), run, 2)
    text = (run / "steps.csv").read_text().splitlines()
    text[3] = text[3].replace("1.", "1.5", 1)
    (run / "steps.csv").write_text("\n".join(text) + "\n")
    assert main(["replay", str(run), "--step", "3", "--images", "0"]) == 1
    assert "the run recorded loss 1.5" in capsys.readouterr().out
    assert replayed(run / "replay", 3)["gap"] > 0.1
    (run / "steps.csv").unlink()
    (run / "status.json").write_text((run / "status.json").read_text().replace('"step": 2', '"step": 3'))
    assert main(["replay", str(run), "--step", "3", "--images", "0"]) == 0
    assert "the run recorded nothing to compare with" in capsys.readouterr().out


def test_a_checkpoint_is_itself_where_it_begins(made: Made, tmp_path: Path, capsys: Capture) -> None:
    file = made("classification") / "checkpoints/step_00000004.pt"
    assert main(["replay", str(file), "--step", "5", "--out", str(tmp_path), "--images", "1"]) == 0
    assert f"from {file}, 1 step" in capsys.readouterr().out
    assert replayed(tmp_path, 5)["gap"] == 0


def test_what_cannot_be_replayed_is_refused_in_one_line(made: Made, tmp_path: Path, capsys: Capture) -> None:
    run = made("classification")
    for arguments, line in (
        ([str(run), "--step", "7"], "has made 6 steps; give one of them"),
        ([str(run / "checkpoints/last.pt"), "--step", "6"], "was saved after step 6; name an earlier one"),
        ([str(tmp_path / "nowhere"), "--step", "1"], "no such run"),
        ([str(tmp_path), "--step", "1"], "is not the folder of a run"),
        ([str(run), "--step", "1", "--images", "-1"], "--images -1: must be an integer ≥ 0"),
    ):
        assert main(["replay", *arguments]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1


def test_a_run_of_two_ranks_is_replayed_by_one_process(
    small_config: Callable[[str], Path], tmp_path: Path, capsys: Capture
) -> None:
    run = tmp_path / "run"
    keys = ("train.micro_batch=3", "model.norm=batch", "train.steps=3", "checkpoint.every_steps=1", "train.precision=bf16")
    train(2, small_config("detection"), *keys)
    assert load_checkpoint(run).state["ranks"] == 2
    assert main(["replay", str(run), "--step", "3", "--images", "0"]) == 0
    assert "the same numbers as the run recorded, to the last digit" in capsys.readouterr().out
    known = replayed(run / "replay", 3)
    assert known["gap"] == 0
    assert len(known["samples"]) == 12
    assert math.fsum(s["loss"] for s in known["samples"]) == pytest.approx(known["numbers"]["loss"], rel=1e-5)


def test_a_step_that_an_evaluation_decides_about_is_refused(
    small_config: Callable[[str], Path], tmp_path: Path, capsys: Capture
) -> None:
    """With a rate that follows the evaluations, only steps up to the next evaluation can be made again."""
    keys = ("schedule.name=plateau", "eval.every_steps=2", "checkpoint.every_steps=4", "train.steps=4", "train.threads=1")
    train(1, small_config("classification"), *keys)
    run = tmp_path / "run"
    assert main(["replay", str(run), "--step", "3", "--images", "0"]) == 0  # from the checkpoint of the evaluation
    (run / "checkpoints/step_00000002.pt").unlink()
    assert main(["replay", str(run), "--step", "2", "--images", "0"]) == 0
    assert main(["replay", str(run), "--step", "3", "--images", "0"]) == 2
    assert "--step 3: the evaluation after step 2 decides about it" in capsys.readouterr().err
