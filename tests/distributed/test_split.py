"""The promise: with a fixed micro batch a run has the same bits on any number of ranks; another micro batch changes what is
learned by rounding at most, where no norm layer looks at other samples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import RUNS
from support import Ranks, command_line, cut_back, equal, final_state, in_turn, largest_difference, relative_difference, train

from ddptrain.config import load_config
from ddptrain.structures import Batch, LossSum
from ddptrain.tasks.build import build_task

SmallConfig = Callable[[str], Path]
# clipping must bite, the average and the warm-up must matter in a few steps
EVERYTHING = (
    "train.clip_norm=1.0",
    "optimizer.lr=0.01",
    "optimizer.weight_decay=0.01",
    "schedule.warmup_epochs=2",
    "ema.tau=5.0",
)
TWELVE = ("train.global_batch=12", "train.micro_batch=1")
STEPS = 20
OWN = {
    "classification": ("model.dropout=0.3",),
    "interaction": ("model.dropout=0.3",),
    "segmentation": ("data.image_size=32",),  # a CPU that emulates bf16 takes minutes
}


def same_run(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Two checkpoints are equal to the last bit, but for the number of ranks that wrote them."""
    equal(a, b | {"ranks": a["ranks"]})


@pytest.mark.timeout(1200)
def test_any_number_of_ranks_has_the_same_bits(small_config: SmallConfig, tmp_path: Path) -> None:
    """Of any task, with batch norms, dropout, bf16 and all that acts on gradients and weights: uninterrupted; killed on four
    ranks, resumed on one, killed again, and resumed on three."""
    commands = {}
    for task, run in RUNS.items():
        length = (f"train.steps={STEPS}", "checkpoint.every_steps=3", "checkpoint.keep_last=99")
        options = (*run.norms, *OWN.get(task, ()), *EVERYTHING, *TWELVE, "train.precision=bf16", "train.threads=1", *length)
        commands[task] = ["train", str(small_config(task)), *options]
    for ranks in (4, 1, 3, 2):
        cases = [[*command, f"name={task}-{ranks}"] for task, command in commands.items()]
        if ranks == 1:
            for task in RUNS:
                cut_back(tmp_path / f"{task}-4", tmp_path / f"{task}-often", 9)
        if ranks == 3:
            for task in RUNS:
                (tmp_path / f"{task}-often").rename(tmp_path / f"{task}-once")
                cut_back(tmp_path / f"{task}-once", tmp_path / f"{task}-often", 12)
        if ranks in (1, 3):
            cases += [[*command, f"name={task}-often", "resume=auto"] for task, command in commands.items()]
        texts = in_turn(ranks, cases)
        assert all("the same bits on 1, 2, 3, 4, 6 or 12 ranks" in text for text in texts)
        assert not any("warning: resume" in text for text in texts)
    for task in RUNS:
        first = final_state(tmp_path / f"{task}-1")
        for other in ("2", "3", "4", "often"):
            same_run(first, final_state(tmp_path / f"{task}-{other}"))
        learned = final_state(tmp_path / f"{task}-4")["model"]
        early = torch.load(tmp_path / f"{task}-4/checkpoints/step_00000003.pt", weights_only=True)["model"]
        assert relative_difference(early, learned) > 1e-3, task  # they do not agree because nothing moved


def _with_faults(arguments: Sequence[str]) -> int:
    """`ddptrain train` with images that cannot be read any more, and a gradient of nan from the sample at position 14."""
    from ddptrain.data.samples import plans
    from ddptrain.tasks.detection.task import DetectionTask

    proper, read = DetectionTask.loss, plans.read_image

    def read_image(path: str, *options: Any) -> Any:
        if "skyview" in path and "train" in path and int(Path(path).stem) % 6 == 0:
            raise plans.BadImage(f"{path}: gone")
        return read(path, *options)

    def loss(self: Any, model: torch.nn.Module, batch: Batch) -> LossSum:
        if not len(batch.targets["boxes"]):
            print("a micro batch without labels")
        found = proper(self, model, batch)
        return replace(found, total=found.total * torch.nan) if 14 in batch.keys[:, 0].tolist() else found

    DetectionTask.loss, plans.read_image = loss, read_image  # type: ignore[assignment, method-assign]
    return command_line(arguments)


