"""The optimizers, by name."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ddptrain.config import OptimizerConfig
from ddptrain.optim.groups import parameter_groups

Groups = list[dict[str, Any]]


def _sgd(groups: Groups, c: OptimizerConfig, fused: bool) -> Optimizer:
    """On a GPU fused: it can be told by the device to do nothing."""
    optimizer = torch.optim.SGD(
        groups, c.lr, c.momentum, nesterov=c.nesterov and c.momentum > 0, foreach=not fused, fused=fused
    )
    _begin(optimizer)
    return optimizer


def _begin(optimizer: Optimizer) -> None:
    """A fused SGD's momentum starts from zeros: what it would start from is undefined where the first update is not made."""
    if isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["fused"] and optimizer.defaults["momentum"]:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


OPTIMIZERS: dict[str, Callable[[Groups, OptimizerConfig], Optimizer]] = {
    "sgd": lambda groups, c: _sgd(groups, c, fused=any(p.is_cuda for g in groups for p in g["params"])),
    "adam": lambda groups, c: torch.optim.Adam(groups, c.lr, (c.momentum, c.beta2), c.eps or 1e-8, fused=True),
    "adamw": lambda groups, c: torch.optim.AdamW(groups, c.lr, (c.momentum, c.beta2), c.eps or 1e-8, fused=True),
    "adagrad": lambda groups, c: torch.optim.Adagrad(groups, c.lr, eps=c.eps or 1e-10, foreach=True),
    "rmsprop": lambda groups, c: torch.optim.RMSprop(groups, c.lr, eps=c.eps or 1e-8, momentum=c.momentum, foreach=True),
}


def used_decay(config: OptimizerConfig, global_batch: int) -> tuple[float, str]:
    """The decay of a step at lr 1, and how it comes about, in words.

    Args:
        global_batch: samples per step over all ranks.
    """
    decay, nominal, rule = config.weight_decay, config.nominal_batch, config.scale_weight_decay
    if not decay:
        return 0.0, "none"
    if not rule:
        return decay, "as given (optimizer.scale_weight_decay=false)"
    if rule == "yolo":
        accumulate = max(1, round(nominal / global_batch))
        what = f"{decay:g} x global batch {global_batch} x accumulate {accumulate} / nominal batch {nominal}"
        return decay * (global_batch * accumulate / nominal), f"{what} (optimizer.scale_weight_decay=yolo)"
    what = f"{decay:g} x global batch {global_batch} / nominal batch {nominal}: the same decay per sample at any batch size"
    return decay * (global_batch / nominal), f"{what} (optimizer.scale_weight_decay=true; false and yolo take other rules)"


def build_optimizer(config: OptimizerConfig, model: nn.Module, global_batch: int) -> Optimizer:
    """The optimizer of `model`, which must already be on its device.

    Args:
        config: update rule, learning rate, momentum and decay.
        model: its trainable parameters are grouped by `parameter_groups`; every group has a `name`.
        global_batch: samples per step over all ranks, for the decay, see `used_decay`.

    Raises:
        UserError: the model has no trainable parameter.
    """
    return OPTIMIZERS[config.name](parameter_groups(model, used_decay(config, global_batch)[0]), config)


def trained_names(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """The names of an optimizer's parameters, in its own order."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def follow_names(optimizer: Optimizer, state: dict[str, Any], before: Sequence[str], now: Sequence[str]) -> dict[str, Any]:
    """The state of an optimizer for other parameters: torch goes by their numbers alone. What is new among them has none yet.

    Args:
        before: the names of the parameters in `state`, as those of `optimizer` are `now`.
    """
    number = {name: i for i, name in enumerate(before)}
    kept = {i: state["state"][number[name]] for i, name in enumerate(now) if number.get(name) in state["state"]}
    return {"state": kept, "param_groups": optimizer.state_dict()["param_groups"]}


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take over what an optimizer has learned; its settings (decay, momentum) stay.

    What it keeps of a parameter is laid out in memory as the parameter is now: fused kernels take both for one array, and would
    permute it silently where `train.channels_last` was another.
    """
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    # before torch reads them: where a fused one keeps its count of steps depends on them
    groups = [{**group, **own} for group, own in zip(state["param_groups"], settings, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
    _begin(optimizer)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
