"""Small datasets of the tasks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

COUNTS = {"disc": 14, "square": 8, "stripes": 5}


def shape(name: str, r: np.random.Generator) -> np.ndarray:
    """uint8 `[40, 36, 3]`: a shape in any colour on a noisy ground."""
    image = r.integers(0, 60, (40, 36, 3)).astype(np.uint8)
    colour = tuple(int(c) for c in r.integers(140, 256, 3))
    x, y, side = (int(v) for v in (r.integers(13, 24), r.integers(13, 26), r.integers(7, 11)))
    if name == "disc":
        cv2.circle(image, (x, y), side, colour, -1)
    elif name == "square":
        cv2.rectangle(image, (x - side, y - side), (x + side, y + side), colour, -1)
    else:
        image[:, ::4] = colour
    return image


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each class, below train and val."""
    root, r = tmp_path_factory.mktemp("shapes"), np.random.default_rng(5)
    for split, part in (("train", 1.0), ("val", 0.6)):
        for name, count in COUNTS.items():
            (root / split / name).mkdir(parents=True)
            for i in range(round(count * part)):
                cv2.imwrite(str(root / split / name / f"{i}.png"), shape(name, r))
    return root


@pytest.fixture
def shapes_config(tmp_path: Path, shapes: Path) -> Path:
    """A classification run of seconds, with all that could depend on how a batch is split; its folder is `tmp_path / name`."""
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""
name: run
output: {tmp_path}
task: classification
classes: [disc, square, stripes]
data:
  train: [{{name: shapes, format: folder, root: {shapes}, split: train}}]
  val: [{{name: shapes, format: folder, root: {shapes}, split: val}}]
  image_size: 32
  workers: 0
  balance: oversample
  augment: {{mixup: 0.3, cutmix: 0.5, close_epochs: 0}}
model: {{name: lenet}}
loss: {{class_weights: balanced, label_smoothing: 0.1}}
train: {{steps: 5, global_batch: 12, micro_batch: 12}}
eval: {{every_epochs: null}}
checkpoint: {{every_epochs: null}}
monitor: {{tensorboard: false, every_steps: 2}}
"""
    )
    return path


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few synthetic panoramas in JRDB's layout."""
    from ddptrain.data.synthetic_people import write_people

    root = tmp_path_factory.mktemp("people")
    write_people(root, train=3, val=2, frames=2, seed=1)
    return root


@pytest.fixture
def pairs_config(tmp_path: Path, people: Path) -> Path:
    """An interaction run of seconds, stage 1; its folder is `tmp_path / name`."""
    path = tmp_path / "pairs.yaml"
    halls = f'{{name: halls, format: jrdb, root: {people}, rename: {{"*": others}}, split: '
    path.write_text(
        f"""
name: run
output: {tmp_path}
task: interaction
classes: [conversation, shaking hands, walking together, sitting together, others]
data:
  train: [{halls}train}}]
  val: [{halls}val}}]
  image_size: 32
  workers: 0
  pairs: {{use_group_sampling: true, max_negatives_per_frame: 12, balance_ratio: 2}}
model: {{name: interaction, backbone: small_resnet, width: 8, hidden: 16, dropout: 0}}
loss: {{class_weights: balanced, label_smoothing: 0.1}}
optimizer: {{name: sgd, lr: 0.01}}
train: {{steps: 5, global_batch: 12, micro_batch: 12}}
eval: {{every_epochs: null}}
checkpoint: {{every_epochs: null}}
monitor: {{tensorboard: false, every_steps: 2}}
"""
    )
    return path
