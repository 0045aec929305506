"""A small run of every task, on which the promise is tried. A new task adds a line to `RUNS`, at the end of this file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ddptrain.data.synthetic.people import write_people
from ddptrain.data.synthetic.scenes import write_demo


class SmallRun(NamedTuple):
    """Seconds of training.

    Attributes:
        write: writes the datasets into an empty folder.
        config: the run as YAML; `DATA` stands for that folder.
        exact: overrides with which no sample's output depends on others and no norm amplifies rounding: any split must agree.
        norms: overrides with which the model has running statistics, if it can: a resumed run must have them, too.
    """

    write: Callable[[Path], None]
    config: str
    exact: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()


COMMON = """
name: run
output: OUTPUT
train: {steps: 6, global_batch: 12}
eval: {every_epochs: null}
checkpoint: {every_epochs: null}
monitor: {tensorboard: false, every_steps: 2}
"""


def write_config(task: str, data: Path, output: Path) -> Path:
    """The config of a task's small run, `output/config-TASK.yaml`; the run's folder is `output/run`."""
    path = output / f"config-{task}.yaml"
    path.write_text((COMMON + RUNS[task].config).replace("DATA", str(data)).replace("OUTPUT", str(output)))
    return path


def write_scenes(folder: Path) -> None:
    """The two synthetic datasets of the demo, small."""
    write_demo(folder, images=24, seed=3)


SCENES = """
classes: [car, bus, pedestrian]
data:
  train:
    - {name: skyview, format: visdrone, root: DATA/skyview, split: train, share: 2, drop: ["*"]}
    - {name: streets, format: voc, root: DATA/streets, split: train, share: 1, loss_weight: 2}
  val:
    - {name: skyview, format: visdrone, root: DATA/skyview, split: val, drop: ["*"]}
    - {name: streets, format: voc, root: DATA/streets, split: val}
  image_size: 64
  workers: 0
model: {norm: group, strides: [8, 16]}
# Adam divides by the gradient's own size: where that is rounding noise, its sign is what differs between splits
optimizer: {name: sgd, lr: 0.01, momentum: 0.937}
"""


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


def write_shapes(folder: Path) -> None:
    """A folder for each class, below train and val."""
    r = np.random.default_rng(5)
    for split, part in (("train", 1.0), ("val", 0.6)):
        for name, count in {"disc": 14, "square": 8, "stripes": 5}.items():
            (folder / split / name).mkdir(parents=True)
            for i in range(round(count * part)):
                cv2.imwrite(str(folder / split / name / f"{i}.png"), shape(name, r))


# with all that could depend on how a batch is split
SHAPES = """
task: classification
classes: [disc, square, stripes]
data:
  train: [{name: shapes, format: folder, root: DATA, split: train}]
  val: [{name: shapes, format: folder, root: DATA, split: val}]
  image_size: 32
  workers: 0
  balance: oversample
  augment: {mixup: 0.3, cutmix: 0.5, close_epochs: 0}
model: {name: lenet}
loss: {class_weights: balanced, label_smoothing: 0.1}
"""


def drawn_scene(r: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 `[48, 56, 3]` and the class of each pixel, `[48, 56]`: a disc (1) and a square (2) on noisy ground (0)."""
    image, mask = r.integers(0, 60, (48, 56, 3)).astype(np.uint8), np.zeros((48, 56), np.uint8)
    for label, colour in ((1, (220, 80, 40)), (2, (60, 120, 230))):
        x, y, side = int(r.integers(10, 46)), int(r.integers(10, 38)), int(r.integers(6, 10))
        for target, value in ((image, colour), (mask, label)):
            if label == 1:
                cv2.circle(target, (x, y), side, value, -1)
            else:
                cv2.rectangle(target, (x - side, y - side), (x + side, y + side), value, -1)
    mask[:2] = 255
    return image, mask


def write_masks(folder: Path) -> None:
    """Two datasets: `all` labels discs and squares, `discs` knows no squares, which are void there."""
    r = np.random.default_rng(7)
    for name in ("all", "discs"):
        for split, count in (("train", 10), ("val", 5)):
            for part in ("images", "masks"):
                (folder / name / part / split).mkdir(parents=True)
            for i in range(count):
                image, mask = drawn_scene(r)
                if name == "discs":
                    mask[mask == 2] = 255
                cv2.imwrite(str(folder / name / "images" / split / f"{i}.png"), image)
                cv2.imwrite(str(folder / name / "masks" / split / f"{i}.png"), mask)


MASKS = """
task: segmentation
classes: [ground, disc, square]
data:
  train:
    - {name: all, format: masks, root: DATA/all, split: train, names: [ground, disc, square], share: 2}
    - {name: discs, format: masks, root: DATA/discs, split: train, names: [ground, disc], share: 1}
  val:
    - {name: all, format: masks, root: DATA/all, split: val, names: [ground, disc, square]}
    - {name: discs, format: masks, root: DATA/discs, split: val, names: [ground, disc]}
  image_size: 64
  workers: 0
model: {norm: group}
loss: {dice: 1, class_weights: balanced}
optimizer: {name: sgd, lr: 0.01, momentum: 0.9}
"""


def write_panoramas(folder: Path) -> None:
    """Synthetic panoramas in JRDB's layout."""
    write_people(folder, train=3, val=2, frames=2, seed=1)


PAIRS = """
task: interaction
classes: [conversation, shaking hands, walking together, sitting together, others]
data:
  train: [{name: halls, format: jrdb, root: DATA, rename: {"*": others}, split: train}]
  val: [{name: halls, format: jrdb, root: DATA, rename: {"*": others}, split: val}]
  image_size: 32
  workers: 0
  pairs: {use_group_sampling: true, max_negatives_per_frame: 12, balance_ratio: 2}
model: {name: interaction, backbone: small_resnet, norm: group, width: 8, hidden: 16, dropout: 0}
loss: {class_weights: balanced, label_smoothing: 0.1}
optimizer: {name: sgd, lr: 0.01}
"""

RUNS: dict[str, SmallRun] = {
    "detection": SmallRun(write_scenes, SCENES, exact=("model.norm=none",), norms=("model.norm=batch",)),
    "segmentation": SmallRun(
        write_masks, MASKS, exact=("model.norm=frozen", "data.image_size=32"), norms=("model.norm=batch",)
    ),
    "interaction": SmallRun(write_panoramas, PAIRS, exact=("model.norm=none",), norms=("model.norm=batch",)),
    "classification": SmallRun(write_shapes, SHAPES, norms=("model={name: small_resnet, blocks: 1, width: 8}",)),
}
"""By the name of the task. tests/distributed runs each: in four splits, stopped and resumed, and evaluated on 1 to 3 ranks."""
