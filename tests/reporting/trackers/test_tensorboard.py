"""Curves as TensorBoard itself reads them."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddptrain.reporting.trackers.tensorboard import TensorBoard


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_scalars_images_and_text(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path)
    for step in (50, 100):
        board.scalars({"loss/box": 1.0 / step, "AP": 0.5, "empty": math.nan}, step)
    picture = np.zeros((12, 34, 3), np.uint8)
    board.image("pictures/train", picture, 100)
    board.text("mixture", "| a |", 0)
    board.close()
    read = curves(tmp_path)
    assert read["loss/box"] == [(50, pytest.approx(0.02)), (100, pytest.approx(0.01))]
    assert set(read) == {"loss/box", "AP"}
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    image = events.Images("pictures/train")[0]
    assert (image.step, image.height, image.width) == (100, 12, 34)
    assert events.Tensors("mixture/text_summary")[0].tensor_proto.string_val == [b"| a |"]


def test_a_resumed_run_continues_the_same_curve(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path)
    for step in range(10, 80, 10):
        first.scalars({"train/loss": float(step)}, step)
    first.close()  # killed at 70, its last checkpoint is of step 50
    second = TensorBoard(tmp_path, resumed=50)
    for step in range(60, 110, 10):
        second.scalars({"train/loss": float(step)}, step)
    second.close()
    assert curves(tmp_path)["train/loss"] == [(s, float(s)) for s in range(10, 110, 10)]


def test_flush_puts_all_on_disk(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.scalars({"loss": 1.0}, 1)
    assert curves(tmp_path)["loss"] == [(1, 1.0)]
    board.close()


def test_off_means_nothing_is_imported_or_written() -> None:
    code = """
import sys
from pathlib import Path
from ddptrain.reporting.trackers.base import Tracker
board = Tracker()
board.scalars({"a": 1.0}, 1); board.image("b", None, 1); board.text("c", "d", 1); board.close()
print("tensorboard" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_full_disk_is_reported_once_and_written_on_when_there_is_room(tmp_path: Path) -> None:
    code = f"""
import resource
import numpy as np
from pathlib import Path
from ddptrain.reporting.trackers.tensorboard import TensorBoard
board = TensorBoard(Path({str(tmp_path / "tb")!r}), report=lambda line: print(line, flush=True))
noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
for step in range(6):
    room = 900 if step in (2, 3) else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    board.scalars({{"train/loss": float(step)}}, step)
    board.image("picture", noise, step)
board.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"warning: {tmp_path / 'tb'}: not written, tried again later (File too large); training continues",
        f"{tmp_path / 'tb'}: written again; 4 events are lost",
    ]
    assert "Traceback" not in done.stderr
    assert curves(tmp_path / "tb")["train/loss"] == [(step, float(step)) for step in (0, 1, 4, 5)]


def test_a_folder_that_comes_later(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "tb").touch()
    board = TensorBoard(tmp_path / "tb", report=said.append)
    board.scalars({"loss": 0.0}, 0)
    (tmp_path / "tb").unlink()
    board.scalars({"loss": 1.0}, 1)
    board.close()
    assert [line.partition(": ")[2] for line in said] == [
        f"{tmp_path / 'tb'}: not written, tried again later (File exists); training continues",
        "written again; 1 event is lost",
    ]
    assert curves(tmp_path / "tb")["loss"] == [(1, 1.0)]


def test_recounted_steps_are_renumbered(tmp_path: Path) -> None:
    """The checkpoint of step 20 is of step 5 now."""
    first = TensorBoard(tmp_path)
    for step in (4, 8, 20, 24):
        first.scalars({"train/loss": float(step)}, step)
    first.close()
    second = TensorBoard(tmp_path, resumed=5, counted=20)
    second.scalars({"train/loss": 6.0}, 6)
    second.close()
    assert curves(tmp_path)["train/loss"] == [(1, 4.0), (2, 8.0), (5, 20.0), (6, 6.0)]
