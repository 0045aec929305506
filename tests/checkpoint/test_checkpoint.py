"""Saving, finding, pruning: what is read is what was written, whatever lies in the folder."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import save_checkpoint

from ddptrain.checkpoint.files import FORMAT, prune, set_aside
from ddptrain.checkpoint.host_copy import copy_to_host
from ddptrain.checkpoint.load import load_checkpoint, newest_checkpoint
from ddptrain.checkpoint.writer import CheckpointWriter
from ddptrain.errors import UserError


def _quiet(message: str) -> None:
    raise AssertionError(f"warned without need: {message}")


def _training(steps: int = 3) -> dict:
    """The state of a real model and optimizer after a few steps, channels-last, with tied weights."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    base = torch.arange(12.0)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "views": [base[2:5], base.reshape(3, 4).t(), base[:1].expand(4), base],
        "half": torch.tensor([1 / 3, float("nan"), -0.0], dtype=torch.bfloat16),
        "empty": torch.empty(0, 4),
        "history": [{"AP": np.float64(0.25), "epoch": 1, "best": np.bool_(True), "note": None}],
        "position": 10**18,
    }


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        bits = a.contiguous().flatten().view(torch.uint8), b.contiguous().flatten().view(torch.uint8)
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, dict):
        assert isinstance(b, dict)
        return list(a) == list(b) and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        assert isinstance(b, (list, tuple))
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b))
    return bool(a == b)


def test_bits_come_back(tmp_path: Path) -> None:
    state = _training()
    path = save_checkpoint(tmp_path / "new" / "checkpoints", state, 3)
    checkpoint = load_checkpoint(path, _quiet)
    assert checkpoint.path == path
    loaded = dict(checkpoint.state)
    assert loaded.pop("format") == FORMAT
    assert loaded.pop("step") == 3
    assert _same(state, loaded)
    other = torch.optim.AdamW(torch.nn.Conv2d(3, 8, 3).parameters())
    with pytest.raises(ValueError, match="size"):
        other.load_state_dict(loaded["optimizer"])  # the real loader reads it, and knows another model
    fresh = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    fresh.load_state_dict(loaded["model"])
    assert _same(dict(fresh.state_dict()), dict(state["model"]))


def test_views_store_only_themselves(tmp_path: Path) -> None:
    big = torch.zeros(1_000_000)
    assert save_checkpoint(tmp_path, {"a": big[:2]}, 0).stat().st_size < 5000


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    # in a process of its own, with strings and tuples made in other ways, identities differ and bytes may not
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from ddptrain.checkpoint.files import save; from ddptrain.checkpoint.host_copy import copy_to_host\n"
        "name = ''.join(['a', 'b'])\n"
        "state = {'ab': [name, ''.join(['a', 'b'])], 't': [(1, 2), (1, 2)], 'w': torch.ones(3)}\n"
        "save(Path(sys.argv[1]), copy_to_host(state), 7)"
    )
    (tmp_path / "a").mkdir()
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=True)
    pair, ones = (1, 2), torch.ones(6)
    b = save_checkpoint(tmp_path / "b", {"ab": ["ab", "ab"], "t": [pair, pair], "w": ones[3:]}, 7)
    assert (tmp_path / "a" / b.name).read_bytes() == b.read_bytes()


def test_folder_is_as_drawn(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {}, 100, best=True)
    path = save_checkpoint(tmp_path, {}, 200)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.pt",
        "last.pt",
        "step_00000100.pt",
        "step_00000100.pt.sha256",
        "step_00000200.pt",
        "step_00000200.pt.sha256",
    ]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.with_name(path.name + ".sha256").read_text() == f"{digest}  {path.name}\n"
    assert (tmp_path / "last.pt").resolve() == path
    # links are relative: a folder may move, and its files may be read without this package
    moved = shutil.move(tmp_path, tmp_path.with_name("elsewhere"))
    assert torch.load(Path(moved) / "best.pt", weights_only=True)["step"] == 100


