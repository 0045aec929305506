"""`optimizer`, `schedule` and `ema`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ddptrain.config.section import Section, Switch


class OptimizerConfig(Section):
    """The optimizer and its decay."""

    name: Literal["sgd", "adam", "adamw", "adagrad", "rmsprop"] = "adamw"
    """The update rule."""
    lr: float = Field(default=0.002, gt=0)
    """Peak learning rate, for the global batch as given."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd and rmsprop, first beta of adam and adamw; adagrad has none."""
    nesterov: Switch = True
    """Whether sgd looks ahead by its momentum (Nesterov)."""
    beta2: float = Field(default=0.999, gt=0, lt=1)
    """Second beta of adam and adamw, the decay of the squared gradients. `betas: [0.9, 0.999]` sets momentum and beta2."""
    eps: float | None = Field(default=None, gt=0)
    """What adam, adamw, rmsprop and adagrad add to the divisor. Default: 1e-8, of adagrad 1e-10."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Decay of the weights; biases, norms, embeddings and layer scales are never decayed."""
    scale_weight_decay: Switch | Literal["yolo"] = True
    """How the decay follows the batch. true: it is multiplied by global_batch / nominal_batch, so that the decay per sample
    is the same at any batch size (at 16 of a nominal 64, a quarter of it per step). `yolo`: it is multiplied by global_batch x
    accumulate / nominal_batch with accumulate = max(1, round(nominal_batch / global_batch)), YOLO's own rule, which hardly
    changes it up to the nominal batch (YOLO also accumulates batches up to it, as do global_batch 64 and micro_batch 16).
    false: it is taken as it is. The log of a run reports the decay that is used."""
    nominal_batch: int = Field(default=64, ge=1)
    """The batch that `weight_decay` is meant for."""


class ScheduleConfig(Section):
    """Learning rate over the steps, as a multiplier of `optimizer.lr`."""

    name: Literal["one_cycle", "one_cycle_3", "linear", "cosine", "constant", "multi_step", "plateau"] = "one_cycle"
    """The form of the schedule. `one_cycle` and `cosine`: half a cosine from 1 to final; `one_cycle_3`: the three phases of
    torch's OneCycleLR, which warms up by itself (set warmup_epochs to 0); `linear`: from 1 to final; `constant`;
    `multi_step`; `plateau`: lowered each time the task's own metric has stopped getting better."""
    final: float = Field(default=0.01, ge=0, le=1)
    """Multiplier at the end of the run (of `linear`, `cosine` and `one_cycle`)."""
    milestones: tuple[float, ...] = (0.7, 0.9)
    """Fractions of the run after which the rate is multiplied by gamma (of `multi_step`)."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """Factor at each milestone (of `multi_step`)."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    """What the rate is multiplied by each time it is lowered (of `plateau`)."""
    patience: int = Field(default=10, ge=1)
    """Number of evaluations without a better value of the task's own metric (AP, accuracy, mIoU, f1) after which the rate is
    lowered (of `plateau`). One in which it is undefined does not count."""
    threshold: float = Field(default=1e-4, ge=0, lt=1)
    """Fraction of the best value so far by which a value must exceed it to count as better (of `plateau`)."""
    pct_start: float = Field(default=0.3, gt=0, le=0.5)
    """Fraction of the run in which the rate rises, and in which it falls again (of `one_cycle_3`)."""
    div_factor: float = Field(default=25.0, ge=1)
    """The rate starts at 1 / div_factor (of `one_cycle_3`)."""
    final_div_factor: float = Field(default=1e4, ge=1)
    """The rate ends at 1 / (div_factor * final_div_factor) (of `one_cycle_3`)."""
    warmup_epochs: float = Field(default=3.0, ge=0)
    """Epochs of linear warm-up of the learning rate (from 0) and the momentum, capped one step short of the run's length;
    0 for none."""
    warmup_bias_lr: float = Field(default=0.1, ge=0)
    """Learning rate of the biases at the first step of the warm-up, for sgd; under the other rules, whose steps are as
    large as the learning rate, biases start from 0 like the rest."""
    warmup_momentum: float = Field(default=0.8, ge=0, lt=1)
    """Momentum at the first step of the warm-up, at most `optimizer.momentum`."""

    @model_validator(mode="after")
    def _milestones(self) -> "ScheduleConfig":
        if list(self.milestones) != sorted(set(self.milestones)) or not all(0 < m < 1 for m in self.milestones):
            raise ValueError("milestones: must be rising fractions between 0 and 1, such as [0.7, 0.9]")
        return self


class EmaConfig(Section):
    """Exponential moving average of the weights; evaluation and export use it."""

    enabled: Switch = True
    """Keep a moving average of the weights; without it the weights themselves are evaluated."""
    decay: float = Field(default=0.9999, ge=0, lt=1)
    """Decay that the average has at most. With a tau it is decay * (1 - exp(-step / tau)) after a step."""
    tau: Annotated[float, Field(gt=0)] | None = None
    """Number of steps over which the decay rises (of YOLO 2000). null: after a step it is (1 + step) / (10 + step), at most
    `decay`, so that the average is over about the last tenth of the steps so far, however long the run is."""
