"""Randomness as a formula: every draw is a function of (seed, position, purpose), never of what was drawn before."""

import hashlib
from functools import lru_cache

import numpy as np
import torch

_MASK = (1 << 64) - 1


@lru_cache(maxsize=1024)
def stream_key(seed: int, purpose: str) -> int:
    """A 64-bit key for one purpose under one seed, the same on every machine and Python."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def rng(seed: int, position: int, purpose: str) -> np.random.Generator:
    """Generator of the draws that concern one position of the global stream and one purpose.

    Args:
        seed: the run's seed, any int.
        position: index in the global stream, 0 <= position < 2**64.
        purpose: names the draw ("affine", "hsv", ...); different purposes are independent.

    Returns:
        A counter-based (Philox 4x64) generator keyed by (seed, purpose, position); creating it costs some 10 µs and
        leaves all global random state alone.
    """
    return np.random.Generator(np.random.Philox(key=[stream_key(seed, purpose), position & _MASK]))


def seed_torch(seed: int, step: int, micro_batch: int) -> None:
    """Seed torch's generators (dropout, stochastic depth) as a function of the step and the number of the micro batch in it, so
    that no state needs saving and no draw depends on the rank."""
    value = stream_key(seed, f"torch/{step}/{micro_batch}") >> 1
    torch.default_generator.manual_seed(value)
    # torch.cuda.manual_seed queues callbacks forever while CUDA is not initialised
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(value)
