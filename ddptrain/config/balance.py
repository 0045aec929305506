"""`data.balance`: which samples of a dataset are drawn more often."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ddptrain.config.data import DataConfig
from ddptrain.config.rules import Rule, only

BoxBalance = Literal["none", "image_weights", "repeat_factor", "class_balanced"]


class BalancedData(DataConfig):
    balance: str = "none"
    """Draw samples by their classes. Detection (the shares of the datasets and the length of an epoch do not change):
    `repeat_factor`, images with a class that fewer than `balance_threshold` of the images show are drawn more often;
    `class_balanced`, every class has the same total weight, spread over its images; `image_weights`, every box counts by how
    rare its class is, or how badly it is detected; with the last two an image without boxes is never drawn. Classification and
    interaction: all classes equally often, in epochs as long as the largest (`oversample`) or the smallest (`undersample`)
    class asks for."""


class BoxBalanceData(BalancedData):
    balance: BoxBalance = "none"
    balance_threshold: float = Field(default=0.001, gt=0, lt=1)
    """Part of the images that show a class, below which `repeat_factor` repeats them."""
    balance_by: Literal["frequency", "ap"] = "frequency"
    """What `image_weights` are based on: `frequency`, how rare a class is; `ap`, also how far its AP was from 1 in the last
    evaluation (before the first: from 0)."""
    balance_over: Literal["mixture", "dataset"] = "mixture"
    """Where classes are counted: `mixture`, in what is drawn from all datasets by their shares; `dataset`, in each of them."""


BALANCE_RULES: tuple[Rule, ...] = (
    only("data.balance_threshold", "data.balance", "repeat_factor"),
    only("data.balance_by", "data.balance", "image_weights"),
    only("data.balance_over", "data.balance", "image_weights", "repeat_factor", "class_balanced"),
    Rule("data.balance_over", "a mixture of several datasets", lambda run: len(run.data.train) == 1),
    Rule(
        "data.balance_by",
        "eval.every_epochs or eval.every_steps (without them there is one evaluation, at the end)",
        lambda run: run.eval.every_epochs is None and run.eval.every_steps is None,
        "eval.every_epochs eval.every_steps",
    ),
)
