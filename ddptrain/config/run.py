"""`RunConfig`: what the runs of every task have in common. The module of a task derives its own run from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from ddptrain.config.data import DataConfig
from ddptrain.config.optim import EmaConfig, OptimizerConfig, ScheduleConfig
from ddptrain.config.rules import RUN_RULES, Rule
from ddptrain.config.section import FileName, NamedSection, NetworkSection, Section, Switch
from ddptrain.config.slurm import SlurmConfig
from ddptrain.config.train import CheckpointConfig, EvalConfig, MonitorConfig, TrainConfig


class ResumeConfig(Section):
    """How to resume from a checkpoint; `resume: auto` and `resume: PATH` are short for `resume: {source: …}`."""

    source: str = Field(default="auto", min_length=1)
    """`auto` resumes from the newest checkpoint of this run (or starts it); a path resumes from that checkpoint or run."""
    # not strict: behind the validator below a YAML list is a Python list, which is not a tuple
    allow: tuple[Literal["datasets", "classes", "global_batch", "seed", "fresh"], ...] = Field(default=(), strict=False)
    """Differences from the checkpoint that are accepted. `datasets`: other datasets, shares, images or labels. With another
    global batch, the steps so far are recounted in batches of the new size. `fresh`: start over where no checkpoint of the
    run can be read any longer; what is left of them is moved aside."""

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
    """One whole run. Only `classes`, `data.train` and `data.val` must be given."""

    name: FileName = "run"
    """Name of the run, a plain file name. The run's folder is output/name."""
    output: str = Field(default="runs", min_length=1)
    """Folder that holds the runs."""
    task: str
    """What is learned: it determines which formats, models, losses and other keys are available. `module:Class` is a task of
    your own (see docs/tasks.md)."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of everything random: weights, order and augmentation."""
    resume: ResumeConfig | None = Field(default=None, json_schema_extra=_or_text)
    """Resume from a checkpoint: `auto`, a path, or the keys below."""
    init_from: str | None = None
    """Run or checkpoint whose weights this run starts from: all tensors whose name and shape match, and in the class layers
    the rows of the classes with the same name, in any order; the rest is initialized. The log reports what was loaded,
    initialized and left out. A source that holds less than half of the model's values is refused."""
    init_strict: Switch = False
    """Refuse an `init_from` with other classes, or with any tensor that does not fit."""
    freeze: tuple[str, ...] = ()
    """Parts of the model that stay as they are, by the beginning of their parameters' names, such as [backbone]."""
    # not strict: as in ResumeConfig.allow; in Python () stands for auto
    classes: Classes = Field(strict=False, json_schema_extra=_or_auto)
    """The classes that the model learns, in the order of their numbers; or `auto`: those of the training datasets, one dataset
    after the other, each in the order of its own ids, by their names after rename, without those that are ignored or
    dropped. The run folder's config.yaml and the checkpoints hold the list."""
    data: DataConfig
    """Datasets, image size, loading and augmentation."""
    model: NetworkSection
    """The network."""
    loss: NamedSection
    """The loss: its gains and weights."""
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

    rules: ClassVar[tuple[Rule, ...]] = RUN_RULES
    """When which of its keys are read by nothing."""
    dataset_rules: ClassVar[tuple[Rule, ...]] = ()
    """The same for the keys of a dataset."""

    @property
    def folder(self) -> Path:
        """The run folder, output/name."""
        return Path(self.output) / self.name

    @classmethod
    def default_names(cls, data: dict[str, Any]) -> dict[str, str]:
        """The names of the model and the loss of a config that does not name them."""
        return {key: cls.model_fields[key].get_default().name for key in ("model", "loss")}

    @model_validator(mode="after")
    def _classes(self) -> RunConfig:
        twice = sorted({c for c in self.classes if self.classes.count(c) > 1})
        if twice:
            both = "is" if len(twice) == 1 else "are"
            raise ValueError(f"classes: {', '.join(twice)} {both} listed twice; name each class once")
        for part in ("train", "val") if self.classes else ():
            for i, d in enumerate(getattr(self.data, part)):
                for name in (*d.rename.values(), *(d.annotated if isinstance(d.annotated, tuple) else ())):
                    if name not in self.classes:
                        raise ValueError(
                            f"data.{part}.{i}: {name!r} is not a class of the run; classes are {', '.join(self.classes)}"
                        )
        return self
