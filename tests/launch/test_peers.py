"""Machines that fall silent, as processes that share a real store."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import torch.distributed as dist

from launch import peers, rendezvous
from launch.peers import Peers

BEAT = """
import sys, time
from datetime import timedelta
from torch.distributed import TCPStore
from launch import peers
port, host, me, other = sys.argv[1:]
peers.BEAT_S = 0.05
store = TCPStore("localhost", int(port), is_master=host == me, wait_for_workers=False, timeout=timedelta(seconds=5))
peers.Peers(store, host, me, [other])
print(store.port, flush=True)
time.sleep(600)
"""


@pytest.fixture
def beat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts another machine, as a process that counts in a store."""
    monkeypatch.setattr(peers, "BEAT_S", 0.05)
    started: list[subprocess.Popen[str]] = []

    def start(port: int, host: str, me: str, other: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", BEAT, str(port), host, me, other]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(true: Callable[[], object], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_machine_is_silent_and_one_that_left_is_not(beat: Callable[..., subprocess.Popen[str]]) -> None:
    store, port = rendezvous.open_store([0])
    mine = Peers(store, "a", "a", ["b", "c"])
    other = beat(port, "a", "b", "a")
    until(lambda: mine.silent(0.2, came=False) == ["c"])
    until(lambda: mine.silent(0.2, came=False) == ["c"] and not mine.silent(2))
    other.kill()
    until(lambda: mine.silent(0.5) == ["b"])
    rendezvous.leave(store, "b", [])
    until(lambda: mine.silent(0.5) == [])


def test_a_lost_store_is_its_machine(beat: Callable[..., subprocess.Popen[str]]) -> None:
    host = beat(0, "a", "a", "b")
    assert host.stdout
    store = dist.TCPStore("localhost", int(host.stdout.readline()), is_master=False, timeout=timedelta(seconds=5))
    mine = Peers(store, "a", "b", ["a", "c"])
    until(lambda: mine.silent(0.2, came=False) == ["c"])
    host.kill()
    until(lambda: "a" in mine.silent(0.5))
    assert mine.silent(0.5) == ["a"]