def test_what_goes_wrong_on_one_of_three_ranks_goes_wrong_alike_on_one(config: Path, scenes: Path, tmp_path: Path) -> None:
    """A sample that stands in for an unreadable one, micro batches without any label, and a step that is skipped."""
    root = tmp_path / "skyview"
    shutil.copytree(scenes / "skyview", root)
    for labels in sorted((root / "VisDrone2019-DET-train" / "annotations").iterdir())[1::2]:
        labels.write_text("")
    options = ("model.norm=batch", *EVERYTHING, "train.global_batch=6", "train.micro_batch=2", "train.steps=8")
    states = []
    for ranks in (1, 3):
        command = ["train", str(config), f"name=w{ranks}", f"data.train.0.root={root}", "data.augment.mosaic=0", *options]
        started = Ranks(ranks, _with_faults, command)
        assert started.wait() == [0] * ranks, started.text
        assert "a micro batch without labels" in started.text
        states.append(final_state(tmp_path / f"w{ranks}"))
    assert states[0]["skipped"] == 1
    assert states[0]["replaced"] > 0
    same_run(*states)


def test_another_micro_batch_changes_nothing_but_rounding(small_config: SmallConfig, tmp_path: Path) -> None:
    """Of any task, without norms that look at other samples; and so does the fast reduction on two ranks."""
    options = ("train.global_batch=16", "train.steps=6", "optimizer.name=sgd", *EVERYTHING)
    commands = {task: ["train", str(small_config(task)), *run.exact, *options] for task, run in RUNS.items()}
    for ranks, name, micro, reduction in ((1, "whole", 16, "ordered"), (1, "parts", 4, "ordered"), (2, "fast", 4, "fast")):
        split = (f"train.micro_batch={micro}", f"train.reduction={reduction}")
        in_turn(ranks, [[*command, f"name={task}-{name}", *split] for task, command in commands.items()])
    for task in RUNS:
        first, *others = (final_state(tmp_path / f"{task}-{name}") for name in ("whole", "parts", "fast"))
        for other in others:
            assert relative_difference(first["model"], other["model"]) < 1e-5, task
            assert relative_difference(first["ema"], other["ema"]) < 1e-5, task
            assert other["position"] == first["position"]
            assert other["samples_by_dataset"] == first["samples_by_dataset"]


def test_an_epoch_that_does_not_divide_leaves_no_rest(config: Path, tmp_path: Path) -> None:
    """Two epochs of 16 samples in steps of 12: the run is three whole steps, the middle one in both, for any split."""
    states = []
    for ranks in (1, 2):
        options = ("train.steps=null", "train.epochs=2", "data.samples_per_epoch=16", "train.micro_batch=3")
        train(ranks, config, f"name=w{ranks}", "model.norm=batch", *options)
        states.append(final_state(tmp_path / f"w{ranks}"))
        assert (states[-1]["step"], states[-1]["position"], sum(states[-1]["samples_by_dataset"])) == (3, 36, 36)
    same_run(*states)


def test_sync_norm_over_two_ranks_is_one_rank(config: Path, tmp_path: Path) -> None:
    """With the same accumulation: statistics over 2 x 8 samples are those over 16."""
    states = []
    for ranks in (1, 2):
        batch = ("train.global_batch=16", f"train.micro_batch={16 // ranks}", "optimizer.name=sgd")
        train(ranks, config, f"name=w{ranks}", "model.norm=sync", *EVERYTHING, "train.steps=3", *batch)
        states.append(final_state(tmp_path / f"w{ranks}"))
    assert largest_difference(states[0]["model"], states[1]["model"]) < 1e-5


@pytest.mark.timeout(900)
def test_metric_is_the_same_on_one_two_and_three_ranks(small_config: SmallConfig, tmp_path: Path) -> None:
    """Of any task, for the same weights: exactly equal metrics from unpadded shards, also where a rank has no sample at all."""
    in_turn(1, [["train", str(small_config(task)), f"name={task}", "train.steps=12"] for task in RUNS])
    tasks = {task: build_task(load_config(tmp_path / task / "config.yaml")) for task in RUNS}
    commands = []
    for name, task in tasks.items():
        half = -(-sum(size for _, size in task.val) // 2)  # two groups: the third rank has none
        commands.append(["eval", str(tmp_path / name), f"eval.batch={half}", "--json"])
    for one, two, three, task in zip(*(in_turn(world_size, commands) for world_size in (1, 2, 3)), tasks.values(), strict=True):
        assert json.loads(one[one.index("{") :])[task.monitors[0]] is not None  # behind what is said on stderr
        assert one == two == three
