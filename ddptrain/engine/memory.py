"""How much memory a run will need on each device, from one real forward pass of two samples on the CPU."""

from __future__ import annotations

import resource
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ddptrain.engine.network import build_network
from ddptrain.models.norms import refuse_single_values
from ddptrain.structures import SampleKey
from ddptrain.tasks.base import Task

OPTIMIZER_COPIES = {"sgd": 1, "adam": 2, "adamw": 2, "adagrad": 1, "rmsprop": 2}


class Memory(NamedTuple):
    """An estimate; libraries add their own, some 0.5 to 1 GB on CUDA.

    Attributes:
        parameters: of the model.
        state: bytes of weights, gradients, optimizer and average.
        activations: bytes kept for the backward pass of one sample.
        loss: of the two samples, divided by its normalizer, from untrained weights.
    """

    parameters: int
    state: int
    activations: int
    loss: float


def estimate(task: Task) -> Memory:
    """Build the model and run the loss once on the first two samples of the stream."""
    config = task.config
    torch.manual_seed(config.seed)
    model = build_network(task)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    copies = 2 + OPTIMIZER_COPIES[config.optimizer.name] + int(config.ema.enabled)
    keys = task.sampler.keys(torch.arange(2).numpy())
    samples = [task.train[SampleKey(i, int(d), int(n))] for i, (d, n) in enumerate(zip(*keys))]
    batch = task.at_largest(task.train.collate(samples))
    held = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            halved = config.train.precision != "none" and tensor.dtype == torch.float32
            kept[storage.data_ptr()] = storage.nbytes() // (2 if halved else 1)
            alive.append(tensor)  # a freed address would come again
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor), refuse_single_values(batch.images.shape[-1]):
        loss = task.loss(model, batch)
    activations = (sum(kept.values()) + batch.images.nbytes) // 2
    value = float(sum(loss.parts.values())) / max(float(loss.normalizer), 1.0)
    return Memory(sum(p.numel() for p in model.parameters()), weights * copies, activations, value)


def in_use(device: torch.device) -> str:
    """Most memory that this process had so far, on the GPU where it computes there; waits for nothing."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return f"GPU memory {torch.cuda.max_memory_reserved(device) / 2**30:.2f} of {total / 2**30:.0f} GB"
    return f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB"
