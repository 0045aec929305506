"""Faults of running, injected for real into real ranks: bad steps, vanished images, ranks that raise, dawdle or are killed."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import RUNS
from support import Ranks, command_line, equal, final_state, largest_difference, summary, train

from ddptrain.config import load_config
from ddptrain.structures import SampleKey
from ddptrain.tasks.build import build_task


def wait_for(condition: Callable[[], object], ranks: Ranks | None = None, timeout: float = 90) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, ranks.text if ranks else "too late"
        assert ranks is None or any(p.is_alive() for p in ranks.processes), ranks.text
        time.sleep(0.01)


def checkpoint_at(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step_{step:08d}.pt"


def children(pid: int) -> list[int]:
    """Child processes, of whatever thread started them."""
    return [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]


def status(run: Path) -> dict[str, str]:
    return dict(json.loads((run / "status.json").read_text()))


# --- steps without a finite gradient


BLOWN_UP = ("optimizer.name=sgd", "optimizer.lr=1e20", "train.clip_norm=null", "schedule.warmup_epochs=0")


def test_bad_steps_leave_evidence_and_end_the_run(config: Path, tmp_path: Path) -> None:
    """A learning rate that sends the weights to infinity in one update: every later step is bad, on both ranks alike."""
    text = train(2, config, *BLOWN_UP, "train.steps=20", "train.max_bad_steps=2", "checkpoint.every_steps=1", expect=1)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "step 2: the loss is not finite (box " in log
    assert "3 in a row" in log
    assert "loss nan: skyview: " in log
    assert text.count("ddptrain: failed: 3 steps in a row") == 1
    assert "resume=" in text
    assert "Traceback" not in text
    assert status(tmp_path / "run")["state"] == "failed"
    assert final_state(tmp_path / "run")["step"] == 1

    kept = sorted((tmp_path / "run" / "bad_steps").iterdir())
    assert [p.name for p in kept] == [f"step_00000002_position_{n}.pt" for n in (12, 24, 36)]
    known = torch.load(kept[0], weights_only=True)
    assert sorted(known["keys"][:, 0].tolist()) == list(range(12, 24))
    assert not known["losses"].isfinite().any()
    # keys and config are all that a replay needs
    task = build_task(load_config(config))
    assert [task.train.source(SampleKey(*k)) for k in known["keys"].tolist()] == known["files"]
    assert known["config"] == final_state(tmp_path / "run")["config"]
    # one update was made: the weights are those that it left, in the first of several files that share them
    equal(known["model"], final_state(tmp_path / "run")["model"])
    assert ["model" in torch.load(path, weights_only=True) for path in kept] == [True, False, False]


def test_a_bad_step_is_replayed_as_the_docs_say(config: Path, tmp_path: Path) -> None:
    """The same losses come out again, nan by nan: fresh weights would give finite ones."""
    page = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    train(2, config, *BLOWN_UP, "train.steps=20", "train.max_bad_steps=0", "train.micro_batch=3", expect=1)
    file = tmp_path / "run" / "bad_steps" / "step_00000002_position_12.pt"
    names: dict[str, Any] = {"print": lambda parts, each: seen.append((parts, each))}
    seen: list[tuple[dict[str, torch.Tensor], torch.Tensor]] = []
    exec(code.replace("runs/x/bad_steps/step_00000002_position_12.pt", str(file)), names)
    known = torch.load(file, weights_only=True)
    assert [len(each) for _, each in seen] == known["sizes"] == [3, 3, 3, 3]
    for (parts, _), stored in zip(seen, known["parts"], strict=True):
        assert {k: float(v) for k, v in parts.items()} == pytest.approx(stored, rel=1e-5, nan_ok=True)


# --- samples that cannot be read


@pytest.mark.parametrize(("limit", "code"), [(1000, 0), (3, 1)])
def test_images_vanish_in_mid_training(config: Path, scenes: Path, tmp_path: Path, limit: int, code: int) -> None:
    root = tmp_path / "disk"
    shutil.copytree(scenes / "skyview", root)
    options = [f"data.train.0.root={root}", f"data.max_bad_samples={limit}", "data.samples_per_epoch=16", "train.steps=60"]
    ranks = Ranks(2, command_line, ["train", str(config), *options, "checkpoint.every_steps=2"])
    wait_for(checkpoint_at(tmp_path / "run", 2).exists, ranks)
    images = sorted((root / "VisDrone2019-DET-train" / "images").iterdir())
    for number, image in enumerate(images[::2]):
        if number % 2:
            image.unlink()
        else:
            image.write_bytes(image.read_bytes()[:1000])
    assert ranks.wait() == [code] * 2, ranks.text
    log = (tmp_path / "run" / "log.txt").read_text()
    named = [image for image in images[::2] if f"{image}: " in log]
    assert named
    assert "; replaced by " in log
    if code:
        assert ranks.text.count("more than data.max_bad_samples=3") == 1
        assert status(tmp_path / "run")["state"] == "failed"
    else:
        lines = [line for line in log.splitlines() if "; replaced by " in line]
        assert len(lines) == summary(tmp_path / "run")["replaced_samples"] > 3


# --- ranks that are lost


def _misbehave(how: str, arguments: list[str]) -> int:
    """`ddptrain …`, but rank 1 does something else instead of its third loss."""
    from ddptrain.tasks.detection.task import DetectionTask

    calls = 0
    proper = DetectionTask.loss

    def loss(self, model, batch):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls == 3 and os.environ["RANK"] == "1":
            if how == "raise":
                raise ValueError("out of luck")
            if how == "sleep":
                time.sleep(600)
            os.kill(os.getpid(), signal.SIGKILL)
        return proper(self, model, batch)

    DetectionTask.loss = loss  # type: ignore[method-assign]
    return command_line(arguments)


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("raise", "rank 1 ended with ValueError: out of luck"),
        ("sleep", "rank 1 did not arrive"),
        ("kill", "rank 1 did not arrive"),
    ],
)
def test_no_rank_waits_for_ever(config: Path, tmp_path: Path, how: str, cause: str) -> None:
    started = time.monotonic()
    ranks = Ranks(2, _misbehave, how, ["train", str(config), "train.steps=100", "train.timeout_s=8"])
    first, second = ranks.processes
    first.join(100)
    code = first.exitcode
    second.kill()
    second.join()
    assert code == 1, ranks.text
    line = next(line for line in ranks.text.splitlines() if line.startswith("ddptrain: failed: rank 0 waited"))
    assert "in the gradients of a step" in line
    assert cause in line
    assert status(tmp_path / "run")["state"] == "failed"
    assert "rank 0 waited" in status(tmp_path / "run")["reason"]
    if how == "sleep":
        assert time.monotonic() - started > 8
        assert 7 < float(line.split("waited ")[1].split()[0]) < 60


def test_a_killed_loader_worker_is_reported_in_one_line(config: Path, tmp_path: Path) -> None:
    """The killer of processes that ran out of memory takes one worker of rank 1."""
    options = ["data.workers=2", "train.steps=10000", "checkpoint.every_steps=2"]
    ranks = Ranks(2, command_line, ["train", str(config), *options])
    wait_for(checkpoint_at(tmp_path / "run", 2).exists, ranks)
    rank = ranks.processes[1].pid
    assert rank is not None
    os.kill(children(rank)[0], signal.SIGKILL)
    assert ranks.wait() == [1, 1], ranks.text
    assert "failed: a loader process ended (SIGKILL; data.workers is 2): most likely" in ranks.text
    assert "rank 1 ended with LoaderError" in ranks.text
    assert "Traceback" not in ranks.text


CALM = ("train.steps=40", "checkpoint.every_steps=2", "eval.every_steps=20", "data.workers=1")


def launch_and_lose_a_rank(config: Path, log: Path, lose: Callable[[], object], *overrides: str) -> str:
    """What `ddptrain launch --max-restarts 1` says of which a rank is killed once `lose()`; its run must finish."""
    command = [sys.executable, "-m", "ddptrain", "launch", str(config), "--nproc", "2", "--max-restarts", "1", *overrides]
    with log.open("w") as out:
        agent = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(lose)
        ranks = [p for p in children(agent.pid) if b"launch.worker" in Path(f"/proc/{p}/cmdline").read_bytes()]
        os.kill(ranks[-1], signal.SIGKILL)
        assert agent.wait(300) == 0, log.read_text()
    finally:
        agent.kill()
        agent.wait()
    return log.read_text()


def test_torchrun_restarts_a_run_that_lost_a_rank(config: Path, tmp_path: Path) -> None:
    train(2, config, "name=calm", *CALM)
    saved = checkpoint_at(tmp_path / "restarted", 4)
    text = launch_and_lose_a_rank(config, tmp_path / "launch.txt", saved.exists, "name=restarted", *CALM)
    assert "from step" in text, text
    a, b = final_state(tmp_path / "calm"), final_state(tmp_path / "restarted")
    assert a["step"] == b["step"] == 40
    assert largest_difference(a["model"], b["model"]) == largest_difference(a["ema"], b["ema"]) == 0


def test_a_restart_before_the_first_checkpoint_keeps_the_start_that_was_given(config: Path, tmp_path: Path) -> None:
    """With a best.pt that comes along from there and a difference that was accepted."""
    few = "train.global_batch=4"
    train(2, config, "name=source", "train.steps=2", "eval.every_steps=2", "checkpoint.every_steps=2", few)
    log = tmp_path / "run" / "log.txt"
    given = (f"resume={tmp_path}/source", "resume.allow=[seed]", "seed=5", "train.steps=30", "checkpoint.every_steps=40", few)
    text = launch_and_lose_a_rank(
        config, tmp_path / "launch.txt", lambda: log.exists() and "step 3/" in log.read_text(), *given
    )
    assert text.count(f"resume: from {tmp_path}/source/checkpoints/step_00000002.pt") == 2, text
    assert "no checkpoint of its own yet: starting from" in text
    assert final_state(tmp_path / "run")["step"] == 30


@pytest.mark.timeout(1200)
def test_twenty_random_kills_end_where_an_undisturbed_run_ends(small_config: Callable[[str], Path], tmp_path: Path) -> None:
    """kill -9 of one rank or both at any moment: starting, stepping, saving, evaluating. With the smallest network that has
    running statistics."""
    config, norms = small_config("classification"), RUNS["classification"].norms
    run = ("train.steps=120", "checkpoint.every_steps=3", "eval.every_steps=40", "data.workers=1", *norms)
    train(2, config, "name=calm", *run)
    rng, broken, reached, span = random.Random(0), tmp_path / "broken", {0}, 0.6
    for _ in range(20):
        ranks = Ranks(2, command_line, ["train", str(config), "name=broken", *run, "resume=auto"])
        # the clock of the dice starts with the first sign of life
        wait_for(lambda: "global batch" in ranks.text, ranks)  # noqa: B023
        time.sleep(rng.uniform(0, span))
        for process in ranks.processes if rng.random() < 0.5 else [rng.choice(ranks.processes)]:
            process.kill()
        codes = ranks.wait()
        assert -signal.SIGKILL in codes or codes == [0, 0], ranks.text
        before, step = max(reached), 0
        if any((broken / "checkpoints").glob("step_*.pt")):
            step = final_state(broken)["step"]
            assert step >= before
        reached.add(step)
        # a slow machine gets more time, a fast one is not let through to the end
        span *= 1.5 if step == before else 0.8
    text = train(2, config, "name=broken", *run, "resume=auto")
    assert len(reached) > 3, f"the kills met the run at {reached} only: the test proves nothing"
    assert "finished at step 120" in text
    a, b = final_state(tmp_path / "calm"), final_state(broken)
    assert largest_difference(a["model"], b["model"]) == largest_difference(a["ema"], b["ema"]) == 0
    assert (tmp_path / "calm" / "history.csv").read_text() == (broken / "history.csv").read_text()
