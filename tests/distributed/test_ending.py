"""How a run ends when one rank cannot continue: all others end soon, and name the rank at fault."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist
from support import Ranks

from ddptrain import distributed
from ddptrain.cli import main
from ddptrain.distributed import Waiting, group, last_words, waiting
from ddptrain.distributed.peers import Peers
from ddptrain.engine.stop import StopFlag
from ddptrain.errors import RankFailed, RunFailed, UserError


def in_a_group(then: Callable[[int], None]) -> int:
    """A rank that meets the others and does something; what it prints says whether the group was closed."""
    rank = int(os.environ["RANK"])
    try:
        with StopFlag() as stop, distributed.process_group(distributed.discover("cpu"), 60.0, stop):
            then(rank)
    except (UserError, RunFailed) as e:
        print(f"rank {rank} raised {type(e).__name__}: {e}; open: {dist.is_initialized()}", flush=True)
        return 2 if isinstance(e, UserError) else 1
    return 0


def _bug_in_agree(rank: int) -> None:
    def build() -> None:
        if rank == 1:
            raise KeyError("no such column")

    distributed.agree(build, "reading the datasets")


def test_any_error_of_one_rank_in_what_all_do_reaches_the_others() -> None:
    """Rank 1 shows its traceback; the group stays open on it and on rank 0, which therefore end at once."""
    ranks = Ranks(2, in_a_group, _bug_in_agree)
    assert ranks.wait(60) == [1, 1], ranks.text
    words = "rank 0 raised RankFailed: rank 1 ended with KeyError: 'no such column' (in reading the datasets); open: True"
    assert words in ranks.text
    assert "Traceback" in ranks.text


def _main_alone(rank: int) -> None:
    def build() -> int:
        if rank:
            raise AssertionError("only rank 0 computes")
        return 7

    assert distributed.on_main(build, "the metrics of an evaluation") == 7
    gathered = distributed.gather_to_main(rank, "a test")
    assert gathered == ([0, 1] if rank == 0 else [])

    def refuse() -> None:
        raise RunFailed("too many bad images")

    distributed.on_main(refuse, "the metrics of an evaluation")


def test_what_rank_0_alone_computes_and_raises_reaches_all_and_the_group_is_closed() -> None:
    ranks = Ranks(2, in_a_group, _main_alone)
    assert ranks.wait(60) == [1, 1], ranks.text
    for rank in range(2):
        assert f"rank {rank} raised RunFailed: too many bad images; open: False" in ranks.text


def _killed(rank: int) -> None:
    """Rank 0 is in a wait for a GPU, in which nothing is noticed, and there in one for a collective."""
    waiting._LOOK_S = 1.0
    if rank == 1:
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    with Waiting("the launch of a step", on_device=True):
        with Waiting("the sums of a step"):
            pass
        with Waiting("the gradients of a step"):
            time.sleep(60)


def test_a_killed_rank_is_noticed_in_a_wait_for_a_gpu() -> None:
    began = time.monotonic()
    ranks = Ranks(2, in_a_group, _killed)
    assert ranks.wait(60) == [1, -signal.SIGKILL], ranks.text
    assert time.monotonic() - began < 40
    line = next(line for line in ranks.text.splitlines() if line.startswith("ddptrain: failed: rank 0 waited "))
    assert "s in the gradients of a step; rank 1 on " in line
    assert line.endswith(" died without a message (killed, or out of memory)")


def test_a_wait_inside_another_one_gives_back_to_it() -> None:
    with (outer := Waiting("the launch of a step", on_device=True)):
        with (inner := Waiting("the gradients of a step")):
            assert Waiting.now is inner
        assert Waiting.now is outer
    assert Waiting.now is None


class Store:
    """What the ranks have told, as torch's store gives it."""

    def __init__(self, rows: dict[str, str]) -> None:
        self.rows = rows

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.rows[key].encode() for key in keys]


