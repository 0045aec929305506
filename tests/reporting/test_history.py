"""`history.csv` and `summary.json`."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ddptrain.reporting.history import History, history_of, write_summary
from ddptrain.system.printable import counted


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_an_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history = History(path)
    history.append({"step": 10, "epoch": 1.0, "AP": 0.25, "APs": math.nan})
    assert path.read_text() == "step,epoch,AP,APs\n10,1.0,0.25,\n"
    history.append({"step": 20, "epoch": 2.0, "AP": np.float32(0.5), "APs": None})
    assert [r["AP"] for r in table(path)] == ["0.25", "0.5"]
    assert [p.name for p in tmp_path.iterdir()] == ["history.csv"]


def test_a_new_column_comes_last_and_is_empty_before(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history = History(path)
    history.append({"step": 1, "AP": 0.1})
    history.append({"AP, car": 0.3, "step": 2})
    assert table(path) == [{"step": "1", "AP": "0.1", "AP, car": ""}, {"step": "2", "AP": "", "AP, car": "0.3"}]


def test_a_resumed_run_writes_the_table_of_an_uninterrupted_one(tmp_path: Path) -> None:
    rows = [{"step": s, "AP": s / 7, "name": 'a "b", c'} for s in range(1, 9)]
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    through = History(whole)
    for row in rows:
        through.append(row)
    first = History(broken)
    for row in rows[:6]:
        first.append(row)
    second = History(broken, resumed=4)  # the checkpoint is older than the last row
    for row in rows[3:]:  # and its own evaluation is made again
        second.append(row)
    assert broken.read_bytes() == whole.read_bytes()


def test_a_fresh_run_starts_empty_and_no_path_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    History(path).append({"step": 5, "AP": 1})
    History(path).append({"step": 1, "AP": 0})
    assert [r["step"] for r in table(path)] == ["1"]
    History(None).append({"step": 1})
    assert History(tmp_path / "other.csv", resumed=3).rows == []


GOOD = "step,samples,AP\n10,120,0.1\n20,240,0.2\n"


@pytest.mark.parametrize(
    ("text", "where", "kept"),
    [
        (GOOD + "x,1,0.5\n", "line 4", ["10", "20"]),
        (GOOD + "30,1\n", "line 4", ["10", "20"]),
        (GOOD + "30,1,0.5,7\n", "line 4", ["10", "20"]),
        (GOOD + "-1,1,0.5\n", "line 4", ["10", "20"]),
        (GOOD + "20,240,0.3\n", "line 4", ["10", "20"]),
        ("AP\n0.5\n", "line 1 and all behind it", []),
        ("step,step\n1,2\n", "line 1 and all behind it", []),
        ("", "line 1 and all behind it", []),
        (GOOD + "30,1," + "9" * 200_000 + "\n", "field larger than field limit (131072)", ["10", "20"]),
        (GOOD + "3\udcff,1,2\n", "line 4", ["10", "20"]),
        (GOOD + "30,1,\udcff\n" * 7, "line 4, line 5, line 6, line 7, line 8 and 2 more", ["10", "20"]),
    ],
)
def test_a_broken_history_is_put_aside_and_reported(tmp_path: Path, text: str, where: str, kept: list[str]) -> None:
    path, said = tmp_path / "history.csv", []
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    history = History(path, resumed=99)
    history.settle(said.append)
    assert said == [
        f"warning: {path}: not a row of a run's history: {where}; the file is now history.broken-1.csv, its other "
        f"{counted(len(kept), 'row is', 'rows are')} kept"
    ]
    assert (tmp_path / "history.broken-1.csv").read_bytes() == text.encode("utf-8", "surrogateescape")
    history.append({"step": 50, "AP": 0.5})
    assert [r["step"] for r in table(path)] == [*kept, "50"]
    history.settle(said.append)
    assert len(said) == 1


def test_rows_come_in_the_order_of_steps(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("step,AP\n20,0.2\n10,0.1\n")
    history = History(path, resumed=99)
    assert (history.faults, [r["step"] for r in history.rows]) == ([], ["10", "20"])


def test_the_history_of_the_run_that_a_run_starts_from_is_taken_along(tmp_path: Path) -> None:
    (tmp_path / "a" / "checkpoints").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "history.csv").write_text(GOOD)
    checkpoint = tmp_path / "a" / "checkpoints" / "step_00000010.pt"
    checkpoint.touch()
    for source in (tmp_path / "a", checkpoint.parent, checkpoint):
        assert history_of(source) == tmp_path / "a" / "history.csv"
    own = tmp_path / "b" / "history.csv"
    History(own, 10, history_of(checkpoint)).settle(pytest.fail)
    assert own.read_text() == "step,samples,AP\n10,120,0.1\n"
    own.write_text("step,samples,AP\n5,60,0.3\n")  # a restart of the new run has a history of its own
    assert [r["step"] for r in History(own, 10, history_of(checkpoint)).rows] == ["5"]
    assert (tmp_path / "a" / "history.csv").read_text() == GOOD


@pytest.mark.parametrize(("batch", "steps"), [(24, ["5", "10"]), (6, ["20", "40"]), (12, ["10", "20"])])
def test_steps_of_another_size_are_recounted_once(tmp_path: Path, batch: int, steps: list[str]) -> None:
    path = tmp_path / "history.csv"
    path.write_text(GOOD + "30,360,0.3\n")
    for _ in range(2):  # the same checkpoint again, after the first row of its own
        history = History(path, 240 // batch, recount=(240, batch))
        assert [r["step"] for r in history.rows] == steps
        history.append({"step": 240 // batch + 1, "samples": 240 + batch})


def test_summary_is_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_summary(path, {"AP": 1})
    mixture = [{"name": "ü", "drawn": np.int64(3), "coverage": math.inf, "loss": np.float32("nan")}]
    write_summary(path, {"AP": math.nan, "step": 5, "images_per_second": np.float64(2.5), "mixture": mixture, "resumed": True})

    def no_constant(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    assert json.loads(path.read_text(), parse_constant=no_constant) == {
        "AP": None,
        "step": 5,
        "images_per_second": 2.5,
        "mixture": [{"name": "ü", "drawn": 3, "coverage": None, "loss": None}],
        "resumed": True,
    }
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_a_faulty_summary_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_summary(path, {"AP": 1})
    with pytest.raises(TypeError, match="Tensor"):
        write_summary(path, {"AP": torch.tensor(1.0)})
    assert json.loads(path.read_text()) == {"AP": 1}
