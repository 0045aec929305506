"""What comes from data and configs is shown, not obeyed."""

from io import StringIO
from pathlib import Path

import pytest

from ddptrain.cli import main
from ddptrain.reporting.console import Console
from ddptrain.reporting.page import Section, page
from ddptrain.reporting.table import Table
from ddptrain.system.printable import printable

EVIL = "\x1b[31mcar\x1b]0;owned\x07\x9b2J\u202e\r"


def test_what_is_visible_stays_as_it_is() -> None:
    for text in ("a b", "Straße 日本 é 🙂", ""):
        assert printable(text) == text
    assert printable("a\nb") == r"a\nb"
    assert printable("a\nb", lines=True) == "a\nb"


def test_control_characters_are_written_out() -> None:
    assert printable(EVIL) == r"\x1b[31mcar\x1b]0;owned\x07\x9b2J\u202e\r"
    assert printable("\udcff") == r"\udcff"


def test_console_log_and_page_hold_no_control_characters(tmp_path: Path) -> None:
    out = StringIO()
    with Console(tmp_path / "log.txt", total_steps=1, steps_per_epoch=1, stream=out) as console:
        console.line(f"warning: {EVIL}\nfinished at step 1")
        console.table(EVIL, Table([EVIL], [[EVIL + "\n"]]))
    html = page(EVIL, EVIL, [EVIL], [EVIL], [Section(EVIL, [EVIL], [EVIL], [[EVIL]])])
    for text in (out.getvalue(), (tmp_path / "log.txt").read_text(), html):
        assert r"\x1b[31mcar" in text
        assert all(c.isprintable() or c == "\n" for c in text)
    assert out.getvalue().startswith("warning: ")
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 1 + 4


def test_an_error_on_the_command_line_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(
        "classes: [a]\ndata: {train: [{name: x, format: voc, root: r}], val: [{name: x, format: voc, root: r}]}\n"
    )
    red = r'"\e[31mred\x9b\n"'
    assert main(["config", str(tmp_path / "run.yaml"), f"classes=[{red}, {red}]"]) == 2
    said = capsys.readouterr().err
    assert r"\x1b[31mred\x9b\n" in said
    assert said.count("\n") == 1
    assert said.strip("\n").isprintable()
