"""Fixtures of every test: a clean environment, no process left behind, small runs; and what makes the fast tier fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NoReturn

import processes
import pytest
import torch
from hypothesis import settings
from small_runs import RUNS, write_config

# how long one example takes says something about the machine, not about the code
settings.register_profile("ddptrain", deadline=None)
settings.load_profile("ddptrain")

ROOT = Path(__file__).resolve().parents[1]


STARTS = {
    "starts a process": ("subprocess.Popen.__init__", "multiprocessing.process.BaseProcess.start", "os.fork"),
    "trains": ("ddptrain.engine.trainer.train",),
    "compiles a network": ("torch.onnx.export", "torch.compile"),
}
"""What no test of the fast tier does."""
SLOW_FOLDERS = ("distributed", "faults", "slurm")
HEAVY_FILES = ("test_every_key.py", "test_docs_sampler.py", "test_torchvision_backbone.py", "test_torchvision_detectors.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="skip each test where it would start a process, train or compile")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Folders whose tests all start processes, and files with dozens of large networks, are not even read for the fast tier."""
    return True if config.getoption("fast") and collection_path.name in (*SLOW_FOLDERS, *HEAVY_FILES) else None


@pytest.fixture(scope="session", autouse=True)
def _fast(request: pytest.FixtureRequest) -> Iterator[None]:
    """With `--fast`, a test ends as skipped at the moment in which it would start a process, train or compile."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("fast"):
            for what, names in STARTS.items():

                def skip(*args: object, why: str = f"{what}: not in the fast tier", **options: object) -> NoReturn:
                    pytest.skip(why)

                for name in names:
                    patch.setattr(name, skip)
        yield


@pytest.fixture(autouse=True)
def _no_process_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test leaves running is killed, and the test fails. Jobs on Slurm are cancelled by a fixture of their own."""
    before = processes.pids()
    yield
    if request.node.get_closest_marker("slurm") is None and (lines := processes.end_those_left(before)):
        pytest.fail("the test left processes behind, which were killed:\n" + "\n".join(lines))


@pytest.fixture
def figures() -> None:
    """Runs of the test that asks for this draw their figures."""


@pytest.fixture(autouse=True)
def _no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw its curves takes a small run longer than to train: by default it finds no matplotlib."""
    if "figures" not in request.fixturenames:
        monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real images; a test that needs it skips in words where it is absent."""
    path = Path(os.environ.get("DDPTRAIN_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set DDPTRAIN_DATA to its folder")
    return path


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Parsed tables are cached in a folder of this test run, not in the user's; its processes can be told from others.

    Networks compute in one thread, as in ranks: threads of several workers would wait for each other's cores.
    """
    torch.set_num_threads(1)
    processes.mark()
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no processes that outlive a test
    os.environ["DDPTRAIN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _no_leaked_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test started inside torchrun or srun must not believe that it is a rank."""
    for key in list(os.environ):
        if key.startswith(("SLURM_", "TORCHELASTIC_")) or key in (
            "RANK",
            "WORLD_SIZE",
            "LOCAL_RANK",
            "LOCAL_WORLD_SIZE",
        ):
            monkeypatch.delenv(key)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the datasets of a task's small run, written once."""

    @cache
    def folder(task: str) -> Path:
        path = tmp_path_factory.mktemp(task)
        RUNS[task].write(path)
        return path

    return folder


@pytest.fixture
def small_config(small_data: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """The config of a task's small run: seconds, not minutes; the run's folder is `tmp_path / name`."""
    return lambda task: write_config(task, small_data(task), tmp_path)


@pytest.fixture(scope="session")
def scenes(small_data: Callable[[str], Path]) -> Path:
    """The two synthetic datasets of the demo, small."""
    return small_data("detection")


@pytest.fixture
def config(small_config: Callable[[str], Path]) -> Path:
    """A small joint run over `scenes`."""
    return small_config("detection")


CLUSTERS = 2
"""Workers that begin with tests on Slurm: each starts a cluster."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each of several workers gets an equal part of the tests, in order, and later takes some from the end of another's part.
    So that none is left alone at the end, a part begins with long tests: on Slurm, or that train long or wait for processes."""
    workers: int = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    clusters = min(workers, CLUSTERS)
    waiting = {*SLOW_FOLDERS, "launch"}
    kinds: tuple[list[pytest.Item], ...] = ([], [], [], [])
    slurm, trains, waits, rest = kinds
    for item in items:
        long = trains if item.get_closest_marker("learning") else waits if waiting & set(item.path.parts) else rest
        (slurm if item.get_closest_marker("slurm") else long).append(item)
    parts: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for kind, among in ((slurm, parts[:clusters]), (trains + waits, parts[clusters:] or parts)):
        for i, item in enumerate(kind):
            among[i % len(among)].append(item)
    for part in parts:
        room = max(0, -(-len(items) // workers) - len(part))
        part += rest[:room]
        del rest[:room]
    items[:] = [item for part in [*parts, rest] for item in part]