def test_a_rank_of_another_machine_is_dead_when_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    far = '{"host": "far", "space": "another boot", "pid": 1, "start": ""}'
    store = Store({"at/0": "3 1 here", "at/1": "3 1 far", "process/0": far, "process/1": far})
    peers, now = Peers(0, ["here", "far"]), time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert peers.look(store) == [3, 3]
    for later, beat, dead in (
        (15, 1, []),
        (19, 2, []),
        (38, 2, []),
        (40, 2, ["rank 1 on far has not responded for 20 s"]),
    ):
        monkeypatch.setattr(time, "monotonic", lambda: now + later)  # noqa: B023
        store.rows["at/1"] = f"3 {beat} far"
        peers.look(store)
        assert list(peers.dead(store)) == dead, later


def _slow_start(rank: int) -> None:
    with Waiting("the start of the process group", on_device=True, limit_s=1.0):
        time.sleep(60)


def test_a_wait_with_a_limit_of_its_own_ends_there() -> None:
    began = time.monotonic()
    ranks = Ranks(2, in_a_group, _slow_start)
    assert ranks.wait(60) == [1, 1], ranks.text
    assert time.monotonic() - began < 30
    assert "ddptrain: failed: rank 0 waited 1." in ranks.text


def _stuck_elsewhere(rank: int) -> None:
    """Rank 1 fails while rank 0 waits in code that tells nobody."""
    waiting._STUCK_S = 2.0
    if rank == 1:
        raise RankFailed("out of luck")
    time.sleep(60)


def test_a_rank_that_gets_no_further_ends_too() -> None:
    ranks = Ranks(2, in_a_group, _stuck_elsewhere)
    assert ranks.wait(60) == [1, 1], ranks.text
    assert "failed: rank 0 is stuck; rank 1 ended with RankFailed: out of luck" in ranks.text


def _leaves_word_first(rank: int) -> None:
    """What rank 1 cleans up takes long; its word is there before, and its own watch leaves it alone."""
    waiting._LOST_S = waiting._STUCK_S = 1.0
    store = waiting.Waiting.group.store  # type: ignore[union-attr]
    if rank == 1:
        try:
            with group.last_word():
                raise RankFailed("out of luck")
        finally:
            time.sleep(5)
            print("cleaned up", flush=True)
    while not last_words.others(store, rank):
        time.sleep(0.05)
    print("heard", flush=True)
    raise RankFailed("heard it")


def test_word_is_left_before_a_rank_cleans_up() -> None:
    ranks = Ranks(2, in_a_group, _leaves_word_first)
    assert ranks.wait(60) == [1, 1], ranks.text
    assert ranks.text.index("heard") < ranks.text.index("cleaned up")


def _leave_in_the_middle(arguments: list[str]) -> int:
    """`ddptrain …`; rank 1 leaves word before its third loss, rank 0 is then in a wait that notices nothing."""
    from ddptrain.tasks.classification.task import ClassificationTask

    proper, calls = ClassificationTask.loss, 0
    waiting._LOST_S = 1.0

    def loss(self, model, batch):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls == 3:
            if os.environ["RANK"] == "1":
                raise ValueError("out of luck")
            with Waiting("the sums of a step", on_device=True):
                time.sleep(60)
        return proper(self, model, batch)

    ClassificationTask.loss = loss  # type: ignore[method-assign]
    return main(arguments)


def test_a_run_that_ends_in_a_wait_for_a_gpu_says_so_in_its_status(small_config: Callable[[str], Path], tmp_path: Path) -> None:
    """Its save is whole, and its status names the rank that failed."""
    config = small_config("classification")
    ranks = Ranks(2, _leave_in_the_middle, ["train", str(config), "train.steps=9", "checkpoint.every_steps=1"])
    assert ranks.wait(100) == [1, 1], ranks.text
    status = (tmp_path / "run" / "status.json").read_text()
    assert '"failed"' in status
    assert "rank 1 ended with ValueError: out of luck" in status
    assert (tmp_path / "run/checkpoints/step_00000002.pt").is_file()
