"""The Python API: `train` a run, `load` its model, `predict` with it. See docs/api.md."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import torch
from torch import nn

from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.config import RunConfig, load_config, resolve
from ddptrain.config.moved import check_moved
from ddptrain.engine.stop import StopFlag, watch_launcher
from ddptrain.engine.trainer import train as train_run
from ddptrain.errors import RunFailed, UserError
from ddptrain.reporting.history import History
from ddptrain.system.limits import open_file_limit
from ddptrain.system.printable import counted
from ddptrain.system.status import FAILED, Status, read_status
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import new_task

Image: TypeAlias = "str | os.PathLike[str] | np.ndarray"
"""Path of an image file, or uint8 `[height, width, 3]` in RGB."""


@dataclass(frozen=True)
class Run:
    """A run folder. Its files are read again at each access, so a run that is still training can be watched.

    Attributes:
        folder: the run's folder.
    """

    folder: Path

    @property
    def status(self) -> Status | None:
        """State ("running", "stopped", "finished" or "failed"), steps, reason; None before the run has begun."""
        return read_status(self.folder)

    @property
    def summary(self) -> dict[str, Any]:
        """`summary.json`: the metrics of the last evaluation by flat names, and what was trained; empty before the first."""
        try:
            return dict(json.loads((self.folder / "summary.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}

    @property
    def history(self) -> Mapping[str, Sequence[float]]:
        """`history.csv` by columns, a row for each evaluation: `step`, `epoch`, `lr`, losses and metrics."""
        return History(self.folder / "history.csv", sys.maxsize).table


def train(config: str | os.PathLike[str] | Mapping[str, Any] | RunConfig, *overrides: str, **keys: Any) -> Run:
    """Train a run in this process, or as one rank where torchrun or srun started it.

    The first Ctrl-C, or another stop signal, ends the run after the present step with a saved checkpoint, from which
    `resume="auto"` continues; a second Ctrl-C raises KeyboardInterrupt. Outside the main thread no signals are handled.

    Args:
        config: path of a YAML file, a mapping with the same keys, or a resolved config.
        overrides: changes as on the command line: `"train.epochs=10"`.
        keys: changes as keywords, applied last: `name="trial", train={"epochs": 10}` changes the name and, of the section
            `train`, the epochs alone. Lists are replaced as a whole.

    Returns:
        The run; its `status.state` is "finished", or "stopped" after a stop signal.

    Raises:
        UserError: a mistake in the config or the datasets, or the run exists and `resume` is not given.
        RunFailed: the training failed, or its last checkpoint could not be written.
    """
    open_file_limit()
    notes: list[str] = []
    changes = [*map(str, overrides), *_as_overrides(keys)]
    resolved = _resolve(config, changes, notes.append)
    main_thread = threading.current_thread() is threading.main_thread()  # no other may set handlers of signals
    with StopFlag(interactive=True) if main_thread else nullcontext(StopFlag()) as stop:
        watch_launcher(stop)
        exit_status = train_run(resolved, stop, notes)
    run = Run(resolved.folder.absolute())
    if exit_status == FAILED:
        raise RunFailed(f"{run.folder}: {run.status.reason if run.status else 'the run failed'}")
    return run


def _resolve(
    config: str | os.PathLike[str] | Mapping[str, Any] | RunConfig, overrides: Sequence[str], tell: Callable[[str], None]
) -> RunConfig:
    if isinstance(config, RunConfig):
        return resolve(json.loads(config.model_dump_json(exclude_unset=True)), overrides, tell=tell)
    if isinstance(config, Mapping):
        return resolve(json.loads(json.dumps(dict(config), default=_plain)), overrides, tell=tell)
    path = Path(config)
    resolved = load_config(path, overrides, tell=tell)
    check_moved(path, resolved)
    return resolved


def _as_overrides(keys: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in keys.items():
        if isinstance(value, Mapping) and value and all(isinstance(k, str) and "." not in k for k in value):
            yield from _as_overrides(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={json.dumps(value, default=_plain, ensure_ascii=False)}"


def _plain(value: Any) -> Any:
    """A number of numpy or torch as a plain one, anything else (a path) as text."""
    return value.item() if hasattr(value, "item") else str(value)


@dataclass(frozen=True)
class BoxResult:
    """Objects in one image, best first.

    Attributes:
        boxes: float32 `[n, 4]`: (x1, y1, x2, y2) in pixels of the image.
        scores: float32 `[n]` in 0..1.
        labels: int64 `[n]`, index into `classes`.
        classes: names of the classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The class name of each box."""
        return [self.classes[label] for label in self.labels]

    def above(self, score: float) -> BoxResult:
        """The objects with at least this score."""
        keep = self.scores >= score
        return BoxResult(self.boxes[keep], self.scores[keep], self.labels[keep], self.classes)


@dataclass(frozen=True)
class LabelResult:
    """What one image shows.

    Attributes:
        probabilities: float32 `[classes]` in 0..1; they add up to 1 unless the run learned several classes per image.
        classes: names of the classes.
    """

    probabilities: np.ndarray
    classes: tuple[str, ...]

    @property
    def label(self) -> int:
        """The most probable class."""
        return int(self.probabilities.argmax())

    @property
    def name(self) -> str:
        """Name of the most probable class."""
        return self.classes[self.label]


@dataclass(frozen=True)
class MaskResult:
    """The class of every pixel of one image.

    Attributes:
        mask: uint8 `[height, width]`, index into `classes`.
        probabilities: float32 `[height, width]` in 0..1, of the class in `mask`.
        classes: names of the classes.
    """

    mask: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True)
class PairResult:
    """Pairs of people in one panorama that are near enough to interact.

    Attributes:
        people: float32 `[p, 4]`: their boxes (x1, y1, x2, y2) in pixels; x2 lies past the width across the seam.
        pairs: int64 `[n, 2]`, rows of `people`.
        interacting: float32 `[n]` in 0..1, the probability that they interact; nan where the run did not learn it.
        kinds: float32 `[n, classes]` in 0..1, how they interact if they do; no columns in a run of stage 1.
        classes: names of the kinds; in a run of stage 1 whether they interact.
    """

    people: np.ndarray
    pairs: np.ndarray
    interacting: np.ndarray
    kinds: np.ndarray
    classes: tuple[str, ...]


Result: TypeAlias = "BoxResult | LabelResult | MaskResult | PairResult | Mapping[str, np.ndarray]"
RESULTS: dict[str, Callable[..., Result]] = {
    "detection": BoxResult,
    "classification": LabelResult,
    "segmentation": MaskResult,
    "interaction": PairResult,
}
"""The type of a prediction by task; a task of the user's own returns its arrays by name."""


