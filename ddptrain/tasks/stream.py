"""The global stream of a run, as its config asks for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ddptrain.config import DatasetConfig, RunConfig, TrainConfig
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.errors import UserError
from ddptrain.system.exact import exact


def build_sampler(
    config: RunConfig,
    sizes: Sequence[int],
    sample_weights: Any = None,
    epoch: int | None = None,
    shares: Sequence[float] | None = None,
) -> DistributedWeightedSampler:
    """The stream over the datasets of `data.train`; positions are cut into ranks by the loader, so this one has rank 0 of 1.

    Args:
        sizes: number of samples of each dataset.
        sample_weights: see `DistributedWeightedSampler`.
        epoch: samples per epoch where the config gives none; default: the sum of the sizes.
        shares: of the datasets; default: those of the config, where it gives none by the weights or the sizes.

    Raises:
        UserError: shares or weights that cannot be drawn.
    """
    try:
        return DistributedWeightedSampler(
            sizes,
            shares or shares_of(config.data.train) or None,
            sample_weights=sample_weights,
            samples_per_epoch=config.data.samples_per_epoch or epoch,
            block=config.train.global_batch,
            num_replicas=1,
            rank=0,
            seed=config.seed,
            names=[d.name for d in config.data.train],
        )
    except ValueError as e:
        raise UserError(f"data.train: {e}") from None


def shares_of(datasets: Sequence[DatasetConfig]) -> list[float]:
    """The shares that a config gives; empty where it gives none."""
    return [d.share for d in datasets if d.share is not None]


def run_length(train: TrainConfig, samples_per_epoch: int) -> int:
    """Length of a run in steps."""
    return train.steps or math.ceil(exact(train.epochs) * samples_per_epoch / train.global_batch)
