"""The example of docs/tasks.md runs as it stands: it learns, exactly, and is used like any task."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from support import Forked, Ranks, command_line, final_state, largest_difference

from ddptrain.cli import main
from ddptrain.config import load_config
from ddptrain.errors import UserError
from ddptrain.structures import SampleKey
from ddptrain.tasks.build import build_task, new_task

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
CODE, YAML = (re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[0] for kind in ("python", "yaml"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the page's two files, and pictures of dots."""
    (tmp_path / "count.py").write_text(CODE)
    (tmp_path / "count.yaml").write_text(YAML)
    (tmp_path / "dots").mkdir()
    r = np.random.default_rng(0)
    for split, size in (("train", 120), ("val", 24)):
        lines = []
        for i in range(size):
            n = int(r.integers(0, 5))
            image = np.zeros((40, 40, 3), np.uint8)
            for _ in range(n):
                cv2.circle(image, tuple(int(v) for v in r.integers(4, 36, 2)), 3, (255, 255, 255), -1)
            cv2.imwrite(str(tmp_path / "dots" / f"{split}{i}.png"), image)
            lines.append(f"{split}{i}.png,{n}\n")
        (tmp_path / "dots" / f"{split}.csv").write_text("".join(lines))
    return tmp_path


def there(folder: str, arguments: list[str]) -> int:
    """The command line in another working directory."""
    os.chdir(folder)
    return command_line(arguments)


def ddptrain(place: Path, *arguments: str, ranks: int = 1, expect: int = 0) -> str:
    started = Ranks(ranks, there, str(place), list(arguments))
    assert started.wait() == [expect] * ranks, started.text
    return started.text


def test_it_fits_on_a_screen_and_a_half() -> None:
    assert len([line for line in CODE.splitlines() if line.strip()]) <= 60


def test_the_example_learns_exactly_and_is_evaluated(place: Path) -> None:
    common = ("train", "count.yaml", "monitor.tensorboard=false", "eval.every_epochs=5")
    ddptrain(place, *common, "name=one", "train.epochs=15")
    ddptrain(place, *common, "name=two", "train.steps=4", "train.micro_batch=4", ranks=2)
    ddptrain(place, *common, "name=whole", "train.steps=4")
    states = [final_state(place / "runs" / name) for name in ("two", "whole")]
    assert largest_difference(states[0]["model"], states[1]["model"]) < 1e-5
    found = json.loads(ddptrain(place, "eval", "runs/one", "--json"))
    assert found["r2"] > 0.3
    assert "Count has no predict_file" in ddptrain(place, "predict", "runs/one", "dots", expect=2)
    assert "holds" in ddptrain(place, "verify", "count.yaml", "--resume", "--steps", "2")
    assert "0 errors" in ddptrain(place, "check", "count.yaml")


MEANS = CODE.replace(
    "return LossSum(each.sum(), torch.tensor(float(len(each))).to(each),",
    "n = batch.targets['count'].sum()\n        return LossSum(each.sum() / n, torch.ones(()).to(each),",
)


def test_verify_names_a_loss_that_is_normalised_by_each_micro_batch(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert MEANS != CODE
    (place / "own_means.py").write_text(MEANS)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setattr("ddptrain.commands.short_runs.subprocess.Popen", Forked)
    monkeypatch.setattr(Forked, "fault", f"import os, sys; os.chdir({str(place)!r}); sys.path.insert(0, {str(place)!r})")
    for name, status in (("count", 0), ("own_means", 1)):
        assert main(["verify", "count.yaml", "--split", f"task={name}:Count", "ema.enabled=false"]) == status
        out = capsys.readouterr().out
        assert ("holds: the split changes nothing" in out) == (status == 0)
        assert ("A mistake in the arithmetic, not rounding: it stays in float64" in out) == (status == 1)
    assert out.count("float64: 2 steps") == 3


def test_a_view_beside_the_task_and_the_older_way_on_the_task_itself(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    viewed = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[1].replace("(Task)", "(Whole)")
    (place / "own_viewed.py").write_text(f"from count import Count as Whole\nfrom ddptrain.tasks.base import View\n\n{viewed}")
    (place / "own_older.py").write_text(
        "from count import Count as Whole\nfrom ddptrain.tasks.base import OwnTask\n\n\nclass Count(OwnTask, Whole):\n"
        "    def summary(self, metrics):\n        return super().summary({k.upper(): v for k, v in metrics.items()})\n"
    )
    metrics = {"r2": 0.5, "loss": 2.0}
    for module, (header, rows) in {
        "count": (["metric", "value"], [["r2", 0.5], ["loss", 2.0]]),
        "own_viewed": (["R²", "squared error"], [[0.5, 2.0]]),
        "own_older": (["metric", "value"], [["R2", 0.5], ["LOSS", 2.0]]),
    }.items():
        task = build_task(load_config(place / "count.yaml", [f"task={module}:Count"]))
        assert task.view.summary(metrics) == (header, rows)
        assert task.view.picture(task.train[SampleKey(0, 0, 0)]).shape == (32, 32, 3)
        assert task.view.remarks(metrics) == ()


def test_what_is_not_a_task_is_reported_in_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "own_other.py").write_text("class Other: ...\n")
    for task, line in (
        ("nowhere:Count", "No module named 'nowhere'; run where nowhere.py is"),
        ("own_other:Other", "own_other has no class Other that derives from ddptrain.tasks.base.Task"),
        ("own_other:Gone", "own_other has no class Gone"),
    ):
        for use in (build_task, new_task):
            with pytest.raises(UserError) as e:
                use(load_config(place / "count.yaml", [f"task={task}"]))
            assert line in str(e.value)
    with pytest.raises(UserError, match="options: only for a task of your own, not for classification"):
        load_config(place / "count.yaml", ["task=classification", "options={a: 1}"])
