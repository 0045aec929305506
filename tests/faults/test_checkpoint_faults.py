"""Faults of saving and reading, injected for real: damaged files, full disks, lost folders, kills in the middle."""

import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from ddptrain.engine import checkpoint
from ddptrain.engine.writer import CheckpointWriter
from ddptrain.errors import UserError


def _state(step: int, size: int = 250_000) -> dict:
    return {"weight": torch.full((size,), float(step)), "counts": [step] * 3}


def _complete(state: dict) -> bool:
    """Every part of the state is of the same step."""
    return bool(torch.all(state["weight"] == state["step"])) and state["counts"] == [state["step"]] * 3


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def _damage(path: Path, kind: str) -> None:
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "zero-length":
        path.write_bytes(b"")
    elif kind == "bit-flipped":
        middle = len(data) // 2  # inside the weights: only a checksum can tell
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif kind == "foreign":
        torch.save({"weight": torch.zeros(3)}, path)
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        torch.save({"format": checkpoint.FORMAT, "step": 30, "x": _Bomb(path.with_name("run-by-the-pickle"))}, path)


KINDS = ["truncated", "zero-length", "bit-flipped", "foreign", "text", "folder", "malicious"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_newest_falls_back_aloud(tmp_path: Path, kind: str) -> None:
    for step in (10, 20, 30):
        checkpoint.save(tmp_path, _state(step, 1000), step)
    _damage((tmp_path / "last.pt").resolve(), kind)
    said: list[str] = []
    found = checkpoint.newest_valid(tmp_path, said.append)
    assert found is not None
    assert found[0].name == "step_00000020.pt"
    assert _complete(found[1])
    assert len(said) == 1
    assert "step_00000030.pt (last.pt): " in said[0]
    assert not (tmp_path / "run-by-the-pickle").exists()
    with pytest.raises(UserError, match=r"last\.pt: [^\n]+$"):
        checkpoint.load(tmp_path / "last.pt" if kind != "folder" else tmp_path / "absent" / "last.pt", said.append)


@pytest.mark.parametrize("kind", KINDS[:-2])
def test_a_last_pt_that_was_replaced_is_not_believed(tmp_path: Path, kind: str) -> None:
    for step in (10, 20):
        checkpoint.save(tmp_path, _state(step, 1000), step)
    data = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").unlink()
    (tmp_path / "last.pt").write_bytes(data)
    _damage(tmp_path / "last.pt", kind)
    said: list[str] = []
    found = checkpoint.newest_valid(tmp_path, said.append)
    assert found is not None
    assert found[0].name == "step_00000020.pt"
    assert len(said) == 1
    assert "last.pt: is none of this folder's checkpoints" in said[0]


@pytest.mark.parametrize("with_checksum", [True, False])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, with_checksum: bool) -> None:
    good = checkpoint.save(tmp_path, _state(10, 10), 10)
    evil = tmp_path / "step_00000020.pt"
    _damage(evil_source := shutil.copy(good, evil) and evil, "malicious")
    if with_checksum:  # who can write the one file can write the other
        digest = hashlib.sha256(evil.read_bytes()).hexdigest()
        evil.with_name(evil.name + ".sha256").write_text(f"{digest}  {evil.name}\n")
    said: list[str] = []
    found = checkpoint.newest_valid(tmp_path, said.append)
    assert found is not None
    assert found[0] == good
    assert len(said) == 1
    with pytest.raises(UserError, match="refused: not a file of plain data"):
        checkpoint.load(evil_source, said.append)
    assert not (tmp_path / "run-by-the-pickle").exists()
    torch.load(evil, weights_only=False)  # the bomb is live: what refuses it is not luck
    assert (tmp_path / "run-by-the-pickle").exists()


def test_all_broken_is_none_and_each_is_named(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        _damage(checkpoint.save(tmp_path, _state(step, 10), step), "bit-flipped")
    said: list[str] = []
    assert checkpoint.newest_valid(tmp_path, said.append) is None
    assert [s for s in (30, 20, 10) if f"step_{s:08d}.pt" in said.pop(0)] == [30, 20, 10] or not said
    with pytest.raises(UserError, match="no valid checkpoint"):
        checkpoint.load(tmp_path, said.append)


def test_every_single_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, _state(1, 10), 1)
    data = path.read_bytes()
    for place in random.Random(0).sample(range(len(data)), 50):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        assert checkpoint.newest_valid(tmp_path, lambda _: None) is None
    path.write_bytes(data)
    assert checkpoint.newest_valid(tmp_path, pytest.fail) is not None


@contextmanager
def _writer(folder: Path) -> Iterator[tuple[CheckpointWriter, list[str]]]:
    """A writer with one good save behind it, and what it reports."""
    said: list[str] = []
    writer = CheckpointWriter(folder, keep_last=1, keep_every=None, report=said.append)
    writer.submit(_state(10), 10)
    writer.wait()
    assert not writer.failed
    yield writer, said
    writer.wait()


def _one_failure(writer: CheckpointWriter, said: list[str], folder: Path, reason: str) -> None:
    """A save of step 20 fails aloud, the older checkpoint stands, and no half of the new one is left."""
    writer.submit(_state(20), 20)
    writer.wait()
    assert writer.failed
    assert len(said) == 1
    assert "step_00000020.pt: not saved" in said[0]
    assert reason in said[0]
    if folder.is_dir():
        assert sorted(p.name for p in folder.iterdir()) == ["last.pt", "step_00000010.pt", "step_00000010.pt.sha256"]
        found = checkpoint.newest_valid(folder, pytest.fail)
        assert found is not None
        assert found[1]["step"] == 10
        assert _complete(found[1])


