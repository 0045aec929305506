"""The optimizers, by name."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ddptrain.config import OptimizerConfig
from ddptrain.optim.groups import parameter_groups

Groups = list[dict[str, Any]]


def _sgd(groups: Groups, config: OptimizerConfig) -> Optimizer:
    # not fused: that one fails where a parameter gets its first gradient after the first step
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, foreach=True)


def _adam(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return torch.optim.Adam(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)


def _adamw(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)


def _adagrad(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return torch.optim.Adagrad(groups, lr=config.lr, foreach=True)


def _rmsprop(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return torch.optim.RMSprop(groups, lr=config.lr, momentum=config.momentum, foreach=True)


OPTIMIZERS: dict[str, Callable[[Groups, OptimizerConfig], Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
}


def build_optimizer(config: OptimizerConfig, model: nn.Module, global_batch: int) -> Optimizer:
    """The optimizer of `model`, which must already be on its device.

    Args:
        config: update rule, learning rate, momentum and decay.
        model: its trainable parameters are grouped by `parameter_groups`; every group has a `name`.
        global_batch: samples per step over all ranks; with `scale_weight_decay` the decay is multiplied by
            global_batch / nominal_batch (the rule of YOLOv5: a larger batch takes fewer, so stronger steps of decay).

    Raises:
        UserError: the model has no trainable parameter.
    """
    scale = global_batch / config.nominal_batch if config.scale_weight_decay else 1.0
    return OPTIMIZERS[config.name](parameter_groups(model, config.weight_decay * scale), config)