@pytest.mark.skipif(sys.platform != "linux", reason="looks up descriptors in /proc")
def test_what_is_renamed_is_on_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which a save reaches the disk: checksum, checkpoint, folder, and only then the link."""
    seen: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flush(fd: int) -> None:
        seen.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        fsync(fd)

    def rename(source: Path, target: Path) -> None:
        seen.append(f"rename {Path(source).name} -> {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    name = save_checkpoint(tmp_path, _training(), 5).name
    order = [
        f"fsync .{name}.tmp",
        f"rename .{name}.sha256.tmp -> {name}.sha256",
        f"rename .{name}.tmp -> {name}",
        f"fsync {tmp_path.name}",
        "rename .last.pt.tmp -> last.pt",
        f"fsync {tmp_path.name}",
    ]
    seen = [re.sub(r"sha256\.\S*\.tmp", "sha256.tmp", line) for line in seen]  # a temporary name holds machine and process
    rest = iter(seen)
    assert all(line in rest for line in order), seen  # in this order, others between them
    assert seen[-1] == order[-1]
    assert seen.index(f"fsync .{name}.sha256.tmp") < seen.index(order[1])


@pytest.mark.parametrize("value", [{1, 2}, np.zeros(3), object(), torch.nn.Linear(1, 1), 1j])
def test_only_plain_types(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"state\.a\.1 is a "):
        save_checkpoint(tmp_path, {"a": [0, value]}, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_save_of_the_same_step_replaces(tmp_path: Path) -> None:
    for value in (1, 2):
        path = save_checkpoint(tmp_path, {"value": value}, 5)
    assert load_checkpoint(path, _quiet).state["value"] == 2
    assert len(path.with_name(path.name + ".sha256").read_text().splitlines()) == 1


def test_load_takes_file_folder_or_run(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    one, two = (save_checkpoint(folder, {"value": s}, s, best=s == 1) for s in (1, 2))
    assert load_checkpoint(tmp_path / "run", _quiet).path == two
    assert load_checkpoint(folder, _quiet).path == two
    assert load_checkpoint(folder / "last.pt", _quiet).path == two
    assert load_checkpoint(tmp_path / "run", _quiet, best=True).path == one
    alone = shutil.copy(one, tmp_path / "mine.pt")  # a file that a user carried off has no checksum beside it
    assert load_checkpoint(Path(alone), _quiet).state["value"] == 1


@pytest.mark.parametrize("make", ["missing", "empty folder", "text", "other torch file"])
def test_load_reports_what_is_wrong(tmp_path: Path, make: str) -> None:
    path = tmp_path / "x.pt"
    if make == "empty folder":
        path.mkdir()
    elif make == "text":
        path.write_text("hello")
    elif make == "other torch file":
        torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"x\.pt: [^\n]*(checkpoint|run)[^\n]*$"):
        load_checkpoint(path, _quiet)


def test_newest_of_nothing_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent", _quiet) is None
    assert newest_checkpoint(tmp_path, _quiet) is None


def test_prune_keeps_what_was_asked(tmp_path: Path) -> None:
    for step in range(10, 110, 10):
        save_checkpoint(tmp_path, {}, step, best=step == 40)
    (tmp_path / ".step_00000500.pt.tmp").write_bytes(b"cut off")
    (tmp_path / "step_00000600.pt.sha256").write_text("cut off before the checkpoint\n")
    (tmp_path / "notes.txt").write_text("the user's own")
    (tmp_path / "step_mine.pt").write_text("the user's own")
    prune(tmp_path, keep_last=2, keep_every=50)
    kept = {40, 50, 90, 100}  # best, the multiples of 50, the two newest
    names = {f"step_{s:08d}.pt{suffix}" for s in kept for suffix in ("", ".sha256")}
    assert {p.name for p in tmp_path.iterdir()} == names | {"last.pt", "best.pt", "notes.txt", "step_mine.pt"}
    assert load_checkpoint(tmp_path / "best.pt", _quiet).step == 40


def test_going_back_sets_the_left_course_aside(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, {}, step, best=step == 30)
    set_aside(tmp_path, 10)
    assert sorted(p.name for p in tmp_path.glob("aside/*.pt")) == ["step_00000020.pt", "step_00000030.pt"]
    newest = newest_checkpoint(tmp_path, _quiet)
    assert newest is not None
    assert newest.step == 10
    assert load_checkpoint(tmp_path / "best.pt", _quiet).step == 30
    assert load_checkpoint(tmp_path / "last.pt", _quiet).step == 10
    save_checkpoint(tmp_path, {}, 15)
    prune(tmp_path, keep_last=1)
    assert [p.name for p in tmp_path.glob("step_*.pt")] == ["step_00000015.pt"]
    assert load_checkpoint(tmp_path / "aside" / "step_00000030.pt", _quiet).step == 30
    set_aside(tmp_path, 15)
    assert [p.name for p in tmp_path.glob("step_*.pt")] == ["step_00000015.pt"]


def test_a_folder_copied_without_links_is_whole(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", {}, 10, best=True)
    save_checkpoint(tmp_path / "a", {}, 20)
    shutil.copytree(tmp_path / "a", tmp_path / "b", symlinks=False)
    assert not (tmp_path / "b" / "last.pt").is_symlink()
    newest = newest_checkpoint(tmp_path / "b", _quiet)
    assert newest is not None
    assert newest.step == 20
    save_checkpoint(tmp_path / "b", {}, 30)
    assert (tmp_path / "b" / "last.pt").is_symlink()


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: str) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for step in (10, 20):
        save_checkpoint(tmp_path, {}, step, best=step == 10)
    prune(tmp_path, keep_last=1)
    assert load_checkpoint(tmp_path / "best.pt", _quiet).step == 10
    assert load_checkpoint(tmp_path / "last.pt", _quiet).step == 20
    assert newest_checkpoint(tmp_path, _quiet) is not None


def test_writer_saves_what_was_submitted_not_what_came_after(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, keep_last=2, keep_every=None, report=_quiet)
    weight, nested = torch.zeros(500_000), {"n": [0]}
    writer.reserve({"weight": weight, "nested": nested})
    for step in range(1, 6):
        weight.fill_(step)
        nested["n"][0] = step
        writer.submit({"weight": weight, "nested": nested}, step, best=step == 2)
        weight.fill_(-1)
        nested["n"][0] = -1
    writer.wait()
    assert not writer.failed
    assert {p.name for p in tmp_path.glob("step_*.pt")} == {f"step_{s:08d}.pt" for s in (2, 4, 5)}
    for step in (2, 4, 5):
        state = load_checkpoint(tmp_path / f"step_{step:08d}.pt", _quiet).state
        assert torch.all(state["weight"] == step)
        assert state["nested"]["n"] == [step]


def test_writer_reuses_its_memory() -> None:
    buffers: dict[str, torch.Tensor] = {}
    weight = torch.nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    first = copy_to_host({"w": weight}, buffers)["w"]
    second = copy_to_host({"w": weight}, buffers)["w"]
    assert second.data_ptr() == first.data_ptr() != weight.data_ptr()
    assert second.stride() == weight.stride()
    assert not second.requires_grad
    other = copy_to_host({"w": torch.zeros(5)}, buffers)["w"]
    assert other.shape == (5,)
    assert other.data_ptr() != first.data_ptr()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_save_stays_on_the_gpu_of_its_rank(tmp_path: Path) -> None:
    """A fresh thread is on the first one, where it would take memory for its work."""
    seen: list[int] = []
    with torch.cuda.device(1):
        torch.ones(1, device="cuda")
        writer = CheckpointWriter(tmp_path, 1, None, print)
        writer._start(lambda: seen.append(torch.cuda.current_device()))
        writer.wait()
    assert seen == [1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_copy_of_the_gpu_is_complete_when_it_returns() -> None:
    weight = torch.zeros(50_000_000, device="cuda")
    buffers: dict[str, torch.Tensor] = {}
    for step in range(3):
        weight.fill_(step)
        copy = copy_to_host({"w": weight}, buffers)["w"]
        weight.fill_(-1)
        assert copy.is_pinned()
        assert torch.all(copy == step)
