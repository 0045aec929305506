"""From files on disk to batches. The sampler is usable alone: `from ddptrain.data import DistributedWeightedSampler`."""

from ddptrain.data.sampler import DistributedWeightedSampler

__all__ = ["DistributedWeightedSampler"]
