"""The global stream of a run, as its config asks for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ddptrain.config import RunConfig
from ddptrain.data.augment.partners import Partners
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.errors import UserError


def build_sampler(
    config: RunConfig, sizes: Sequence[int], sample_weights: Any = None, epoch: int | None = None
) -> DistributedWeightedSampler:
    """The stream over the datasets of `data.train`; positions are cut into ranks by the loader, so this one has rank 0 of 1.

    Args:
        sizes: number of samples of each dataset.
        sample_weights: see `DistributedWeightedSampler`.
        epoch: samples per epoch where the config gives none; default: the sum of the sizes.

    Raises:
        UserError: shares or weights that cannot be drawn.
    """
    shares = [d.share for d in config.data.train if d.share is not None]
    try:
        return DistributedWeightedSampler(
            sizes,
            shares or None,
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


def build_partners(config: RunConfig, sampler: DistributedWeightedSampler, chance: float) -> Partners | None:
    """Where mosaic, mixup and cutmix take their further images from; None where their chance is 0."""
    if not chance:
        return None
    epoch = sampler.mixture.samples_per_epoch
    end = run_length(config, epoch) * config.train.global_batch
    return Partners(sampler.keys, epoch, max(0.0, end - config.data.augment.close_epochs * epoch))


def mixing_notes(config: RunConfig, epoch: int, partners: Partners | None, *kinds: str) -> list[str]:
    """Lines for the log: how long `kinds` of `data.augment` (keys) mix images, and a warning where they never do."""
    if partners is None:
        return []
    end = run_length(config, epoch) * config.train.global_batch
    chances = " and ".join(f"{kind} of {getattr(config.data.augment, kind):.0%}" for kind in kinds)
    if not partners.until:
        never = " and ".join(f"no {kind}" for kind in kinds)
        return [
            f"warning: {never}: data.augment.close_epochs is as long as the run, {config.data.augment.close_epochs:g} epochs "
            f"of {end / epoch:.4g}; set it lower, or take {' and '.join(kinds)} out"
        ]
    return [f"{chances} of the samples in the first {partners.until / epoch:.4g} of {end / epoch:.4g} epochs"]


def run_length(config: RunConfig, samples_per_epoch: int) -> int:
    """Length of a run in steps."""
    return config.train.steps or math.ceil(config.train.epochs * samples_per_epoch / config.train.global_batch)