def _one_success(writer: CheckpointWriter, folder: Path) -> None:
    writer.submit(_state(30), 30)
    writer.wait()
    assert not writer.failed
    found = checkpoint.newest_valid(folder, pytest.fail)
    assert found is not None
    assert found[1]["step"] == 30
    assert _complete(found[1])


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with _writer(tmp_path) as (writer, said):
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
        try:
            _one_failure(writer, said, tmp_path, "File too large")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        _one_success(writer, tmp_path)


def test_a_full_disk(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a file system of 3 MB can be mounted by root only")
    try:
        with _writer(tmp_path) as (writer, said):
            filler = tmp_path.parent / "filler"
            filler.symlink_to(tmp_path / "filler")
            filler.write_bytes(bytes(1_500_000))
            filler = filler.resolve()
            moved = shutil.move
            del moved
            writer.submit(_state(20), 20)
            writer.wait()
            assert writer.failed
            assert len(said) == 1
            assert "No space left on device" in said[0]
            filler.unlink()
            assert sorted(p.name for p in tmp_path.glob("*step*")) == ["step_00000010.pt", "step_00000010.pt.sha256"]
            _one_success(writer, tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_the_folder_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with _writer(folder) as (writer, said):
        shutil.rmtree(folder)
        _one_failure(writer, said, folder, "No such file or directory")
        folder.mkdir()  # the mount came back
        _one_success(writer, folder)


def test_a_file_stands_in_place_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with _writer(folder) as (writer, said):
        folder.rename(tmp_path / "away")
        folder.write_text("in the way")
        _one_failure(writer, said, folder, "Not a directory")
    with pytest.raises(UserError, match=r"cannot hold checkpoints \(File exists\)"):
        CheckpointWriter(folder, 1, None, said.append)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    with _writer(tmp_path) as (writer, said):
        tmp_path.chmod(0o500)
        try:
            _one_failure(writer, said, tmp_path, "Permission denied")
        finally:
            tmp_path.chmod(0o700)
        _one_success(writer, tmp_path)


def test_the_last_link_is_in_the_way(tmp_path: Path) -> None:
    with _writer(tmp_path) as (writer, said):
        (tmp_path / "last.pt").unlink()
        (tmp_path / "last.pt").mkdir()
        writer.submit(_state(20), 20)
        writer.wait()
        assert writer.failed
        assert len(said) == 1
        found = checkpoint.newest_valid(tmp_path, pytest.fail)
        assert found is not None
        assert found[1]["step"] == 20  # it is whole; only the link to it is not


def _save_for_ever(folder: Path, first: int, out: Connection) -> None:
    writer = CheckpointWriter(folder, keep_last=1, keep_every=None, report=lambda m: out.send(m))
    for step in range(first, 10**6):
        writer.submit(_state(step), step, best=step % 2 == 0)
        writer.submit(_state(step), step)  # the same step once more: replaced, at no moment absent
        writer.wait()
        out.send(step)


def test_kill_9_in_the_middle_of_a_save(tmp_path: Path) -> None:
    """Whenever the process dies, what it had reported as saved (or something newer) is found, whole."""
    context = multiprocessing.get_context("forkserver")  # a clean process that has torch loaded already
    context.set_forkserver_preload(["ddptrain.engine.writer"])
    rng, reached, cut_off = random.Random(0), 0, 0
    for _ in range(20):
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=_save_for_ever, args=(tmp_path, reached + 1, send))
        child.start()
        send.close()
        assert receive.poll(60)
        reported = receive.recv()
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        child.join()
        while receive.poll():
            try:
                reported = receive.recv()
            except EOFError:
                break
        assert isinstance(reported, int), reported
        cut_off += any(tmp_path.glob(".*.tmp"))
        found = checkpoint.newest_valid(tmp_path, pytest.fail)
        assert found is not None
        reached = found[1]["step"]
        assert reported <= reached <= reported + 1
        assert _complete(found[1])
        for link in ("last.pt", "best.pt"):
            if (tmp_path / link).is_symlink():
                assert _complete(checkpoint.load(tmp_path / link, pytest.fail)[1])
        assert len(list(tmp_path.glob("step_*.pt"))) <= 4
    assert cut_off >= 3, "the kills never met a save: the test proves nothing"


def test_a_crash_of_the_main_thread_lets_the_save_end(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from ddptrain.engine.writer import CheckpointWriter\n"
        "writer = CheckpointWriter(Path(sys.argv[1]), 1, None, print)\n"
        "writer.submit({'weight': torch.full((20_000_000,), 5.0), 'counts': [5] * 3}, 5)\n"
        "raise RuntimeError('the step failed')"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    found = checkpoint.newest_valid(tmp_path, pytest.fail)
    assert found is not None
    assert _complete(found[1])


def test_the_file_is_a_zip_that_other_tools_read(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, _state(1), 1)
    assert zipfile.ZipFile(path).testzip() is None
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", f"{path.name}.sha256"], cwd=tmp_path, check=True)
