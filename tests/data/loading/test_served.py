"""Workers that a server forks, as for a trainer on a GPU: the same batches, tables in memory once, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loader_streams import Numbers, assert_equal

from ddptrain.data.loading.loader import Loader, LoaderError, Wait
from ddptrain.data.loading.shared import Shared
from ddptrain.structures import Sample, SampleKey
from ddptrain.system.processes import is_alive


class Table(Numbers):
    """With an array as long as those of a large dataset; the first pixel of each picture comes from it."""

    def __init__(self) -> None:
        super().__init__()
        self.column = np.arange(1 << 20, dtype=np.int64)

    def __getitem__(self, key: SampleKey) -> Sample:
        sample = super().__getitem__(key)
        sample.image[0, 0] = self.column[key.position]
        self.column[key.position] = 0  # a worker's own affair
        return sample


def keys(steps: int) -> Iterator[list[SampleKey]]:
    return iter([[SampleKey(4 * step + i, 0, i) for i in range(4)] for step in range(steps)])


def test_batches_are_the_same_and_the_arrays_are_in_memory_once() -> None:
    table = Table()
    with Loader(table, keys(6), 2, False, served=True) as served, Loader(Table(), keys(6), 0, False) as alone:
        first = next(served)
        for process in served.processes:
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            assert sum("memfd:samples" in line for line in maps.splitlines()) == 1
            parent = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
            assert parent != os.getpid()
        for a, b in zip([first, *served], alone, strict=True):
            assert_equal(a, b)
    assert (table.column == np.arange(1 << 20)).all()
    assert not any(p.is_alive() for p in served.processes)


def test_a_killed_worker_of_the_server_is_reported_in_one_line() -> None:
    loader = Loader(Numbers(at=8, action="die"), keys(30), 1, False, served=True)
    with pytest.raises(LoaderError, match=r"SIGKILL.*ran out of memory"):
        list(loader)


def test_samples_that_cannot_be_sent_are_forked_with_a_warning() -> None:
    lines: list[str] = []
    samples = Numbers()
    samples.act = lambda: None  # type: ignore[method-assign]
    with Loader(samples, keys(2), 1, False, Wait(report=lines.append), served=True) as loader:
        assert len(list(loader)) == 2
    assert len(lines) == 1
    assert lines[0].startswith("the samples of this task cannot be pickled (")


def test_an_object_without_arrays_is_sent_too() -> None:
    shared = Shared({"a": [1, 2]})
    assert Shared.open(shared) == {"a": [1, 2]}


TRAINER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_served import Loader, Numbers, keys
if __name__ == "__main__":
    loader = Loader(Numbers(), keys(9), 2, False, served=True)
    next(loader)
    print(*(p.pid for p in loader.processes), flush=True)
    input()
"""


def test_workers_and_server_end_with_a_killed_trainer(tmp_path: Path) -> None:
    """Stop signals to the whole group are the trainer's affair; kill -9 of the trainer ends all."""
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    folders = [str(Path(__file__).parents[2] / "helpers"), str(Path(__file__).parents[3])]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    trainer = subprocess.Popen(
        [sys.executable, str(script), str(Path(__file__).parent)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environ,
    )  # fmt: skip
    assert trainer.stdout is not None
    workers = [int(pid) for pid in trainer.stdout.readline().split()]
    assert len(workers) == 2
    server = int(Path(f"/proc/{workers[0]}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (*workers, server):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            os.kill(pid, number)
    time.sleep(0.5)
    assert all(is_alive(pid) for pid in (*workers, server))
    trainer.kill()
    trainer.communicate()
    until = time.monotonic() + 10
    while any(is_alive(pid) for pid in (*workers, server)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(is_alive(pid) for pid in (*workers, server))
