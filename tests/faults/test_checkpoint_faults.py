"""Faults of saving and reading, injected for real: damaged files, full disks, lost folders, kills in the middle."""

import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from support import save_checkpoint

from ddptrain.checkpoint import files as checkpoint
from ddptrain.checkpoint.load import load_checkpoint, newest_checkpoint
from ddptrain.checkpoint.writer import CheckpointWriter
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
def test_a_damaged_newest_checkpoint_falls_back_and_is_reported(tmp_path: Path, kind: str) -> None:
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, _state(step, 1000), step)
    _damage((tmp_path / "last.pt").resolve(), kind)
    lines: list[str] = []
    newest = newest_checkpoint(tmp_path, lines.append)
    assert newest is not None
    assert newest.path.name == "step_00000020.pt"
    assert _complete(newest.state)
    assert len(lines) == 1
    assert "step_00000030.pt (last.pt): " in lines[0]
    assert not (tmp_path / "run-by-the-pickle").exists()
    with pytest.raises(UserError, match=r"last\.pt: [^\n]+$"):
        load_checkpoint(tmp_path / "last.pt" if kind != "folder" else tmp_path / "absent" / "last.pt", lines.append)


@pytest.mark.parametrize("kind", KINDS[:-2])
def test_a_last_pt_that_was_replaced_is_not_believed(tmp_path: Path, kind: str) -> None:
    for step in (10, 20):
        save_checkpoint(tmp_path, _state(step, 1000), step)
    data = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").unlink()
    (tmp_path / "last.pt").write_bytes(data)
    _damage(tmp_path / "last.pt", kind)
    lines: list[str] = []
    newest = newest_checkpoint(tmp_path, lines.append)
    assert newest is not None
    assert newest.path.name == "step_00000020.pt"
    assert len(lines) == 1
    assert "last.pt: is not one of this folder's checkpoints" in lines[0]


@pytest.mark.parametrize("with_checksum", [True, False])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, with_checksum: bool) -> None:
    good = save_checkpoint(tmp_path, _state(10, 10), 10)
    evil = tmp_path / "step_00000020.pt"
    shutil.copy(good, evil)
    _damage(evil, "malicious")
    if with_checksum:  # who can write the one file can write the other
        digest = hashlib.sha256(evil.read_bytes()).hexdigest()
        evil.with_name(evil.name + ".sha256").write_text(f"{digest}  {evil.name}\n")
    lines: list[str] = []
    newest = newest_checkpoint(tmp_path, lines.append)
    assert newest is not None
    assert newest.path == good
    assert len(lines) == 1
    with pytest.raises(UserError, match="refused: not a file of plain data"):
        load_checkpoint(evil, lines.append)
    assert not (tmp_path / "run-by-the-pickle").exists()
    torch.load(evil, weights_only=False)  # the bomb is live: what refuses it is not luck
    assert (tmp_path / "run-by-the-pickle").exists()


def test_all_broken_is_none_and_each_is_named(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        _damage(save_checkpoint(tmp_path, _state(step, 10), step), "bit-flipped")
    lines: list[str] = []
    assert newest_checkpoint(tmp_path, lines.append) is None
    assert [Path(line.split(" ")[0].split(":")[0]).name for line in lines] == [
        "step_00000030.pt",
        "step_00000020.pt",
        "step_00000010.pt",
    ]
    with pytest.raises(UserError, match="no valid checkpoint"):
        load_checkpoint(tmp_path, lines.append)


def test_every_single_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, _state(1, 10), 1)
    data = path.read_bytes()
    for place in random.Random(0).sample(range(len(data)), 50):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        assert newest_checkpoint(tmp_path, lambda _: None) is None
    path.write_bytes(data)
    assert newest_checkpoint(tmp_path, pytest.fail) is not None


