"""`ddptrain completion`: bash completes when Tab is pressed; every command and option is in the scripts of all shells."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ddptrain.commands.completion import SHELLS, commands, keys, print_completion


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert print_completion("bash") == 0
    path = tmp_path / "ddptrain.bash"
    path.write_text(capsys.readouterr().out)
    return path


def offered(script: Path, *words: str) -> list[str]:
    """What bash would complete the last word to."""
    code = f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ddptrain; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code, "bash", *words], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_commands_options_choices_and_keys(script: Path) -> None:
    assert offered(script, "ddptrain", "comp") == ["compare", "completion"]
    assert offered(script, "ddptrain", "train", "--n") == ["--nproc"]
    assert offered(script, "ddptrain", "train", "c.yaml", "train.ep") == ["train.epochs="]
    assert offered(script, "ddptrain", "runs", "--sort", "st") == ["state", "step"]
    assert offered(script, "ddptrain", "completion", "f") == ["fish"]
    assert offered(script, "ddptrain", "runs", "train.ep") == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_when_tab_is_pressed(script: Path) -> None:
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(PS1="> ", TERM="dumb")
        os.execlp("bash", "bash", "--norc", "--noprofile", "-i")
    seen = b""

    def wait_for(text: bytes) -> None:
        nonlocal seen
        end = time.monotonic() + 60
        while text not in seen and time.monotonic() < end:
            if select.select([fd], [], [], 0.2)[0]:
                seen += os.read(fd, 4096)
        assert text in seen, seen

    try:
        os.write(fd, f"source {script}; echo rea''dy\n".encode())
        wait_for(b"ready")
        os.write(fd, b"echo ddptrain; ddptrain veri\t")
        wait_for(b"ddptrain verify ")
    finally:
        os.close(fd)
        os.waitpid(pid, 0)


def test_every_shell_knows_every_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(keys()) > 100
    for shell in SHELLS:
        print_completion(shell)
        text = capsys.readouterr().out
        for name, command in commands().items():
            assert re.search(rf"\b{name}\b", text), (shell, name)
            for option in command.options:
                wanted = option if shell != "fish" else f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
                assert wanted in text, (shell, name, option)
        assert "train.epochs=" in text
