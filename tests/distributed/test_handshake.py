"""Ranks that do not belong together stop before the first update, each with the same line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Ranks, summary, train


def start(config: str, key: str) -> int:
    """A rank whose override differs from rank 0's."""
    import os

    from ddptrain.cli import main

    return main(["train", config, f"{key}={3 if os.environ['RANK'] == '1' else 4}"])


@pytest.mark.parametrize(("key", "what"), [("train.clip_norm", "config"), ("seed", "config")])
def test_ranks_with_different_configs_stop(config: Path, tmp_path: Path, key: str, what: str) -> None:
    ranks = Ranks(2, start, str(config), key)
    assert ranks.wait() == [2, 2], ranks.text
    assert f"rank 1 differs from rank 0 in {what}" in ranks.text


def test_what_was_drawn_is_what_was_asked(config: Path, tmp_path: Path) -> None:
    """Counted from the batches of all ranks: exactly 2:1 at every multiple of the global batch."""
    train(2, config, "train.steps=5")
    mixture = summary(tmp_path / "run")["mixture"]
    assert [(m["name"], m["drawn"]) for m in mixture] == [("skyview", 40), ("streets", 20)]
    assert [round(m["share_drawn"], 12) for m in mixture] == [round(m["share_asked"], 12) for m in mixture]
