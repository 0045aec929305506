"""From files on disk to batches. The sampler is usable alone, in any loop."""

from ddptrain.data.stream.sampler import DistributedWeightedSampler

__all__ = ["DistributedWeightedSampler"]
