"""The Python API: train, load, predict, on a small run of detection; and what the docs say about it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from small_runs import RUNS, write_config

import ddptrain

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLE, PARTS = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    (folder / "data").mkdir()
    RUNS["detection"].write(folder / "data")
    return write_config("detection", folder / "data", folder)


@pytest.fixture(scope="module")
def run(config: Path) -> ddptrain.Run:
    return ddptrain.train(config, "train.steps=2", eval={"every_steps": 2}, train={"global_batch": 4, "micro_batch": 4})


def image_of(config: Path) -> Path:
    return min(config.parent.glob("data/**/*.jpg"))


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, ddptrain; dir(ddptrain); ddptrain.UserError; sys.exit(bool({'torch', 'numpy', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert all(getattr(ddptrain, name) is not None for name in ddptrain.__all__)
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        ddptrain.tarin  # noqa: B018


def test_a_run_is_trained_and_can_be_read(run: ddptrain.Run, config: Path) -> None:
    assert run.folder == config.parent / "run"
    assert run.status is not None
    assert (run.status.state, run.status.step) == ("finished", 2)
    assert {"AP", "step"} <= set(run.summary)
    assert list(run.history["step"]) == [2]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert ddptrain.load_config(run.folder / "config.yaml").train.global_batch == 4


def test_predictions_are_arrays_in_pixels_of_the_image(run: ddptrain.Run, config: Path) -> None:
    model = ddptrain.load(run, device="cpu")
    path = image_of(config)
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    from_path, from_array = model.predict([path, image])
    assert isinstance(from_path, ddptrain.BoxResult)
    assert isinstance(from_array, ddptrain.BoxResult)
    assert np.array_equal(from_path.boxes, from_array.boxes)
    assert (from_path.boxes.dtype, from_path.labels.dtype) == (np.float32, np.int64)
    assert from_path.boxes.shape == (len(from_path.scores), 4) == (len(from_path.labels), 4)
    assert (from_path.boxes <= np.array([*image.shape[1::-1]] * 2)).all()
    assert set(from_path.names) <= set(model.classes)
    assert len(from_path.above(2.0).scores) == 0
    assert isinstance(model.module, torch.nn.Module)
    assert not model.module.training


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3)), np.zeros((3, 4), np.uint8), "gone.jpg", np.zeros((0, 4, 3), np.uint8), None, {"gone.jpg"}]
)
def test_what_is_not_an_image_is_refused_in_one_line(run: ddptrain.Run, image: Any) -> None:
    with pytest.raises(ddptrain.UserError, match=r"^[^\n]+$"):
        ddptrain.load(run.folder).predict(image)


def test_mistakes_are_user_errors(run: ddptrain.Run, config: Path, tmp_path: Path) -> None:
    with pytest.raises(ddptrain.UserError, match="did you mean steps"):
        ddptrain.train(config, train={"step": 3})
    with pytest.raises(ddptrain.UserError, match="write key=value"):
        ddptrain.train(config, {"train": 3})  # type: ignore[arg-type]
    with pytest.raises(ddptrain.UserError, match="resume=auto"):
        ddptrain.train(config)
    with pytest.raises(ddptrain.UserError, match="device: gpu"):
        ddptrain.load(run, device="gpu")
    with pytest.raises(ddptrain.UserError):
        ddptrain.load(tmp_path)


def test_a_run_resumes_in_another_thread_from_a_resolved_config(run: ddptrain.Run, config: Path) -> None:
    resolved = ddptrain.load_config(run.folder / "config.yaml")
    runs: list[ddptrain.Run] = []
    thread = threading.Thread(target=lambda: runs.append(ddptrain.train(resolved, resume="auto", **{"train.steps": 3})))
    thread.start()
    thread.join()
    assert runs[0].status is not None
    assert runs[0].status.step == 3


def test_the_example_of_the_docs_runs(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.jpg").write_bytes(image_of(config).read_bytes())
    text = config.read_text().replace("steps: 6, global_batch: 12, micro_batch: 12", "global_batch: 12, micro_batch: 12")
    (tmp_path / "config.yaml").write_text(text.replace("every_epochs: null", "every_epochs: 1", 1))
    exec(EXAMPLE.replace("train.epochs=10", "train.epochs=1"), {})
    exec(PARTS, {})
