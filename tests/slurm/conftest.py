"""The private cluster, one for all tests, and places to submit from."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from private_slurm import PrivateSlurm, trackers
from slurm_jobs import Jobs, need_slurm

from launch import source


@pytest.fixture(scope="session")
def cluster() -> Iterator[PrivateSlurm]:
    """Two nodes, with the process tracker of production where it works here."""
    need_slurm()
    found = start(trackers())
    yield found
    found.__exit__()


def start(choice: list[str]) -> PrivateSlurm:
    """A cluster with the first tracker that works."""
    try:
        return PrivateSlurm(tracker=choice[0], gpus=2).__enter__()
    except (RuntimeError, TimeoutError, subprocess.TimeoutExpired):
        if len(choice) == 1:
            raise
        print(f"no Slurm with proctrack/{choice[0]} here")
        return start(choice[1:])


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy of the code for all jobs that do not test copying."""
    folder = tmp_path_factory.mktemp("code")
    source.copy(folder)
    return folder / "code"


@pytest.fixture
def slurm(cluster: PrivateSlurm, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """Submits jobs to the cluster from an environment of their own; those still there at the end are cancelled."""
    with Jobs(cluster, code, tmp_path, monkeypatch) as jobs:
        yield jobs
