"""Fixtures of every test: where the real data is, and a clean environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from small_runs import RUNS, write_config

# how long one example takes says something about the machine, not about the code
settings.register_profile("ddptrain", deadline=None)
settings.load_profile("ddptrain")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real images; a test that needs it skips in words where it is absent."""
    path = Path(os.environ.get("DDPTRAIN_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set DDPTRAIN_DATA to its folder")
    return path


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Parsed tables are cached in a folder of this test run, not in the user's."""
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tests first: where several run at a time, none is left alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
