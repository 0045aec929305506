"""Weights & Biases, also offline (`WANDB_MODE=offline`), as its own environment variables say."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.reporting.trackers.base import KINDS, Service, kind_of
from ddptrain.reporting.trackers.wandb_files import offline_rows


class Wandb(Service):
    """A run of the project `WANDB_PROJECT`, or `ddptrain`. Its files are in the folder `wandb` of the run."""

    def __init__(self, folder: Path, known: str | None) -> None:
        import wandb

        self._wandb = wandb
        # its own watch over the console and the machine would take time from the run
        settings = wandb.Settings(console="off", silent=True, x_disable_stats=True)
        project = os.environ.get("WANDB_PROJECT", "ddptrain")
        more: dict[str, Any] = {} if known is None else {"id": known, "resume": "allow"}
        self._run = wandb.init(project=project, name=folder.name, dir=str(folder), settings=settings, **more)
        self.id = str(self._run.id)
        kept = list(offline_rows(folder)) if known is not None and self._run.offline else [dict(self._run.summary)]
        steps = {kind: [int(row[f"{kind}_step"]) for row in kept if f"{kind}_step" in row] for kind in KINDS}
        self.sent = {kind: max(of_kind) for kind, of_kind in steps.items() if of_kind}
        # its own count of steps never falls, but evaluations belong to steps that are reported already
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        finite = {tag: value for tag, value in values.items() if math.isfinite(value)}
        self._run.log({"step": step, f"{kind_of(values)}_step": step, **finite})

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        self._run.log({"step": step, tag: self._wandb.Image(image, file_type="jpg")})

    def text(self, tag: str, text: str, step: int) -> None:
        self._run.log({"step": step, tag: self._wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False)})

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        self._run.config.update(dict(values), allow_val_change=True)
        self._run.summary.update(dict(metrics))

    def close(self, finished: bool = False) -> None:
        self._run.finish(exit_code=0 if finished else 1)
