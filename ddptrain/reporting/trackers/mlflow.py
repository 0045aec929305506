"""MLflow: a server, or plain files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any

import numpy as np

from ddptrain.reporting.pictures import save
from ddptrain.reporting.trackers.base import Service

AT_ONCE = 100
"""Parameters that MLflow takes in one call."""
LONGEST = 500
"""Characters of a parameter's value that every version of MLflow takes."""

MARKS = {"train": "time/epoch", "val": "val/bad_images"}
"""Of each kind of numbers one that is always among them, and finite."""


class MLflow(Service):
    """A run of the experiment `MLFLOW_EXPERIMENT_NAME`, or `ddptrain`, at `MLFLOW_TRACKING_URI`, or in files: the folder
    `mlruns` beside the run folder."""

    def __init__(self, folder: Path, known: str | None) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            uri = (folder.absolute().parent / "mlruns").as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # from version 3 on, files must be asked for
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric, self._param = Metric, Param
        self._client = MlflowClient(tracking_uri=uri)
        self.sent: dict[str, int] = {}
        if known is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "ddptrain")
            experiment = self._client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
            self.id = str(self._client.create_run(number, run_name=folder.name).info.run_id)
        else:
            self.id = known
            self._client.update_run(known, status="RUNNING")
            for kind, tag in MARKS.items():
                steps = [point.step for point in self._client.get_metric_history(known, tag)]
                self.sent |= {kind: max(steps)} if steps else {}

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        now = round(1000 * time())
        finite = {tag: value for tag, value in values.items() if math.isfinite(value)}
        self._client.log_batch(self.id, [self._metric(_name(tag), value, now, step) for tag, value in finite.items()])

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        self._keep(tag, step, ".jpg", lambda path: save(path, image))

    def text(self, tag: str, text: str, step: int) -> None:
        self._keep(tag, step, ".txt", lambda path: path.write_text(text, encoding="utf-8"))

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """At the start; MLflow refuses to change a parameter, so those of a run that was changed stay as they were."""
        if metrics:
            return
        known = self._client.get_run(self.id).data.params
        new = [self._param(_name(key), str(value)[:LONGEST]) for key, value in values.items() if _name(key) not in known]
        for first in range(0, len(new), AT_ONCE):
            self._client.log_batch(self.id, params=new[first : first + AT_ONCE])

    def close(self, finished: bool = False) -> None:
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")

    def _keep(self, tag: str, step: int, suffix: str, write: Any) -> None:
        from tempfile import TemporaryDirectory

        folder, _, name = _name(tag).rpartition("/")
        with TemporaryDirectory() as temporary:
            path = Path(temporary) / f"{name}-{step:08d}{suffix}"
            write(path)
            self._client.log_artifact(self.id, str(path), folder or None)


def _name(tag: str) -> str:
    """A name that MLflow takes: a file in a folder, so that `loss` and `loss/box` can both be metrics."""
    folder, slash, rest = re.sub(r"[^\w\-./ ]", "_", tag).partition("/")
    return folder + slash + rest.replace("/", ".")
