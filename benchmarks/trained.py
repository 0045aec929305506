"""Trainings inside a benchmark, each a program of its own with one thread: their CPU time, and their metrics along it.

A training that has ended is not made again: `trained.json` in its folder holds what it took and reached. One of this package
that was interrupted goes on from its checkpoint; one of the usual package starts anew.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ddptrain.config import DetectionRun

LIMITS = {"conf": 0.001, "iou": 0.7, "max_det": 300}
"""Of the predictions of the usual package: as `eval` of this one has them by default."""
PREDICT = """
import json, os, sys
from ultralytics import YOLO
weights, images, out, options = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
model, found = YOLO(weights), {}
for path in open(images).read().splitlines():
    boxes = model.predict(path, device="cpu", verbose=False, **options)[0].boxes
    rows = zip(boxes.cls.int().tolist(), boxes.conf.tolist(), boxes.xyxy.tolist())
    found[os.path.basename(path)] = {"detections": [{"class": model.names[c], "score": s, "box": b} for c, s, b in rows]}
json.dump(found, open(out, "w"))
"""
"""What the usual package runs to write its predictions as `ddptrain predict` does."""


class Trained(NamedTuple):
    """A training that has ended.

    Attributes:
        metrics: of its last evaluation.
        cpu: seconds of CPU time, its evaluations included.
        curve: of each evaluation the epoch, the seconds up to it, and AP.
    """

    metrics: dict[str, float]
    cpu: float
    curve: list[tuple[float, float, float]]

    def passed(self, ap: float) -> tuple[float, float] | None:
        """Epoch and CPU seconds at the first evaluation with at least this AP; None where there is none."""
        return next(((epoch, cpu) for epoch, cpu, own in self.curve if own >= ap), None)


def train_own(config: Mapping[str, Any], overrides: Sequence[str], folder: Path) -> Trained:
    """Train a config of this package in `folder`, the run folder."""
    done, asked = folder / "trained.json", {"config": dict(config), "overrides": list(overrides)}
    if done.exists():
        return _read(done, asked)
    # not with_suffix: a name may end in a number with a point
    file, partial, log = (folder.with_name(folder.name + suffix) for suffix in (".yaml", ".json", ".log"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(dict(config)))
    own = [f"output={folder.parent}", f"name={folder.name}", "resume=auto", "data.workers=0", "train.threads=1"]
    command = [sys.executable, "-m", "ddptrain", "train", str(file), *overrides, *own, "monitor.tensorboard=false"]
    started = json.loads(partial.read_text()) if partial.exists() else {"cpu": 0.0, "curve": []}

    def note(cpu: float) -> None:
        rows = _history(folder)
        known = len(started["curve"])
        started["curve"] += [[float(r["epoch"]), before + cpu, float(r["AP"] or 0)] for r in rows[known:]]
        started["cpu"] = before + cpu
        if len(rows) > known:
            partial.write_text(json.dumps(started))

    before = started["cpu"]
    cpu = _cpu_of(command, log, note)
    note(cpu)
    last = _history(folder)[-1]
    metrics = {k: float(v) for k, v in last.items() if v and k.startswith(("AP", "AR", "class/"))}
    _write(done, Trained(metrics, started["cpu"], started["curve"]), asked)
    return _read(done, asked)


def train_peer(
    python: str,
    data: Path,
    images: Path,
    run: DetectionRun,
    seed: int,
    truth: Path,
    folder: Path,
    changes: Mapping[str, str],
) -> Trained:
    """Train YOLO11n of the usual package from scratch, with its own defaults but for these: no evaluation on the way, and no
    pictures. Its last weights are scored by this package.

    Args:
        python: of an environment with that package.
        data: data.yaml of the set in the YOLO layout.
        images: list of the images that are scored.
        run: gives the size of images and the epochs.
        truth: config whose `data.val` is the truth.
        changes: to the settings of that package.
    """
    options = {
        "model": "yolo11n.yaml", "data": data, "imgsz": run.data.image_size, "epochs": int(run.train.epochs),
        "seed": seed, "project": folder, "name": "run", "pretrained": False, "val": False, "plots": False, "workers": 0,
        "device": "cpu", "exist_ok": True, **changes,
    }  # fmt: skip
    done, asked = folder / "trained.json", {k: str(v) for k, v in options.items()}
    if done.exists():
        return _read(done, asked)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    program = str(Path(python).with_name("yolo"))
    cpu = _cpu_of([program, "detect", "train", *(f"{k}={v}" for k, v in options.items())], folder / "log.txt")
    predictions, scores = folder / "predictions.json", folder / "scores.json"
    weights = folder / "run" / "weights" / "last.pt"
    limits = json.dumps(LIMITS | {"imgsz": run.data.image_size})
    _cpu_of([python, "-c", PREDICT, str(weights), str(images), str(predictions), limits], folder / "predict.txt")
    score = ["eval", "--predictions", str(predictions), "--truth", str(truth), "--json", str(scores)]
    _cpu_of([sys.executable, "-m", "ddptrain", *score], folder / "eval.txt")
    metrics = json.loads(scores.read_text())
    _write(done, Trained(metrics, cpu, [(run.train.epochs, cpu, metrics["AP"])]), asked)
    return _read(done, asked)


def all_of(trainings: Iterable[Callable[[], None]], jobs: int) -> None:
    """Run all of them, so many at once."""
    with ThreadPoolExecutor(jobs) as pool:
        for training in [pool.submit(t) for t in trainings]:
            training.result()


def _cpu_of(command: Sequence[str], log: Path, note: Callable[[float], None] = lambda cpu: None) -> float:
    """Run a program to its end; its CPU seconds, of which `note` is told twice a second."""
    alone = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    with log.open("a") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | alone)
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            note(_so_far(process.pid))
            time.sleep(0.5)
    except BaseException:
        process.terminate()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command[:4])} … ended with status {process.returncode}; see {log}")
    return usage.ru_utime + usage.ru_stime


def _so_far(pid: int) -> float:
    """CPU seconds of a process that runs and of those that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _history(folder: Path) -> list[dict[str, str]]:
    path = folder / "history.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, trained: Trained, asked: Mapping[str, Any]) -> None:
    path.write_text(json.dumps({"asked": asked, **trained._asdict()}))


def _read(path: Path, asked: Mapping[str, Any]) -> Trained:
    """What was trained; ends the benchmark where it was something else than is asked for now."""
    content = json.loads(path.read_text())
    if content["asked"] != json.loads(json.dumps(asked)):
        sys.exit(f"{path.parent} was trained with other settings; remove it, or give another --out")
    return Trained(content["metrics"], content["cpu"], [tuple(row) for row in content["curve"]])
