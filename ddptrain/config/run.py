"""`RunConfig`: everything a run is a function of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from ddptrain.config.data import DataConfig
from ddptrain.config.loss import AnyLossConfig, LossConfig
from ddptrain.config.model import ModelConfig, YoloConfig
from ddptrain.config.optim import EmaConfig, OptimizerConfig, ScheduleConfig
from ddptrain.config.section import FileName, Section, Switch
from ddptrain.config.slurm import SlurmConfig
from ddptrain.config.tasks import TaskName, check_task
from ddptrain.config.train import CheckpointConfig, EvalConfig, MonitorConfig, TrainConfig


class ResumeConfig(Section):
    """Going on from a checkpoint; `resume: auto` and `resume: PATH` are short for `resume: {source: …}`."""

    source: str = Field(default="auto", min_length=1)
    """`auto` goes on from the newest checkpoint of this run (or starts it), a path from that checkpoint or run."""
    # not strict: behind the validator below a YAML list is a Python list, which is no tuple
    allow: tuple[Literal["datasets", "classes", "global_batch", "seed", "fresh"], ...] = Field(default=(), strict=False)
    """Differences from the checkpoint that are accepted. `datasets`: other datasets, shares, images or labels. With another
    global batch the steps so far are counted anew in batches of the new size. `fresh`: start anew where no checkpoint of the
    run can be read any more; what is left of them is put aside."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


def _or_text(schema: dict[str, Any]) -> None:
    schema["anyOf"].insert(0, {"type": "string"})


def _or_auto(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"const": "auto"}, {key: schema.pop(key) for key in ("type", "items")} | {"minItems": 1}]


def _class_list(value: Any) -> Any:
    if value == "auto":
        return ()
    if value == []:
        raise ValueError("must have at least 1 item, or be auto")
    return value


Classes = Annotated[
    tuple[str, ...],
    BeforeValidator(_class_list),
    PlainSerializer(lambda classes: list(classes) or "auto", when_used="json"),
]


class RunConfig(Section):
    """One run, whole. Only `classes`, `data.train` and `data.val` must be given."""

    name: FileName = "run"
    """Name of the run, a plain file name; its folder is output/name."""
    output: str = Field(default="runs", min_length=1)
    """Folder that holds the runs."""
    task: TaskName = "detection"
    """What is learned; it decides which formats, models and losses there are. Or `module:Class`, a task of your own (see
    docs/tasks.md)."""
    options: dict[str, Any] = {}
    """Whatever a task of your own wants to be told."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of everything random: weights, order, augmentation."""
    resume: ResumeConfig | None = Field(default=None, json_schema_extra=_or_text)
    """Go on from a checkpoint: `auto`, a path, or the keys below."""
    init_from: str | None = None
    """Run or checkpoint whose weights this run starts from: what fits by name and shape, and of the layers of the classes the
    rows of those with the same name, whatever their order; the rest starts anew. The log says what was taken, made new and
    left; where less than half of the model's values is in it, it is refused."""
    init_strict: Switch = False
    """Refuse an `init_from` with other classes, or of which any tensor does not fit."""
    freeze: tuple[str, ...] = ()
    """Parts of the model that stay as they are, by the beginning of their parameters' names: [backbone]."""
    # not strict: as in ResumeConfig.allow; in Python () stands for auto
    classes: Classes = Field(strict=False, json_schema_extra=_or_auto)
    """The classes that the model learns, in the order of their numbers; or `auto`: those of the training datasets, one dataset
    after the other, each in the order of its own ids, by their names after rename, without those that are ignored or
    dropped. The run folder's config.yaml and the checkpoints hold the list."""
    data: DataConfig
    """Datasets, sizes and augmentation."""
    model: ModelConfig = YoloConfig()
    """The network."""
    loss: AnyLossConfig = LossConfig()
    """Gains of the loss."""
    train: TrainConfig = TrainConfig()
    """Length, batch and precision."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Learning rate over the steps."""
    ema: EmaConfig = EmaConfig()
    """Moving average of the weights."""
    eval: EvalConfig = EvalConfig()
    """When and how to evaluate."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When checkpoints are written."""
    monitor: MonitorConfig = MonitorConfig()
    """What is logged."""
    slurm: SlurmConfig = SlurmConfig()
    """Defaults of a Slurm submission."""

    @property
    def folder(self) -> Path:
        """The run folder, output/name."""
        return Path(self.output) / self.name

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({c for c in self.classes if self.classes.count(c) > 1})
            raise ValueError(f"classes: {', '.join(twice)} is listed twice; name each class once")
        for part in ("train", "val"):
            names = [d.name for d in getattr(self.data, part)]
            for i, d in enumerate(getattr(self.data, part)):
                where = f"data.{part}.{i}"
                if names.count(d.name) > 1:
                    raise ValueError(f"{where}.name: {d.name} is listed twice; give each dataset its own name")
                named = [*d.rename.values(), *(d.annotated if isinstance(d.annotated, tuple) else ())]
                unknown = [c for c in named if c not in self.classes]
                if unknown and self.classes:
                    raise ValueError(
                        f"{where}: {unknown[0]!r} is not a class of the run; classes are {', '.join(self.classes)}"
                    )
        given = [d.name for d in self.data.train if d.share is not None]
        if given and len(given) < len(self.data.train):
            lacking = next(d.name for d in self.data.train if d.share is None)
            raise ValueError(f"data.train: {given[0]} has a share and {lacking} has none; give every dataset a share, or none")
        if given and not any(d.share for d in self.data.train):
            raise ValueError("data.train: all shares are 0; at least one must be above")
        check_task(self)
        return self
