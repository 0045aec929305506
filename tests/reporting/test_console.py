"""What a run says, on a terminal (a real pseudo-terminal), in a pipe and in log.txt."""

import io
import os
import pty
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pytest
from console_talk import talk

from ddptrain.reporting.console import Console, Level

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


TABLE = """\
AP per dataset
  dataset     AP  images
  -------  -----  ------
  bccd     0.518      72
  all          -       -
"""
PROGRESS = "epoch 0.5/4  step 5/40  box 1.250 cls 0.500  96.4 img/s  data 3%  ETA 12:30\n"


def test_in_a_pipe_it_is_plain_lines() -> None:
    stream = io.StringIO()
    talk(Console(None, total_steps=40, steps_per_epoch=10, stream=stream))
    assert stream.getvalue() == "start of [the] run :smile:\n" + TABLE + PROGRESS


def test_the_log_has_the_same_lines_with_their_time(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    talk(Console(log, total_steps=40, steps_per_epoch=10, stream=None))
    lines = log.read_text().splitlines(keepends=True)
    assert all(re.match(STAMP + "  ", line) for line in lines)
    plain = "".join(re.sub(f"^{STAMP}  ", "", line) for line in lines)
    assert plain == "start of [the] run :smile:\n" + TABLE + PROGRESS
    talk(Console(log, total_steps=40, steps_per_epoch=10, stream=None))
    assert log.read_text().startswith("".join(lines)), "a resumed run appends"
    assert len(log.read_text().splitlines()) == 2 * len(lines)


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("quiet", "warning: a disk is full\nfinished\n"),
        ("verbose", "".join(f"  step {n}/40  box 1.500 cls 0.250  gradient norm 2\n" for n in range(1, 6))),
    ],
)
def test_less_or_more_is_printed_and_the_log_stays_the_same(level: Level, shown: str, tmp_path: Path) -> None:
    logs = []
    for name in ("normal", level):
        stream, log = io.StringIO(), tmp_path / name
        with Console(log, total_steps=40, steps_per_epoch=10, stream=stream, level=name) as console:
            console.line("warning: a disk is full")
            console.last("finished")
            talk(console)
        logs.append([line[21:] for line in log.read_text().splitlines()])
    assert logs[0] == logs[1]
    assert shown in stream.getvalue()
    assert ("AP per dataset" in stream.getvalue()) == (level == "verbose")


def test_the_command_line_says_how_much_is_printed(
    small_config: Callable[[str], Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from ddptrain.cli import main

    assert main(["train", str(small_config("classification")), "-q", "train.steps=2", "name=quiet"]) == 0
    (line,) = [x for x in capfd.readouterr().out.splitlines() if not x.startswith("warning")]
    assert line.startswith("finished at step 2")
    assert main(["train", str(small_config("classification")), "train.steps=2", "name=verbose", "-v"]) == 0
    shown = capfd.readouterr().out
    assert [n for n in ("1", "2") if f"  step {n}/2  cross_entropy" in shown] == ["1", "2"]


def test_other_ranks_are_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    talk(Console(None, total_steps=40, steps_per_epoch=10, stream=None))
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [40, 100])
def test_on_a_terminal_there_is_a_live_line(width: int, tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "helpers")!r})
from pathlib import Path
from console_talk import Console, talk
talk(Console(Path({str(tmp_path / "log.txt")!r}), total_steps=40, steps_per_epoch=10))
"""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
    environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, env={**environ, "TERM": "xterm-256color"}) as process:
        os.close(theirs)
        data = b""
        while chunk := _read(ours):
            data += chunk
    os.close(ours)
    assert process.returncode == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode())
    assert "start of [the] run :smile:" in shown
    assert re.search(r"bccd +0\.518 +72", shown)
    live = [part for part in re.split(r"[\r\n]+", shown) if part.startswith("epoch")]
    assert all(len(part.rstrip()) <= width for part in live), "it never wraps"
    assert "evaluating" in shown
    if width == 100:
        assert re.match(r"epoch 0\.5/4 [━╸╺ ]+ 5/40  box 1\.250 cls 0\.500  96\.4 img/s  data 3%  ETA 12:30", live[-1])
    assert data.decode().count("\x1b[?25h") >= 1, "the cursor is shown again"
    assert (tmp_path / "log.txt").read_text().endswith(PROGRESS)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # Linux says EIO where the other side is closed
        return b""
