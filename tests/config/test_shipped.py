"""The configs that are shipped: each one loads, and the one whose data nobody has here learns from data like it."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from support import summary, train

from ddptrain.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_it_loads_and_says_what_it_is(path: Path) -> None:
    load_config(path)
    assert path.read_text().startswith("# ")


def digits(count: int, r: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 `[count, 28, 28]`, digits written by a computer, each a little elsewhere; and what they are."""
    labels = np.arange(count, dtype=np.uint8) % 10
    images = np.zeros((count, 28, 28), np.uint8)
    for image, label in zip(images, labels):
        x, y = (int(v) for v in r.integers(3, 9, 2))
        cv2.putText(image, str(label), (x, 28 - y), cv2.FONT_HERSHEY_SIMPLEX, float(r.uniform(0.6, 0.8)), 255, 2)
    return images, labels


def test_mnist(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    for split, count in (("train", 1500), ("t10k", 200)):
        images, labels = digits(count, r)
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 28, 28) + images.tobytes())
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels.tobytes())
    # by overrides: ranks are forked from a server that may be older than this test's environment
    roots = [f"data.{part}.0.root={tmp_path}" for part in ("train", "val")]
    train(1, CONFIGS / "mnist.yaml", f"output={tmp_path}", "train.epochs=6", "data.workers=0", "eval.every_epochs=6", *roots)
    assert summary(tmp_path / "mnist")["accuracy"] > 0.6
