"""What a message proposes works when it is followed to the letter."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from small_runs import write_config

from ddptrain.cli import main
from ddptrain.structures import Batch, LossSum
from ddptrain.tasks.classification.task import ClassificationTask

Capture = pytest.CaptureFixture[str]
Train = Callable[..., int]
LITERAL = re.compile(r"(?<![\w.])[a-z_]+(?:\.[a-z_0-9]+)*=(?:\[[^\]]*\]|[^\s,;)]+)")


def literal(message: str) -> list[str]:
    """The overrides that stand in a message, in its order."""
    return [found.rstrip(".") for found in LITERAL.findall(message)]


@pytest.fixture
def train(small_data: Callable[[str], Path], tmp_path: Path) -> Train:
    """`ddptrain train` of a run of two steps that saves each one."""
    config = str(write_config("classification", small_data("classification"), tmp_path))
    return lambda *overrides: main(["train", config, "checkpoint.every_steps=1", "train.steps=2", *overrides])


@pytest.fixture
def nan(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Lets the loss be nan from that call on; what it returns undoes it."""
    whole = ClassificationTask.loss

    def begin(number: int) -> None:
        calls = iter(range(10**6))

        def loss(self: ClassificationTask, model: torch.nn.Module, batch: Batch) -> LossSum:
            found = whole(self, model, batch)
            return found if next(calls) < number else LossSum(found.total * torch.nan, found.normalizer, found.parts)

        monkeypatch.setattr(ClassificationTask, "loss", loss)

    yield begin
    monkeypatch.setattr(ClassificationTask, "loss", whole)


def error(capsys: Capture) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_a_run_that_exists(train: Train, capsys: Capture) -> None:
    assert train() == 0
    assert train("train.steps=3") == 2
    said = error(capsys)
    assert literal(said) == ["resume=auto", "name=…"]
    assert train("train.steps=3", "resume=auto") == 0
    capsys.readouterr()
    for steps, changes in ((9, ["seed=7"]), (15, ["seed=5", "train.global_batch=6", "data.train.0.share=2"])):
        again = [f"train.steps={steps}", "resume=auto", *changes]
        assert train(*again) == 2
        (allow,) = literal(error(capsys))
        assert allow == ("resume.allow=[seed]" if steps == 9 else "resume.allow=[datasets,global_batch,seed]")
        assert train(*again, allow) == 0


def test_another_number_of_classes(train: Train, capsys: Capture) -> None:
    assert train() == 0
    more = ["train.steps=3", "classes=[disc, square, stripes, more]"]
    assert train(*more, "resume=auto") == 2
    said = error(capsys)
    assert "classes differ: " in said
    anew, name, start = literal(said)
    assert (anew, name) == ("resume=null", "name=…")
    assert train(*more, anew, "name=other", start) == 0


def test_too_many_bad_steps_with_a_checkpoint(
    train: Train, nan: Callable[[int], None], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context():
        nan(2)
        assert train("train.steps=4", "train.max_bad_steps=1", "resume=auto") == 1
        said = error(capsys)
    nan(10**6)
    _, back, *one_of, seed, allow = literal(said)
    assert Path(back.removeprefix("resume=")).resolve().name == "step_00000002.pt"
    assert [c.split("=")[0] for c in one_of] == ["optimizer.lr", "train.clip_norm"]
    for changes in ([one_of[0]], [one_of[1]], [seed, allow]):
        assert train("train.steps=3", "resume=auto", back, *changes) == 0, changes


def test_too_many_bad_steps_before_the_first_checkpoint(
    train: Train, nan: Callable[[int], None], capsys: Capture, tmp_path: Path
) -> None:
    nan(0)
    assert train("train.max_bad_steps=1", "train.precision=bf16") == 1
    said = error(capsys)
    assert "last.pt" not in said
    _, *again, lr, clip, precision, seed = literal(said)
    nan(10**6)
    assert train("train.precision=bf16", *again, lr, clip, precision, seed) == 0
    assert (tmp_path / "run-2" / "checkpoints" / "last.pt").exists()


def test_a_folder_that_cannot_be_written(train: Train, capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert train(f"output={tmp_path}/file") == 2
    assert "set output to another folder" in error(capsys)
    assert train(f"output={tmp_path}/other") == 0


def test_checkpoints_that_are_all_lost(train: Train, capsys: Capture, tmp_path: Path) -> None:
    assert train() == 0
    for path in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        os.unlink(path)
    assert train("resume=auto") == 2
    assert train(*literal(error(capsys))) == 0
