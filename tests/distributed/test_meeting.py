"""Ranks that wait for each other say for whom, and nobody waits for one that has left word of its end."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Ranks, free_port

from ddptrain import distributed
from ddptrain.cli import main
from ddptrain.distributed import Waiting, meeting, waiting
from ddptrain.engine.stop import StopFlag
from ddptrain.errors import RankFailed, UserError


def join(environ: dict[str, str], timeout_s: float = 60.0, then: Callable[[], None] | None = None) -> int:
    """A rank that only meets the others, in short intervals; errors are reported as on the command line."""
    os.environ.update(environ)
    meeting.EVERY_S = waiting.EVERY_S = 0.5
    waiting._BEAT_S, waiting._LOST_S = 0.2, 1.0
    try:
        with StopFlag() as stop, distributed.process_group(distributed.discover("cpu"), timeout_s, stop):
            if then:
                then()
    except (UserError, RankFailed) as e:
        print(f"{type(e).__name__}: {e}", flush=True)
        return 2 if isinstance(e, UserError) else 1
    return 0


def place(rank: int, port: int | str, address: str = "127.0.0.1", size: int = 2) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": address, "MASTER_PORT": str(port)}


def wait_for(text: str, ranks: Ranks) -> None:
    until = time.monotonic() + 60
    while text not in ranks.text:
        assert time.monotonic() < until, ranks.text
        time.sleep(0.05)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_waits_alone_reports_for_whom_and_obeys_an_interrupt(rank: int) -> None:
    """A stale environment of an earlier shell."""
    port = free_port()
    ranks = Ranks(1, join, place(rank, port))
    whom = "rank 1" if rank == 0 else "rank 0, which holds the store,"
    environ = f"(the environment has RANK={rank} and WORLD_SIZE=2; `unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE` to train"
    wait_for(f"s at 127.0.0.1:{port} for {whom} to start {environ}", ranks)
    pid = ranks.processes[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    assert ranks.wait(20) == [130], ranks.text


def test_a_rank_that_nobody_joins_ends_after_its_time() -> None:
    port = free_port()
    ranks = Ranks(1, join, place(0, port, size=3), 1.0)
    assert ranks.wait(30) == [1]
    assert f"RankFailed: rank 0 of 3 waited 1 s at 127.0.0.1:{port} for ranks 1, 2 to start (the environment" in ranks.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"MASTER_PORT": "TAKEN"},
            "MASTER_PORT=TAKEN is used by another program on this machine, where rank 0 is to open it; set",
        ),
        (
            {"MASTER_PORT": "http"},
            "MASTER_PORT=http in the environment must be an integer from 1 to 65535; correct it, or `unset",
        ),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000 in the environment must be an integer from 1 to 65535"),
        ({"MASTER_PORT": ""}, "RANK=0 and WORLD_SIZE=2 are set in the environment and MASTER_PORT is not; `unset RANK"),
        ({"MASTER_ADDR": ""}, "RANK=0 and WORLD_SIZE=2 are set in the environment and MASTER_ADDR is not; `unset RANK"),
        (
            {"MASTER_ADDR": "old.invalid"},
            "MASTER_ADDR=old.invalid in the environment is not a host name that resolves here",
        ),
    ],
)
def test_a_place_that_cannot_be_is_refused_by_its_variable(
    change: dict[str, str], words: str, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        for key, value in (place(0, free_port()) | change).items():
            monkeypatch.setenv(key, value.replace("TAKEN", port))
        assert main(["train", str(config)]) == 2
    assert words.replace("TAKEN", port) in capsys.readouterr().err


def test_a_silent_service_at_the_place_is_no_reason_to_wait_in_silence() -> None:
    with socket.create_server(("", 0)) as silent:
        ranks = Ranks(1, join, place(1, silent.getsockname()[1]), 2.0)
        assert ranks.wait(30) == [1]
    assert "for rank 0, which holds the store, to start" in ranks.text


def test_two_ranks_with_one_number_are_distinguished() -> None:
    port = free_port()
    first = Ranks(1, join, place(0, port, size=3))
    twice = [Ranks(1, join, place(1, port, size=3)) for _ in range(2)]
    wait_for("for rank 2 to start", first)
    until = time.monotonic() + 30
    while not any("UserError" in t.text for t in twice) and time.monotonic() < until:
        time.sleep(0.05)
    text = "".join(t.text for t in twice)
    assert f"UserError: rank 1 is at MASTER_ADDR=127.0.0.1 MASTER_PORT={port} already: two starts share this address" in text
    for ranks in (first, *twice):
        ranks.processes[0].kill()


def _late() -> None:
    if os.environ["RANK"] == "1":
        time.sleep(2.5)
    distributed.agree(lambda: None, "reading the datasets")


def test_who_waits_in_a_collective_says_for_whom() -> None:
    ranks = Ranks(2, join, {}, 60.0, _late)
    assert ranks.wait() == [0, 0], ranks.text
    lines = [line for line in ranks.text.splitlines() if "has waited" in line and " to start" not in line]
    for line in lines:
        assert line.startswith("ddptrain: rank 0 has waited ")
        assert line.endswith(f"s in reading the datasets for rank 1 on {meeting.host()}")
    seconds = int(lines[-1].split()[5])
    assert 2 <= len(lines) <= 2 * seconds + 1, ranks.text  # one each half second, the last one rounded


def _deaf() -> None:
    """Rank 1 fails; the main thread of rank 0 is in a wait that does not notice, as in a kernel of NCCL."""
    if os.environ["RANK"] == "1":
        raise RankFailed("out of luck")
    with Waiting("the gradients of a step"):
        time.sleep(60)


def test_nobody_waits_for_a_rank_that_has_left_a_message_of_its_end() -> None:
    began = time.monotonic()
    ranks = Ranks(2, join, {}, 60.0, _deaf)
    assert ranks.wait() == [1, 1], ranks.text
    assert time.monotonic() - began < 40
    line = next(line for line in ranks.text.splitlines() if line.startswith("ddptrain: failed: rank 0 waited "))
    assert line.endswith("s in the gradients of a step; rank 1 ended with RankFailed: out of luck")


def test_an_interrupt_ends_a_wait_while_there_is_nothing_to_save() -> None:
    ranks = Ranks(2, join, {}, 60.0, _late_by_far)
    wait_for("has waited", ranks)
    pid = ranks.processes[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    assert ranks.wait(20) == [130, 1], ranks.text
    assert "rank 0: SIGINT while it waited in building the model: exiting, there is nothing to save yet" in ranks.text


def _late_by_far() -> None:
    if os.environ["RANK"] == "1":
        time.sleep(4)
    distributed.agree(lambda: None, "building the model")
