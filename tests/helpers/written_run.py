"""A run folder written by hand, with names that try to be HTML."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from ddptrain.reporting.run_page.findings import Findings, write_findings
from ddptrain.reporting.run_page.parts import Bars, Chart, Line, Matrix, Numbers, Picture, Section

EVIL = '<script>document.title="owned"</script>'
SET = "<script>document.title=1<b>"
FILE = '"><img src=x onerror=alert(1)>.jpg'


def write_run(folder: Path, lr: float = 0.01, ap: float = 0.5) -> Path:
    """A finished run of two classes, one named `EVIL`, with evaluation, mixture, log and one start."""
    (folder / "profile").mkdir(parents=True)
    dataset = {"name": "one", "format": "voc", "root": "data"}
    other = dataset | {"name": SET}
    config = {
        "name": folder.name, "output": str(folder.parent), "classes": ["car", EVIL],
        "data": {"train": [dataset], "val": [dataset, other]}, "optimizer": {"lr": lr},
    }  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "status.json").write_text(json.dumps({"state": "finished", "step": 8, "steps": 8, "time": "2026-01-01T00:00:00"}))
    mixture = [{"name": EVIL, "size": 10, "share_asked": 1.0, "share_drawn": 1.0, "drawn": 80, "passes": 8.0, "coverage": 1.0}]
    (folder / "summary.json").write_text(json.dumps({"AP": ap, "step": 8, "images_per_second": 40.0, "mixture": mixture}))
    header = f'step,samples,lr,train/loss,AP,loss,class/car/AP,"class/{EVIL.replace(chr(34), chr(34) * 2)}/AP"\n'
    (folder / "history.csv").write_text(header + f"4,40,0.01,3,0.2,3.5,0.3,0.1\n8,80,0.005,2,{ap},3,0.6,0.4\n")
    rows = "".join(f"{i},{10 * i - 10},1,{9 - i},{5 - i / 2},{4 - i / 2},1.5,7\n" for i in range(1, 9))
    (folder / "steps.csv").write_text(f"step,position,updated,loss,box,{EVIL},gradient_norm,normalizer\n" + rows)
    (folder / "log.txt").write_text(
        f"2026-01-01 00:00:00  warning: {EVIL}: an image cannot be read\n"
        "2026-01-01 00:00:01  epoch 0.4/0.8  step 4/8  box 3.000  35 img/s  data 2%  ETA 0:01\n"
        "2026-01-01 00:00:02  epoch 0.8/0.8  step 8/8  box 2.000  40 img/s  data 3%  ETA 0:00\n"
    )
    (folder / "profile" / "steps.txt").write_text(
        "a step takes 10.0 ms\n  part     ms a step        %\n  -------  ---------  -------\n"
        "  forward      2.500   25.000\n  step        10.000  100.000\n"
    )
    record = {"code": "0.1.0+abc", "commit": "c0ffee", "torch": "2.9", "torchvision": "0.24", "numpy": "2.0", "opencv": "5.0"}
    start = {
        "time": "2026-01-01T00:00:00",
        "step": 0,
        "ranks": 2,
        "ranks_here": 2,
        "host": "node1",
        "command": "ddptrain train x",
    }
    start |= {
        "folder": "/home/me",
        "launcher": "torchrun",
        "record": record,
        "slurm": {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node[1-3]"},
    }
    (folder / "starts.jsonl").write_text(json.dumps(start) + "\n")
    (folder / "jobs" / "run-1").mkdir(parents=True)
    (folder / "jobs" / "run-1" / "job.json").write_text(json.dumps({"slurm": {"nodes": 3, "gpus_per_node": 8}}))
    (folder / "jobs" / "run-1" / "id").write_text("4712\n")
    sections = [
        Section("errors", "Errors", [
            Chart("precision over recall", "recall", "precision", [Line(EVIL, [0, 0.5, 1], [1, 0.8, 0.2])]),
            Bars("by dataset", [EVIL], {"F1": [0.5]}),
            Matrix("boxes", ["car", EVIL], [[3, 1], [0, 2]]),
            Numbers(["file", "n"], [[FILE, 1], ["b.jpg", 3], ["c.jpg", 2]]),
            Picture("worst.jpg", FILE),
        ]),
    ]  # fmt: skip
    metrics = {
        "AP": ap,
        "AP50": 0.7,
        "class/car/AP": 0.6,
        f"class/{EVIL}/AP": 0.4,
        "dataset/one/AP": 0.5,
        f"dataset/{SET}/AP": 0.4,
    }
    intervals = {"AP": (0.41, 0.59), "class/car/AP": (0.5, 0.7)}
    write_findings(folder / "report", Findings({"step": 8, "weights": "best"}, metrics, intervals, sections))
    noise = np.random.default_rng(0).integers(0, 255, (900, 1300, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "report" / "worst.jpg"), noise)
    return folder
