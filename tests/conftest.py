"""Fixtures of every test: where the real data is, and a clean environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real images; a test that needs it skips in words where it is absent."""
    path = Path(os.environ.get("DDPTRAIN_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set DDPTRAIN_DATA to its folder")
    return path


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
