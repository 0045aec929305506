"""status.json and the exit statuses."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ddptrain.errors import UserError
from ddptrain.system.status import Status, exit_status, read_status, write_status


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    write_status(tmp_path, "running", 0, 40)
    write_status(tmp_path, "stopped", 10, 40, "SIGTERM on\nrank 3", tmp_path / "checkpoints" / "step_00000010.pt")
    status = read_status(tmp_path)
    assert status is not None
    assert status == Status("stopped", 10, 40, status.time, "SIGTERM on rank 3", "checkpoints/step_00000010.pt")
    assert datetime.fromisoformat(status.time).utcoffset() == timedelta(0)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "stopped"
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_a_failed_write_leaves_the_old_status(tmp_path: Path) -> None:
    write_status(tmp_path, "running", 1, 2)
    (
        tmp_path / f".status.json.{os.uname().nodename}.{os.getpid()}.tmp"
    ).mkdir()  # permissions do not stop root, a folder in the way does
    with pytest.raises(OSError, match=r"status\.json"):
        write_status(tmp_path, "finished", 2, 2)
    status = read_status(tmp_path)
    assert status is not None
    assert status.step == 1


def test_a_key_that_is_no_status_is_named(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "running", "a": 1}')
    with pytest.raises(
        UserError, match=r"is not the status of a ddptrain run \(unknown key 'a'\); delete it, and the run will"
    ):
        read_status(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "running"}', "\x00\xff"])
def test_a_foreign_file_is_reported_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"^[^\n]*status\.json: [^\n]*$"):
        read_status(tmp_path)


def test_an_unknown_state_is_reported(tmp_path: Path) -> None:
    write_status(tmp_path, "running", 1, 2)
    path = tmp_path / "status.json"
    path.write_text(path.read_text().replace("running", "asleep"))
    with pytest.raises(UserError, match="'asleep'; the states are running, stopped, finished, failed"):
        read_status(tmp_path)


def test_exit_statuses() -> None:
    # a rank under torchrun that ends with anything but 0 is restarted
    assert [exit_status("stopped", launcher) for launcher in ("single", "torchrun", "srun")] == [75, 0, 0]
    assert [exit_status("finished", launcher) for launcher in ("single", "torchrun")] == [0, 0]
    assert [exit_status("failed", launcher) for launcher in ("single", "torchrun")] == [1, 1]


def test_handlers_and_status_need_no_torch() -> None:
    code = "import sys, ddptrain.system.status, ddptrain.engine.stop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