class Model:
    """A trained model, ready to predict.

    Attributes:
        module: the network in evaluation mode, with the weights that the run evaluated (averaged, unless it kept no average).
        classes: names of the classes.
        config: the config of the run.
        file: the checkpoint that the weights come from.
        device: where the network computes.
    """

    def __init__(self, task: Task, module: nn.Module, file: Path, device: torch.device) -> None:
        self.module, self.file, self.device = module, file, device
        self.config, self.classes = task.config, tuple(task.classes)
        self._task = task

    @overload
    def predict(self, image: Image) -> Result: ...  # type: ignore[overload-overlap]  # a text is a sequence of texts
    @overload
    def predict(self, image: Sequence[Image]) -> list[Result]: ...
    def predict(self, image: Image | Sequence[Image]) -> Result | list[Result]:
        """Predict on one image, or on each of a list.

        Args:
            image: path of an image file, which is read as in training (with its depth map or, in JRDB's layout, its people,
                for a model that takes them), or an array, uint8 `[height, width, 3]` in RGB.

        Returns:
            `BoxResult`, `LabelResult`, `MaskResult` or `PairResult`, as the task of the run is; a list of them for a list.

        Raises:
            UserError: an image cannot be read, or an array is not an image.
        """
        if isinstance(image, (list, tuple)):
            return [self.predict(each) for each in image]
        with torch.inference_mode():
            path = Path(image) if isinstance(image, (str, os.PathLike)) else None
            array = _checked(image) if path is None else self._task.read_file(path)
            arrays = self._task.predict_image(self.module, array, self.device, path)
        if self.config.task not in RESULTS:
            return arrays
        return RESULTS[self.config.task](**arrays, classes=self.classes)

    def __repr__(self) -> str:
        classes = counted(len(self.classes), "class", "classes")
        return f"<ddptrain.Model {self.config.task}, {classes}, {self.file}, on {self.device}>"


def _checked(image: Any) -> np.ndarray:
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        given = f"{array.dtype} {' x '.join(map(str, array.shape))}" if array.ndim else type(image).__name__
        raise UserError(f"image: must be a path or a uint8 array [height, width, 3] in RGB, not {given}")
    return np.ascontiguousarray(array)


def load(run: Run | str | os.PathLike[str], *, device: str | torch.device | None = None) -> Model:
    """Load the trained model of a run. It computes with the threads and the kernels that this process has chosen in torch, not
    with `train.threads`, `train.tf32` and `train.deterministic`, which would change them for the whole process.

    Args:
        run: a run, its folder (the best checkpoint is taken), or a checkpoint file.
        device: such as "cpu" or "cuda:1"; None for CUDA where there is a GPU, else the CPU.

    Raises:
        UserError: there is no checkpoint, it cannot be read, or the device does not exist.
    """
    checkpoint = load_checkpoint(run.folder if isinstance(run, Run) else Path(run), best=True)
    task = new_task(checkpoint.config)
    module = checkpoint.fill(task.build_model())
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        module.to(place)
    except (RuntimeError, AssertionError) as e:
        raise UserError(f"device: {name}: {str(e).splitlines()[0]}; give cpu or a GPU, such as cuda:0") from None
    return Model(task, module.eval(), checkpoint.path, place)
