"""Activation checkpointing: what a stage of a backbone computes is forgotten, and computed again by the backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ddptrain.errors import UserError
from ddptrain.models.norms import batch_norms
from ddptrain.models.yolo.network import CspBackbone

_RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")
"""Of torchvision's residual networks, also within its detectors and segmenters."""


class _Forgetful(nn.Module):
    """First base of a stage that keeps its input only. Computed again, it draws the same random numbers, and its norms, which
    have counted the batch before, leave their running statistics alone: gradients and statistics are the same bits."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the stage itself."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*args, **kwargs)
        return checkpoint(super().forward, *args, use_reentrant=False, context_fn=self._contexts, **kwargs)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _uncounted(batch_norms(self))


def checkpoint_stages(model: nn.Module, name: str) -> None:
    """Forget what the stages of a network's backbone compute; names of weights stay.

    Raises:
        UserError: the network, `name`, has no such stages.
    """
    stages = list(_stages(model))
    if not stages:
        raise UserError(
            f"model.checkpointing: {name} has no stages that can be computed again; use yolo with its own backbone, a "
            "ResNet or mask2former, or lower train.micro_batch"
        )
    for stage in stages:
        kind = type(stage)
        stage.__class__ = type(f"Forgetful{kind.__name__}", (_Forgetful, kind), {})


def _stages(model: nn.Module) -> Iterator[nn.Module]:
    for name, module in model.named_modules():
        if isinstance(module, CspBackbone):
            yield from module.stages.values()
        # transformers, whose stages these are, is imported only with the network
        elif type(module).__name__ == "SwinStage" or (
            name.rpartition(".")[2] in _RESNET_STAGES and type(module) is nn.Sequential
        ):
            yield module


@contextmanager
def _uncounted(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Norms that use the statistics of their batch and do not count it: a mean that moves by 0 of the way stays where it is."""
    learning = [norm for norm in norms if norm.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in learning]
    for norm in learning:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(learning, before):
            norm.momentum, norm.num_batches_tracked = momentum, count
