"""`model.compile`: a compiled run is a function of its config and its seed, too; what cannot be compiled is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from run_states import state_of
from support import cut_back, train

import ddptrain
from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.config import load_config
from ddptrain.engine.batches import batches_from
from ddptrain.errors import UserError
from ddptrain.tasks.build import build_task


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.pt"


def test_a_compiled_run_has_the_same_bits_when_it_resumes_and_on_two_ranks(
    small_config: Callable[[str], Path], tmp_path: Path
) -> None:
    config = small_config("classification")
    split = ("train.micro_batch=6", "train.threads=1", "train.steps=4", "checkpoint={every_steps: 2, keep_last: 9}")
    run = ddptrain.train(config, "name=whole", "model.compile=true", *split)
    whole = load_checkpoint(last(Path(run.folder)))
    cut_back(tmp_path / "whole", tmp_path / "cut", 2)
    ddptrain.train(config, "name=cut", "model.compile=true", *split, "resume=auto")
    train(2, config, "name=two", "model.compile=true", *split)
    for name in ("cut", "two"):
        assert load_checkpoint(last(tmp_path / name)).digest == whole.digest, name
    eager = load_checkpoint(last(Path(ddptrain.train(config, "name=eager", *split).folder)))
    assert list(whole.state["model"]) == list(eager.state["model"])
    for part in ("model", "ema"):
        torch.testing.assert_close(whole.state[part], eager.state[part], rtol=1e-3, atol=1e-5)


NETWORKS = {
    "detection": ("model.norm=batch",),
    "segmentation": ("model.norm=batch",),
    "interaction": ("model.norm=batch",),
    "classification": ("model={name: small_resnet, blocks: 1, width: 8}",),
}


@pytest.mark.parametrize("task", NETWORKS)
def test_each_network_is_compiled_as_a_whole(
    small_config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """All but the making of machine code: without it a compiled network computes what it computes otherwise."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    learned = []
    for compiled in ("true", "false"):
        overrides = (*NETWORKS[task], f"model.compile={compiled}", "train.micro_batch=12")
        state = state_of(small_config(task), *overrides)
        assert (state.stepper.gradients.model is state.model) == (compiled == "false")
        built = build_task(load_config(small_config(task), list(overrides)))
        with batches_from(state, built) as loader:
            report = state.advance([next(loader)])
        assert report.updated
        learned.append(state.state_dict()["model"])
    assert list(learned[0]) == list(learned[1])
    torch.testing.assert_close(*learned)


def test_a_run_may_go_on_compiled(small_config: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    config = small_config("classification")
    ddptrain.train(config, "train.steps=4", "checkpoint={every_steps: 2, keep_last: 9}")
    cut_back(tmp_path / "run", tmp_path / "cut", 2)
    ddptrain.train(config, "name=cut", "train.steps=4", "checkpoint={every_steps: 2}", "model.compile=true", "resume=auto")
    log = (tmp_path / "cut" / "log.txt").read_text()
    assert "model.compile: false → true" in log
    assert "the first step compiles the network" in log
    whole, cut = (load_checkpoint(last(tmp_path / name)) for name in ("run", "cut"))
    torch.testing.assert_close(whole.state["model"], cut.state["model"])


SSD = "model={name: ssdlite320_mobilenet_v3_large}"


@pytest.mark.parametrize(
    ("task", "overrides", "why"),
    [
        ("detection", ("model.checkpointing=true",), "does not support model.checkpointing; keep one of them"),
        ("detection", ("model.norm=sync",), "does not support model.norm: sync, .*; use another norm"),
        ("detection", (SSD, "data.allow_missing_annotations=true"), "does not support ssdlite.*; remove it"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    small_config: Callable[[str], Path], task: str, overrides: tuple[str, ...], why: str
) -> None:
    with pytest.raises(UserError, match=f"^model.compile: {why}$"):
        state_of(small_config(task), *overrides, "model.compile=true")
