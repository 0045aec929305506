"""Published weights: where they are looked for, and what to say when they are not to be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ddptrain.errors import UserError


def with_weights_hint(build: Callable[[], nn.Module], *weights: Any) -> nn.Module:
    """Call `build`, which loads torchvision `weights` (None for none) from torch's cache or else downloads them.

    Raises:
        UserError: a download failed; the line says which file to put where.
    """
    wanted = [w for w in weights if w is not None]
    if not wanted:
        return build()
    try:
        return build()
    except (OSError, RuntimeError) as e:  # URLError is an OSError; a broken download is a RuntimeError of torch.hub
        urls = " and ".join(w.url for w in wanted)
        reason = " ".join(str(e).split())
        raise UserError(f"pretrained weights: {reason}; put {urls} into {torch.hub.get_dir()}/checkpoints") from None
