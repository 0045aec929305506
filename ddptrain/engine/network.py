"""The network of a run as it is trained: `model.checkpointing` and `model.compile`, which leave its weights' names alone."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from ddptrain.config.section import NetworkSection
from ddptrain.errors import UserError
from ddptrain.models.checkpointing import checkpoint_stages
from ddptrain.models.mask2former.network import Mask2Former
from ddptrain.models.norms import SYNC_BATCH_NORMS
from ddptrain.models.torchvision_detectors import TorchvisionNetwork
from ddptrain.tasks.base import Task


def build_network(task: Task) -> nn.Module:
    """The task's network, on the CPU, in training with `model.checkpointing`.

    Raises:
        UserError: it has no stages for that.
    """
    model, section = task.build_model(), task.config.model
    if section.checkpointing:
        checkpoint_stages(model, section.name)
    return model


def as_called(model: nn.Module, section: NetworkSection) -> nn.Module:
    """What the forward pass in training calls: with `model.compile` code of its own for each shape of its input, which shares
    the tensors of the model. Evaluation calls the model itself.

    Raises:
        UserError: the network cannot be compiled.
    """
    if not section.compile:
        return model
    why = ""
    if section.checkpointing:
        why = "does not support model.checkpointing; keep one of them"
    elif any(isinstance(m, (TorchvisionNetwork, Mask2Former)) for m in model.modules()):
        why = f"does not support {section.name}, whose control flow depends on the data; remove it"
    elif any(isinstance(m, SYNC_BATCH_NORMS) for m in model.modules()):
        why = "does not support model.norm: sync, which communicates with the other ranks in between; use another norm"
    if why:
        raise UserError(f"model.compile: {why}")
    # one code for several shapes would make the bits depend on which came first
    return cast(nn.Module, torch.compile(model, dynamic=False, fullgraph=True))