class _Faulty:
    """A writer with one good save (step 10) behind it, whose folder then meets a fault."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.writer = CheckpointWriter(folder, keep_last=1, keep_every=None, report=self.lines.append)
        self.save(10)
        assert not self.writer.failed

    def save(self, step: int) -> None:
        self.writer.submit(_state(step), step)
        self.writer.wait()

    def must_have_failed(self, reason: str) -> None:
        """Step 20 was not saved, aloud."""
        assert self.writer.failed
        assert len(self.lines) == 1
        assert "step_00000020.pt: not saved" in self.lines[0]
        assert reason in self.lines[0]

    def must_hold(self, step: int) -> None:
        """The checkpoint of that step and nothing else is there, whole."""
        names = {p.name for p in self.folder.iterdir()}
        assert names == {"last.pt", f"step_{step:08d}.pt", f"step_{step:08d}.pt.sha256"}
        newest = newest_checkpoint(self.folder, pytest.fail)
        assert newest is not None
        assert newest.step == step
        assert _complete(newest.state)

    def must_go_on(self) -> None:
        """The fault is over: the next save succeeds and the run may end with 0."""
        self.save(30)
        assert not self.writer.failed
        self.must_hold(30)


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    run = _Faulty(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        run.save(20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run.must_have_failed("File too large")
    run.must_hold(10)
    run.must_go_on()


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a file system of 3 MB")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(tmp_path: Path) -> None:
    with _small_disk(tmp_path):
        run = _Faulty(tmp_path / "checkpoints")
        (tmp_path / "filler").write_bytes(bytes(1_500_000))
        run.save(20)
        run.must_have_failed("No space left on device")
        run.must_hold(10)
        (tmp_path / "filler").unlink()
        run.must_go_on()


def test_a_disk_that_turned_read_only(tmp_path: Path) -> None:
    with _small_disk(tmp_path):
        run = _Faulty(tmp_path / "checkpoints")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        run.save(20)
        run.must_have_failed("Read-only file system")
        run.must_hold(10)
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path)], check=True)
        run.must_go_on()


def test_a_folder_without_permission(tmp_path: Path) -> None:
    run = _Faulty(tmp_path)
    tmp_path.chmod(0o500)
    root = os.geteuid() == 0  # who may write everywhere: be somebody else for the time of the save
    try:
        if root:
            os.seteuid(65534)
        run.save(20)
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o700)
    run.must_have_failed("Permission denied")
    run.must_hold(10)
    run.must_go_on()


def test_the_folder_is_removed(tmp_path: Path) -> None:
    run = _Faulty(tmp_path / "checkpoints")
    shutil.rmtree(run.folder)
    run.save(20)
    run.must_have_failed("No such file or directory")
    run.folder.mkdir()  # the mount came back
    run.must_go_on()


def test_a_file_stands_in_place_of_the_folder(tmp_path: Path) -> None:
    run = _Faulty(tmp_path / "checkpoints")
    run.folder.rename(tmp_path / "away")
    run.folder.write_text("in the way")
    run.save(20)
    run.must_have_failed("Not a directory")
    with pytest.raises(UserError, match=r"checkpoints cannot be written there \(File exists\)"):
        CheckpointWriter(run.folder, 1, None, pytest.fail)


def test_a_folder_stands_in_place_of_the_link(tmp_path: Path) -> None:
    run = _Faulty(tmp_path)
    (tmp_path / "last.pt").unlink()
    (tmp_path / "last.pt").mkdir()
    run.save(20)
    run.must_have_failed("Is a directory")
    newest = newest_checkpoint(tmp_path, pytest.fail)
    assert newest is not None
    assert newest.step == 20  # it is whole; only the link to it is not


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
    context.set_forkserver_preload(["ddptrain.checkpoint.writer"])
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
        newest = newest_checkpoint(tmp_path, pytest.fail)
        assert newest is not None
        reached = newest.step
        assert reported <= reached <= reported + 1
        assert _complete(newest.state)
        for link in ("last.pt", "best.pt"):
            if (tmp_path / link).is_symlink():
                assert _complete(load_checkpoint(tmp_path / link, pytest.fail).state)
        assert len(list(tmp_path.glob("step_*.pt"))) <= 4
    assert cut_off >= 3, "the kills never met a save: the test proves nothing"


def test_a_crash_of_the_main_thread_lets_the_save_end(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from ddptrain.checkpoint.writer import CheckpointWriter\n"
        "writer = CheckpointWriter(Path(sys.argv[1]), 1, None, print)\n"
        "writer.submit({'weight': torch.full((20_000_000,), 5.0), 'counts': [5] * 3}, 5)\n"
        "raise RuntimeError('the step failed')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    newest = newest_checkpoint(tmp_path, pytest.fail)
    assert newest is not None
    assert _complete(newest.state)


def test_the_file_is_a_zip_that_other_tools_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, _state(1), 1)
    assert zipfile.ZipFile(path).testzip() is None
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", f"{path.name}.sha256"], cwd=tmp_path, check=True)
