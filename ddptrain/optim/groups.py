"""Which parameter is decayed: the parameter groups of a model."""

from typing import Any

from torch import nn
from torch.nn import Parameter

from ddptrain.errors import UserError

GROUPS = ("weight", "norm", "bias", "vector")
"""Names of the groups: weights (the only ones decayed), weights of norms, biases (also those of norms), and vectors:
embeddings, layer scales, tokens and everything else that is one-dimensional."""

# LayerNorm2d of torchvision is a LayerNorm; FrozenBatchNorm2d has buffers only
_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)
_EMBEDDING_NAMES = ("embed", "token", "position_bias")


def _kind(module: nn.Module, name: str, parameter: Parameter) -> str:
    """The group of one parameter, by the module that owns it; `name` is its attribute there."""
    if name.endswith("bias") or name.startswith("bias"):
        return "bias"
    if isinstance(module, _NORMS):
        return "norm"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or any(word in name for word in _EMBEDDING_NAMES):
        return "vector"
    # a layer scale may be [C, 1, 1]; a layer with one output, weight [1, C, 1, 1], is not a layer scale
    one_axis = parameter.ndim <= 1 or (parameter.numel() == max(parameter.shape) and name != "weight")
    return "vector" if one_axis else "weight"


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, in the order of `GROUPS`, empty ones left out.

    A parameter that several modules share is counted once, where it comes first. Frozen parameters are left out.

    Args:
        model: the model, already on its device.
        weight_decay: decay of the group `weight`, per step and unit of learning rate; the others get 0.

    Returns:
        Dictionaries with `name` (one of `GROUPS`), `params` and `weight_decay`.

    Raises:
        UserError: the model has no trainable parameter.
    """
    members: dict[str, list[Parameter]] = {name: [] for name in GROUPS}
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                members[_kind(module, name, parameter)].append(parameter)
    groups = [
        {"name": name, "params": params, "weight_decay": weight_decay if name == "weight" else 0.0}
        for name, params in members.items()
        if params
    ]
    if not groups:
        raise UserError("model: it has no trainable parameter; unfreeze a part of it")
    return groups
