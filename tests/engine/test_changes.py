"""A resumed run reports what has changed: keys, what follows for its statistics, and where it found nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import final_state, save_checkpoint, train

from ddptrain.config import RunConfig, load_config, resolve
from ddptrain.config.moved import check_moved, nothing_found
from ddptrain.engine.resume import config_changes, takes_group_norms
from ddptrain.errors import UserError


def of(config: Path, *overrides: str) -> RunConfig:
    return load_config(config, overrides)


def test_each_changed_key_is_a_line(config: Path) -> None:
    before = json.loads(of(config).model_dump_json())
    assert list(config_changes(before, of(config, "resume=auto", "slurm.nodes=3"))) == []
    now = of(config, "optimizer.lr=0.02", "data.augment.scale=0.1", "data.train.0.share=5", "loss.box=1", "data.image_size=96")
    assert list(config_changes(before, now)) == [
        "data.train.0.share: 2.0 → 5.0",
        "data.image_size: 64 → 96",
        "data.augment.scale: 0.5 → 0.1",
        "loss.box: 7.5 → 1.0",
        "optimizer.lr: 0.01 → 0.02",
    ]
    del before["ema"], before["data"]["augment"]["mosaic"]  # of a version that did not know them
    before["gone"] = 1
    before["data"]["balance"] = "oversample"  # of another task, spelled out in every config then
    assert list(config_changes(before, of(config, "ema.decay=0.5")))[-3:] == [
        "ema.decay: absent → 0.5",
        "ema.tau: absent → null",
        "gone: 1 → absent",
    ]


def test_a_resumed_run_reports_what_changed_and_what_follows(config: Path, tmp_path: Path) -> None:
    train(1, config, "model.norm=batch", "train.steps=2")
    other = ("model.norm=batch", "train.micro_batch=6", "data.image_size=96", "loss.box=1", "resume=auto")
    text = train(1, config, *other, "train.steps=3")
    log = (tmp_path / "run" / "log.txt").read_text()
    for line in (
        "resume: changed: train.steps: 2 → 3",
        "resume: changed: data.image_size: 64 → 96",
        "warning: resume: micro batch 12 on 1 rank before, 6 on 1 rank now: the model has batch norms, which normalise",
        "warning: resume: data.image_size was 64 and is 96: running statistics of the batch norms, averaged weights and",
        "warning: resume: the loss has changed",
        "will not be bit-equal to those of a run without this stop: micro batch 12 → 6",
    ):
        assert line in text
        assert line in log
    text = train(1, config, *other, "train.steps=3")
    assert "resume: from " in text
    assert "changed" not in text
    assert "warning: resume" not in text


def test_norms_of_one_sample_do_not_mind_the_split(config: Path) -> None:
    train(1, config, "train.steps=1")
    text = train(1, config, "train.steps=2", "train.micro_batch=6", "resume=auto")
    (line,) = (line for line in text.splitlines() if "warning: resume" in line)
    assert line.endswith("will not be bit-equal to those of a run without this stop: micro batch 12 → 6")
    assert "resume: changed: train.micro_batch: null → 6" in text


@pytest.mark.parametrize(
    ("task", "model", "takes"),
    [
        ("detection", ["model.norm=batch"], True),
        ("detection", ["model={name: yolo, backbone: resnet18}"], False),
        ("detection", ["model={name: fasterrcnn_resnet50_fpn}"], False),
        ("classification", ["model={name: small_resnet}"], True),
        ("classification", ["model={name: resnet18}"], False),
    ],
)
def test_group_norms_are_proposed_where_there_are_some(
    small_config: Callable[[str], Path], task: str, model: list[str], takes: bool
) -> None:
    assert takes_group_norms(of(small_config(task), *model)) == takes


def test_a_best_that_is_not_beaten_comes_along(config: Path, tmp_path: Path) -> None:
    train(1, config, "train.steps=2", "eval.every_steps=1")
    first, second = tmp_path / "run" / "checkpoints", tmp_path / "second" / "checkpoints"
    old = final_state(tmp_path / "run") | {"bests": {"AP": 2.0}}  # no evaluation beats it
    del old["best_steps"]  # as written by an older version: the link alone knows which one it is
    save_checkpoint(first, old, 2)
    elsewhere = (f"resume={first / 'step_00000002.pt'}", "train.steps=3")
    train(1, config, "name=second", *elsewhere)
    assert final_state(tmp_path / "second")["bests"] == {"AP": 2.0}
    assert (second / "best.pt").resolve() == second / "aside" / (first / "best.pt").resolve().name
    assert (second / "best.pt").read_bytes() == (first / "best.pt").read_bytes()
    (first / "best.pt").unlink()
    text = train(1, config, "name=third", *elsewhere)
    assert (
        "has no best.pt of step 2 or before: the best AP so far, 2, is forgotten, and the next evaluation will count as the "
        "best" in text
    )
    assert (tmp_path / "third" / "checkpoints" / "best.pt").exists()


def test_a_search_without_result_is_reported(config: Path, tmp_path: Path) -> None:
    text = train(1, config, "train.steps=1", "resume=auto")
    assert f"resume=auto: no checkpoint in {tmp_path}/run/checkpoints: a new run starts\n" in text
    (tmp_path / "run").rename(tmp_path / "renamed")
    line = nothing_found(of(config).folder)
    assert line.endswith(f"{tmp_path}/renamed holds a run of this name: continue it with output={tmp_path} name=renamed")

    moved = tmp_path / "renamed" / "config.yaml"
    text = train(1, moved, "resume=auto", expect=2)
    assert f"belongs to the run in {tmp_path}/renamed, but names {tmp_path}/run, which has no checkpoint" in text
    out = text.split("continue it with ")[1].split(", or")[0].split()
    assert "from step 1" in train(1, moved, "resume=auto", *out, "train.steps=2")
    assert not (tmp_path / "run").exists()


def test_a_config_in_its_own_folder_is_not_refused(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "step_00000001.pt").touch()
    own = folder.parent / "config.yaml"
    own.write_text(config.read_text())
    check_moved(own, of(own, "resume=auto"))
    with pytest.raises(UserError, match="it was moved or renamed"):
        check_moved(own, of(own, "resume=auto", "name=other"))
    check_moved(own, of(own, "name=other"))
    assert resolve({**json.loads(of(own).model_dump_json())}).folder == folder.parent
