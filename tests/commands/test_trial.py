"""`--dry-run` and `--overfit N` train in a folder that is gone afterwards, on one rank or several, and say what they are."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support import Ranks, command_line, train

from ddptrain.data.synthetic.scenes import write_demo


def one(pattern: str, text: str) -> str:
    """What the only match of a pattern has in its group."""
    (found,) = re.findall(pattern, text)
    return str(found)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_dry_run_makes_two_steps_an_evaluation_and_a_checkpoint_and_leaves_nothing(config: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    for world_size in (1, 2):
        text = train(world_size, config, f"output={tmp_path / 'new' / 'runs'}", "eval.every_steps=1", "--dry-run")
        assert text.count("evaluation after step 2") == 1
        assert "dry run: 2 steps, an evaluation and a checkpoint of" in text
        assert "s a step, memory" in text
        assert "the 6 steps of the run take about" in text
        assert text.count("nothing is kept") == 1
    assert files(tmp_path) == before


def test_a_dry_run_leaves_a_run_of_that_name_alone_and_removes_what_a_killed_one_has_left(config: Path, tmp_path: Path) -> None:
    train(1, config, "train.steps=1")
    before = files(tmp_path)
    left = tmp_path / ".run.dry-run"
    left.mkdir()
    (left / "log.txt").write_text("of a dry run that was killed")
    train(1, config, "resume=auto", "--dry-run")
    assert files(tmp_path) == before


def test_a_mistake_ends_a_dry_run_as_it_would_the_run(config: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    text = train(1, config, "data.train.0.root=nowhere", "--dry-run", expect=2)
    assert "nowhere" in text
    assert files(tmp_path) == before


def test_a_dry_run_by_nproc(config: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    ranks = Ranks(1, command_line, ["train", str(config), "--nproc", "2", "--dry-run"])
    assert ranks.wait() == [0], ranks.text
    assert "dry run: 2 steps" in ranks.text
    assert "× 2 ranks" in ranks.text
    assert files(tmp_path) == before


def test_images_that_are_not_learned_are_reported_and_the_set_is_their_own(config: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    text = train(1, config, "--overfit", "5", "optimizer.lr=1.0e-9", "train.global_batch=1", expect=1)
    assert "a check, no training: 5 training images without augmentation, evaluated on themselves" in text
    # shares 2 and 1 of five images
    assert "train skyview: 3 images" in text
    assert "val streets: 2 images" in text
    assert "NOT memorised (AP < 0.9)" in text
    assert files(tmp_path) == before


@pytest.mark.learning
@pytest.mark.timeout(1200)
def test_the_detector_memorizes_sixteen_images(tmp_path: Path) -> None:
    """At its defaults, on the demo's scenes: those of `streets`, with large objects, to AP 1; those of `skyview` have objects
    of a few pixels. Neither DFL nor classification can reach 0, since their targets are not one-hot; the box loss can."""
    write_demo(tmp_path / "data", images=24, seed=3)
    path = tmp_path / "config.yaml"
    path.write_text(DEMO.replace("DATA", str(tmp_path / "data")).replace("OUTPUT", str(tmp_path)))
    os.environ["OMP_NUM_THREADS"] = "1"
    text = train(1, path, "--overfit", "16", timeout=1100)
    assert "at the last: memorised" in text
    assert float(one(r"streets +5 +(\S+)", text.partition("evaluation after")[2])) >= 0.98
    assert float(one(r"check: AP (\S+)", text)) >= 0.93
    first, last = re.findall(r"\(box ([^,]+),", text)
    assert float(last) < 0.05 * float(first)


DEMO = """
name: run
output: OUTPUT
classes: [car, bus, pedestrian]
data:
  train:
    - {name: skyview, format: visdrone, root: DATA/skyview, split: train, share: 2, drop: ["*"]}
    - {name: streets, format: voc, root: DATA/streets, split: train, share: 1}
  val:
    - {name: streets, format: voc, root: DATA/streets, split: val}
  image_size: 128
  workers: 0
"""
