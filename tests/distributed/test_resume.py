"""A run that was stopped or killed anywhere, and resumed, ends bit-equal to one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import RUNS
from support import Ranks, command_line, cut_back, equal, final_state, in_turn, train

from ddptrain.cli import main

RUN = ("train.steps=12", "checkpoint.every_steps=3", "eval.every_steps=6", "model.norm=batch", "train.precision=none")


def break_off(ranks: Ranks, run: Path, how: signal.Signals, whom: str, after_step: int) -> list[int]:
    """Send a signal once the checkpoint of `after_step` is there; the ranks' exit statuses."""
    end = time.monotonic() + 90
    while not (run / "checkpoints" / f"step_{after_step:08d}.pt").exists():
        assert time.monotonic() < end, ranks.text
        assert all(p.is_alive() for p in ranks.processes), ranks.text
        time.sleep(0.02)
    for p in ranks.processes if whom == "all" else ranks.processes[-1:]:
        os.kill(p.pid, how)
    return ranks.wait()


@pytest.mark.parametrize(
    ("world_size", "workers", "workers_after", "how", "whom"),
    [(1, 0, 1, signal.SIGKILL, "all"), (1, 3, 0, signal.SIGTERM, "all"), (2, 1, 3, signal.SIGUSR1, "one")],
)
def test_stopped_and_resumed_is_bit_equal(
    config: Path, tmp_path: Path, world_size: int, workers: int, workers_after: int, how: signal.Signals, whom: str
) -> None:
    train(world_size, config, "name=calm", *RUN)
    ranks = Ranks(world_size, command_line, ["train", str(config), "name=broken", *RUN, f"data.workers={workers}"])
    codes = break_off(ranks, tmp_path / "broken", how, whom, after_step=3)
    state = json.loads((tmp_path / "broken" / "status.json").read_text())
    if how == signal.SIGKILL:
        assert codes == [-9] * world_size
    else:
        # 75 alone, 0 as a rank that torchrun must not restart; and no rank stops at another step
        assert codes == [75 if world_size == 1 else 0] * world_size, ranks.text
        assert state["state"] == "stopped"
        assert state["reason"] == how.name
    assert state["step"] < 12
    text = train(world_size, config, "name=broken", *RUN, "resume=auto", f"data.workers={workers_after}")
    assert "finished at step 12" in text
    equal(final_state(tmp_path / "calm"), final_state(tmp_path / "broken"))
    rows = [p.read_text() for p in (tmp_path / "calm" / "history.csv", tmp_path / "broken" / "history.csv")]
    assert rows[0] == rows[1]


@pytest.mark.timeout(1200)
def test_a_run_of_any_task_resumes_as_if_never_interrupted(small_config: Callable[[str], Path], tmp_path: Path) -> None:
    """Killed after its first and its fifth step, in mid-epoch, on two ranks; gone on with other numbers of loader workers."""
    steps = ("train.steps=7", "eval.every_steps=3", "checkpoint.every_steps=1", "checkpoint.keep_last=9")
    commands = {task: ["train", str(small_config(task)), *steps, *run.norms] for task, run in RUNS.items()}
    in_turn(2, [[*command, f"name={task}"] for task, command in commands.items()])
    again = []
    for task, command in commands.items():
        for step, workers in ((1, 3), (5, 1)):
            cut_back(tmp_path / task, tmp_path / f"{task}{step}", step)
            again.append([*command, f"name={task}{step}", "resume=auto", f"data.workers={workers}"])
    in_turn(2, again)
    for task in RUNS:
        calm = tmp_path / task
        history = (calm / "history.csv").read_text()
        assert {"lr", "train/loss", "loss"} <= set(history.partition("\n")[0].split(","))
        for cut in (tmp_path / f"{task}1", tmp_path / f"{task}5"):
            equal(final_state(calm), final_state(cut))
            assert (cut / "history.csv").read_text() == history


def test_a_run_folder_is_never_overwritten_and_another_run_never_resumed(config: Path, tmp_path: Path) -> None:
    train(1, config, "train.steps=2")
    before = sorted(p.name for p in (tmp_path / "run").rglob("*"))
    assert "this run already exists" in train(1, config, "train.steps=2", expect=2)
    text = train(1, config, "train.steps=4", "train.global_batch=24", "resume=auto", expect=2)
    assert "global_batch differ" in text
    assert "resume.allow=[global_batch]" in text
    assert len(text.strip().splitlines()) == 1
    assert sorted(p.name for p in (tmp_path / "run").rglob("*")) == before
    text = train(1, config, "train.steps=4", "optimizer.name=adamw", "resume=auto", expect=2)
    assert "optimizer.name was sgd and is adamw" in text
    train(1, config, "train.steps=4", "train.global_batch=24", "resume.source=auto", "resume.allow=[global_batch]")
    text = train(1, config, "train.steps=4", "train.global_batch=24", "resume=auto")
    assert "from step 4 to step 4" in text
    assert "a new run starts" not in text


@pytest.mark.parametrize(
    ("change", "what", "shown"),
    [
        ("data.train.1.share=2", "datasets", "streets: 24 images, share 1.0"),
        ("data.train.1.name=lanes", "datasets", "lanes: 24 images, share 1.0"),
        ("classes=[bus, car, pedestrian]", "classes", "['car', 'bus', 'pedestrian'], the config ['bus', 'car', 'pedestrian']"),
        ("seed=5", "seed", "the checkpoint has 0, the config 5"),
    ],
)
def test_what_makes_another_run_is_refused_and_may_be_allowed(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, what: str, shown: str
) -> None:
    """Both sides are shown; `resume.allow` takes the difference by its name, and only that one."""
    assert main(["train", str(config), "train.steps=1"]) == 0
    go_on = ["train", str(config), "train.steps=2", change, "resume.source=auto"]
    other = "seed" if what != "seed" else "classes"
    for allow in ([], [f"resume.allow=[{other}]"]):
        assert main([*go_on, *allow]) == 2
        output = capsys.readouterr().err
        verb = "differ" if what.endswith("s") else "differs"
        assert f"cannot resume: {what} {verb}: the checkpoint has " in output
        assert shown in output
        assert len(output.strip().splitlines()) == 1
    assert main([*go_on, f"resume.allow=[{what}]"]) == 0
    assert final_state(tmp_path / "run")["step"] == 2
