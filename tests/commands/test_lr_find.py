"""The range test proposes the same rate each time, by a rule worked out by hand here, and leaves nothing but its picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import command_line

from ddptrain.commands.lr_find import Point, proposal, smooth


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = command_line(["lr-find", *arguments])
    out, err = capsys.readouterr()
    return code, out + err


@pytest.mark.usefixtures("figures")
def test_the_proposal_is_the_same_each_time(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {*tmp_path.rglob("*")}
    picture = tmp_path / "lr.png"
    arguments = (str(config), "optimizer.name=adamw", "--steps", "24", "--out", str(picture))
    code, text = found(capsys, *arguments)
    assert code == 0, text
    assert "the smoothed loss was lowest" in text
    lr = float(text.rpartition("optimizer.lr=")[2])
    assert 1e-5 < lr < 1e-1
    assert found(capsys, *arguments) == (code, text)
    assert {*tmp_path.rglob("*")} - before == {picture}


def test_without_matplotlib_there_is_a_number_and_no_picture(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = found(
        capsys, str(config), "--steps", "12", "--low", "1e-3", "--high", "0.03", "--out", str(tmp_path / "lr.png")
    )
    assert code == 0, text
    assert "did not diverge up to 0.03" in text
    assert "no picture: matplotlib is not installed" in text
    assert not (tmp_path / "lr.png").exists()


def test_the_rule() -> None:
    """The lowest smoothed loss is 1 at a rate of 0.1: a tenth of that is proposed."""
    points = [Point(1e-3, 4.0), Point(1e-2, 2.0), Point(0.1, 1.0), Point(1.0, 9.0)]
    why, lr = proposal(points, [4.0, 3.0, 1.0, 5.0], 10)
    assert lr == pytest.approx(0.01)
    assert why == "the smoothed loss was lowest, 1, at 0.1 and diverged at 1; a tenth of that rate is proposed"
    why, lr = proposal([Point(10.0**i, 4.0) for i in range(5)], [4.0] * 5, 5)
    assert lr is None
    assert why.startswith("the smoothed loss never fell below 4 (it began at 4): no rate was found")
    assert proposal([], [], 9)[1] is None


def test_smoothing_leaves_a_minimum_where_it_is() -> None:
    losses = [abs(i - 13) + (i % 2) for i in range(40)]
    smoothed = smooth(losses, 2.0)
    assert smoothed.index(min(smoothed)) in (12, 13, 14)
    assert smooth([5.0] * 7, 1.0) == pytest.approx([5.0] * 7)


@pytest.mark.parametrize(
    ("keys", "said"), [(("--steps", "3"), "--steps 3: must be"), (("--low", "1", "--high", "0.1"), "--low 1 --high 0.1")]
)
def test_impossible_ranges_are_refused(
    config: Path, capsys: pytest.CaptureFixture[str], keys: tuple[str, ...], said: str
) -> None:
    code, text = found(capsys, str(config), *keys)
    assert code == 2
    assert said in text
