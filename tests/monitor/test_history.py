"""`history.csv` and `summary.json`."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ddptrain.errors import UserError
from ddptrain.monitor.history import History, write_summary


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


def test_a_fresh_run_starts_anew_and_no_path_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    History(path).append({"step": 5, "AP": 1})
    History(path).append({"step": 1, "AP": 0})
    assert [r["step"] for r in table(path)] == ["1"]
    History(None).append({"step": 1})
    assert History(tmp_path / "other.csv", resumed=3).rows == []


@pytest.mark.parametrize("text", ["step,AP\n1,0.5\nx,0.5\n", "AP\n0.5\n", "step,AP\n1,2,3\n", "step,AP\n1\n"])
def test_a_file_that_is_no_history(tmp_path: Path, text: str) -> None:
    path = tmp_path / "history.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"history\.csv:{text.count(chr(10))}: not a row"):
        History(path, resumed=9)
    assert path.read_text() == text


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
