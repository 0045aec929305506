"""`ddptrain diagnose` names a planted cause, with its number, and finds nothing in a run that learns."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support import command_line, train

from ddptrain.engine.diagnosis import without_gradient

RUN = ("train.micro_batch=6", "schedule={name: constant, warmup_epochs: 1}")


def diagnosed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = command_line(["diagnose", *arguments])
    out, err = capsys.readouterr()
    return code, out + err


def test_a_run_that_learns_is_left_alone(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, text = diagnosed(capsys, str(config), *RUN)
    assert code == 0, text
    assert "Nothing is wrong with an update" in text
    assert "gradient of each part of the loss alone: box" in text
    assert sorted(tmp_path.rglob("*")) == before
    again = diagnosed(capsys, str(config), *RUN)
    assert again == (code, text)


def test_a_level_on_which_no_object_lies_is_no_fault(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a dual head one branch has a single point for each object, so that some level has none."""
    text = diagnosed(capsys, str(config), *RUN, "model.head=dual", "model.strides=[8, 16, 32]")[1]
    assert "10 updates on one batch" in text
    assert "exactly 0" not in text


def test_what_is_silent_at_every_level_is_named() -> None:
    at_one = {"head.one.sides.0.weight": 1.0, "head.one.sides.1.weight": 0.0, "neck.up.0.weight": 0.0, "neck.up.1.weight": 1.0}
    assert without_gradient(at_one) == ["neck.up.0.weight"]
    nowhere = at_one | {"head.one.sides.0.weight": 0.0}
    assert without_gradient(nowhere) == ["head.one.sides.0.weight", "head.one.sides.1.weight", "neck.up.0.weight"]


PLANTED = {
    "lr 1e-9": (("optimizer.lr=1.0e-9",), "The learning rate is far too small: an update at lr 1e-09 changes the weights by"),
    "lr 100": (("optimizer.lr=100",), "The learning rate is much too large: an update at lr 100 changes the weights by"),
    "most is frozen": (("freeze=[backbone, neck]",), "of the network are not trained; look at freeze"),
    "a part without a gain": (("loss.box=1.0e-9",), "The part box of the loss is only"),
    "a gradient that is clipped away": (("train.clip_norm=0.001",), "of which train.clip_norm=0.001 leaves"),
}


@pytest.mark.parametrize("cause", PLANTED)
def test_a_planted_cause_is_found(config: Path, capsys: pytest.CaptureFixture[str], cause: str) -> None:
    keys, sentence = PLANTED[cause]
    code, text = diagnosed(capsys, str(config), *RUN, *keys)
    assert code == 1, text
    assert sentence in text


SHARES = re.compile(r"(\w+) \S+ \((\d+)%\)")


def _shares(text: str) -> dict[str, int]:
    [line] = [line for line in text.splitlines() if line.startswith("gradient of each part")]
    return {name: int(share) for name, share in SHARES.findall(line)}


def test_the_shares_are_of_the_loss_that_is_learned(
    small_config: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """With weights of classes that are counted in the training data, in detection and segmentation; and of both branches."""
    run = [str(small_config("detection")), *RUN]
    plain, balanced, dual = (
        _shares(diagnosed(capsys, *run, *keys)[1]) for keys in ((), ("loss.class_weights=balanced",), ("model.head=dual",))
    )
    assert plain.keys() == balanced.keys() == dual.keys() == {"box", "cls", "dfl"}
    assert plain["cls"] != balanced["cls"]
    keys = ("loss={class_weights: balanced, dice: 1}", "train.micro_batch=2")
    assert _shares(diagnosed(capsys, str(small_config("segmentation")), *keys)[1]).keys() == {"cross_entropy", "dice"}


def test_what_cannot_even_start_is_reported_in_one_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = diagnosed(capsys, str(config), *RUN, "freeze=[backbone, neck, head]")
    assert (code, len(text.strip().splitlines())) == (2, 1)
    assert "no trainable parameter" in text
    everything = "[pedestrian, people, bicycle, car, van, truck, tricycle, awning-tricycle, bus, motor]"
    drops = [f"data.train.0.drop={everything}", "data.train.1.drop=[car, bus]", "data.train.0.annotated=all"]
    code, text = diagnosed(capsys, str(config), *RUN, *drops, "data.train.1.annotated=all")
    assert (code, len(text.strip().splitlines())) == (2, 1)
    assert "no box" in text


def test_the_next_steps_of_a_run(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(1, config, "train.steps=10", *RUN, "optimizer.lr=1.0e-9")
    code, text = diagnosed(capsys, str(tmp_path / "run"))
    assert code == 1
    assert "over 10 steps of the run: loss" in text
    assert "The learning rate is far too small" in text
