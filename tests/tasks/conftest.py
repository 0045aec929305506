"""The small run of classification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shapes(small_data: Callable[[str], Path]) -> Path:
    """A folder for each class, below train and val."""
    return small_data("classification")


@pytest.fixture
def shapes_config(small_config: Callable[[str], Path]) -> Path:
    """A classification run of seconds; its folder is `tmp_path / name`."""
    return small_config("classification")


@pytest.fixture(scope="session")
def tables(small_data: Callable[[str], Path]) -> Path:
    """Two datasets of masks: `all` labels discs and squares, `discs` knows no squares (they are void there)."""
    return small_data("segmentation")


@pytest.fixture
def masks_config(small_config: Callable[[str], Path]) -> Path:
    """A segmentation run of seconds over both."""
    return small_config("segmentation")


@pytest.fixture(scope="session")
def people(small_data: Callable[[str], Path]) -> Path:
    """A few synthetic panoramas in JRDB's layout."""
    return small_data("interaction")


@pytest.fixture
def pairs_config(small_config: Callable[[str], Path]) -> Path:
    """An interaction run of seconds, stage 1; its folder is `tmp_path / name`."""
    return small_config("interaction")
