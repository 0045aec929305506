"""Temporary folders: made with the name of their owner, and removed after it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ddptrain.system import temporary

OTHER = "ddptrain-loader.00000000.1.1.abc"


def left_by_a_killed_process(kind: str, parent: Path) -> Path:
    code = f"import os, sys; from pathlib import Path; from ddptrain.system import temporary; print(temporary.make({kind!r}, "
    code += "Path(sys.argv[1])), flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(parent)], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return Path(done.stdout.strip())


def test_only_what_dead_processes_of_this_user_left_is_removed(tmp_path: Path) -> None:
    dead = left_by_a_killed_process("table", tmp_path)
    (dead / "column.npy").write_bytes(b"x")
    old, young, foreign = tmp_path / f"{OTHER}old", tmp_path / f"{OTHER}young", tmp_path / "pymp-abc"
    for folder in (old, young, foreign):
        folder.mkdir()
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    os.utime(foreign, (0, 0))
    with temporary.folder("launch", tmp_path) as mine:
        temporary.sweep(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([mine.name, young.name, foreign.name])
        assert mine.name.startswith(f".ddptrain-launch.{mine.name.split('.')[2]}.{os.getpid()}.")
    assert not mine.exists()
    assert dead.name.split(".")[2] == mine.name.split(".")[2]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    name = left_by_a_killed_process("table", tmp_path).name
    (tmp_path / name).rmdir()
    (tmp_path / name).symlink_to(kept)
    temporary.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").exists()


def test_loader_workers_leave_nothing_of_unknown_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """multiprocessing would make a folder without an owner's name for each worker."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a socket's path has its limit
        _check_children(Path(short), monkeypatch)


def _check_children(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)  # type: ignore[attr-defined]
    temporary.for_children()
    made = multiprocessing.current_process()._config["tempdir"]  # type: ignore[attr-defined]
    assert Path(made).parent == folder
    assert f".{os.getpid()}." in made
    temporary.for_children()
    assert len(list(folder.iterdir())) == 1
