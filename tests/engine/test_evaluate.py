"""Validation images that cannot be read: counted, named, and too many of them fail the evaluation."""

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_runs import RUNS, write_config

from ddptrain.cli import main
from ddptrain.config import load_config
from ddptrain.distributed import World
from ddptrain.engine.evaluate import evaluate, refuse_bad
from ddptrain.errors import RunFailed
from ddptrain.structures import SampleKey
from ddptrain.tasks.build import build_task

ONE = World(0, 1, 0, 1, torch.device("cpu"), "single")


@pytest.mark.parametrize("task", RUNS)
def test_every_task_counts_what_it_could_not_read(tmp_path: Path, task: str) -> None:
    RUNS[task].write(tmp_path)
    overrides = ["eval.max_bad_images=2", "eval.batch=8", "data.workers=0"]
    config = load_config(str(write_config(task, tmp_path, tmp_path)), overrides)
    built = build_task(config)
    size = built.val[0][1]
    files = list(dict.fromkeys(built.val_samples.source(SampleKey(0, 0, i)) for i in range(size)))
    for file in files[:2]:
        Path(file).write_bytes(b"gone")

    evaluation = evaluate(built, built.build_model(), ONE)
    assert evaluation.metrics["bad_images"] == 2 == len(evaluation.replaced)
    # a grey image may be answered rightly by chance, or with false alarms
    total = "2 validation images could not be read; the metrics count what was predicted from a grey image instead"
    assert evaluation.warnings()[-1] == total


@pytest.mark.parametrize(
    ("bad", "samples", "most", "limit"),
    [
        (["a"], 4, None, None),
        (["a", "a", "a"], 4, None, None),
        (["a", "b"], 200, None, None),
        (["a", "b"], 199, None, "2 of 199 samples), more than one in a hundred, as eval.max_bad_images is not set"),
        (
            ["a"],
            9,
            0,
            "1 validation image could not be read (1 of 9 samples), more than eval.max_bad_images=0; the first: a; repair",
        ),
        (["a", "b", "b"], 9, 2, None),
    ],
)
def test_the_limit(bad: list[str], samples: int, most: int | None, limit: str | None) -> None:
    """Of images, as several samples may be of one; where it is not set, of samples, one image in any case."""
    lines = [f"{name}; replaced by a grey image" for name in bad]
    if limit is None:
        refuse_bad(lines, samples, most)
    else:
        with pytest.raises(RunFailed, match=re.escape(limit)):
            refuse_bad(lines, samples, most)


def test_a_run_and_its_evaluation_report_the_count(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    RUNS["classification"].write(tmp_path)
    bad = tmp_path / "val/disc/0.png"
    cv2.imwrite(str(bad), np.random.default_rng(0).integers(0, 256, (40, 36, 3), np.uint8))
    data = bytearray(bad.read_bytes())
    data[100:400] = bytes(300)  # its header and its end are sound
    bad.write_bytes(data)
    config = str(write_config("classification", tmp_path, tmp_path))
    run = tmp_path / "run"
    assert main(["train", config, "train.steps=1"]) == 0
    assert json.loads((run / "summary.json").read_text())["bad_images"] == 1
    assert list(csv.DictReader((run / "history.csv").read_text().splitlines()))[-1]["bad_images"] == "1"
    line = f"warning: {bad}: not an image that OpenCV can decode"
    assert line in (run / "log.txt").read_text()
    assert "warning: 1 validation image could not be read" in (run / "log.txt").read_text()
    capfd.readouterr()
    assert main(["eval", str(run), "--json"]) == 0
    output = capfd.readouterr()
    assert json.loads(output.out)["bad_images"] == 1
    assert line in output.err
    assert main(["eval", str(run), "eval.max_bad_images=0"]) == 1
    assert "1 validation image could not be read (1 of 16 samples), more than eval.max_bad_images=0" in capfd.readouterr().err
    assert main(["train", config, "name=other", "train.steps=1", "eval.max_bad_images=0"]) == 1
    assert "more than eval.max_bad_images=0" in (tmp_path / "other/status.json").read_text()
