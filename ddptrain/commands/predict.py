"""`ddptrain predict`: the predictions of a run for images, as pictures and as JSON, one image after the other."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ddptrain import distributed
from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.commands.image_files import Skipped, distinct, find_images, refuse_overwriting
from ddptrain.config import DetectionRun, OwnRun, RunConfig, resolve
from ddptrain.data.tables.faults import Faults
from ddptrain.data.tables.windows import Cutter
from ddptrain.engine.arithmetic import arithmetic, inputs_of_any_size
from ddptrain.errors import UserError
from ddptrain.reporting.pictures import save
from ddptrain.system.files import write_bytes, write_text
from ddptrain.system.printable import counted, say, warn
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import new_task

REST = 20
"""Between two writes of all results pass this many times the seconds of a write, so that it stays a small part of the whole."""


def predict_run(
    run: Path,
    images: Sequence[Path],
    out: Path | None,
    score: float,
    limit: int | None,
    depth: Path | None = None,
    tiles: int | None = None,
) -> int:
    """Draw the predictions of a run for images, and write all of them to `predictions.json`, which is whole at any time.

    Args:
        run: run folder or checkpoint.
        images: files, or folders, searched with their subfolders.
        out: folder of the pictures, which lie in it as the images do in theirs; default `predictions` in the run folder.
        score: detections below it are not drawn (predictions.json has them all).
        limit: at most this many images, evenly spread over all of them.
        depth: folder of the images' depth maps, for a model that takes depth; default those of the run's datasets.
        tiles: predict in windows of this side in pixels; default as the run's `eval.tiles` says.

    Returns:
        0; 1 if some images could not be used, 2 if none could.
    """
    faults = Faults()
    files = find_images(images, faults)
    paths, names = list(files), distinct(list(files.values()))
    if limit is not None:
        chosen = sorted({i * len(paths) // limit for i in range(limit)})
        paths, names = [paths[i] for i in chosen], [names[i] for i in chosen]
    checkpoint = load_checkpoint(run, best=True)
    config = checkpoint.config
    out = out or (run if run.is_dir() else checkpoint.path.parent) / "predictions"
    refuse_overwriting(paths, out, (f"{name}{suffix}" for name in names for suffix in (".jpg", ".png")))
    task = new_task(_changed(config, depth, tiles))
    if type(task).predict_file is Task.predict_file:
        raise UserError(f"predict: {config.task} has no predict_file; write one")
    world = distributed.discover_or_cpu(config.train.device)
    device = world.device
    if world.lacking:
        warn(world.lacking)
    model = checkpoint.fill(task.build_model()).to(device).eval()
    results, skipped = _Results(out / "predictions.json", getattr(task, "cutter", None)), Skipped()
    if faults.counts:
        say(f"left out: {faults.text()}")
    try:
        with arithmetic(config.train, device), inputs_of_any_size(), torch.inference_mode():
            for path, name in zip(paths, names):
                with skipped.skipping(path):
                    prediction, picture = task.predict_file(model, path, device, score)
                    drawn = out / f"{name}.jpg"
                    save(drawn, picture)
                    results.add(path, {k: _written(drawn, v) for k, v in prediction.items()})
    finally:
        results.write()
    say(f"{counted(len(results), 'image')} with {checkpoint.path}: pictures and predictions.json in {out}")
    for line in results.remarks():
        say(line)
    return skipped.status(len(paths))


def _changed(config: RunConfig, depth: Path | None, tiles: int | None) -> RunConfig:
    """The config with windows of this size, and with this folder of depth maps, read as those of the run's first dataset that
    has any."""
    if tiles is not None:
        if not isinstance(config, DetectionRun):
            raise UserError(
                f"--tiles: only a run of detection predicts in windows, the run's task is {config.task}; leave it out"
            )
        stored = json.loads(config.model_dump_json())
        config = resolve(stored, [f"eval.tiles.size={tiles}"], source="--tiles", stored=True)
    if depth is None:
        return config
    if not isinstance(config, DetectionRun | OwnRun) or getattr(config.model, "in_channels", 3) == 3:
        raise UserError("--depth: the run's model takes no depth (its model.in_channels is 3); leave --depth out")
    if not depth.is_dir():
        raise UserError(f"--depth: {depth} is not a directory; name that of the images' depth maps")
    data = config.data
    like = next((d for d in (*data.val, *data.train) if d.depth is not None), data.val[0])
    own = (like.model_copy(update={"depth": str(depth.absolute()), "exif": data.exif}),)
    return config.model_copy(update={"data": data.model_copy(update={"train": own, "val": own})})


def _written(picture: Path, value: Any) -> Any:
    """A value for JSON; the bytes of a PNG are written to a file beside the picture, whose name it is."""
    if not isinstance(value, bytes):
        return value
    file = picture.with_suffix(".png")
    write_bytes(file, value)
    return file.name


class _Results:
    """All predictions so far, by path, in a JSON file that is replaced as a whole now and then."""

    def __init__(self, file: Path, cutter: Cutter | None = None) -> None:
        self._file = file
        self._cutter = cutter
        self._entries: list[str] = []
        self._next = 0.0
        self.without_depth = self.left_out = self.taken_whole = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, path: Path, prediction: dict[str, Any]) -> None:
        """Add one; it is in the file at once, or soon."""
        self._entries.append(f"{json.dumps(os.fspath(path))}: {json.dumps(prediction, indent=1)}")
        self.without_depth += prediction.get("depth") is False
        if self._cutter is not None:
            self.taken_whole += len(self._cutter.windows(prediction["width"], prediction["height"])) == 1
        for line in prediction.get("left_out", ()):  # people of a frame
            self.left_out += 1
            warn(f"left out: {line}")
        if time.monotonic() >= self._next:
            self.write()

    def remarks(self) -> Iterator[str]:
        """What was predicted otherwise than one might think, a line each."""
        if self.without_depth:
            yield f"{self.without_depth} of them without a depth map: the model takes their depth as unknown everywhere"
        if self.taken_whole:
            yield f"{self.taken_whole} of them predicted whole, being no larger than a window of eval.tiles"
        if self.left_out:
            yield f"{counted(self.left_out, 'person was', 'people were')} left out of them, as warned above"

    def write(self) -> None:
        """Replace the file by one with all of them; one that is there already stays where there are none."""
        if not self._entries and self._file.exists():
            return
        start = time.monotonic()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._file, "{\n" + ",\n".join(self._entries) + "\n}\n")
        self._next = time.monotonic() + REST * (time.monotonic() - start)
