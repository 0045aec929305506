"""What tests of the launcher share."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from job_config import SMALL


@pytest.fixture
def login_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small config in a folder of its own, data folder included."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "data").mkdir()
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path
