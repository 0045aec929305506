"""Fixtures of every test: where the real data is, and a clean environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# how long one example takes says something about the machine, not about the code
settings.register_profile("ddptrain", deadline=None)
settings.load_profile("ddptrain")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real images; a test that needs it skips in words where it is absent."""
    path = Path(os.environ.get("DDPTRAIN_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set DDPTRAIN_DATA to its folder")
    return path


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Parsed tables are cached in a folder of this test run, not in the user's."""
    os.environ["DDPTRAIN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _no_leaked_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test started inside torchrun or srun must not believe that it is a rank."""
    for key in list(os.environ):
        if key.startswith(("SLURM_", "TORCHELASTIC_")) or key in (
            "RANK",
            "WORLD_SIZE",
            "LOCAL_RANK",
            "LOCAL_WORLD_SIZE",
        ):
            monkeypatch.delenv(key)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two synthetic datasets of the demo, small."""
    from ddptrain.data.synthetic import write_demo

    folder = tmp_path_factory.mktemp("scenes")
    write_demo(folder, images=24, seed=3)
    return folder


@pytest.fixture
def config(tmp_path: Path, scenes: Path) -> Path:
    """A small joint run over `scenes`: seconds, not minutes; its folder is `tmp_path / name`."""
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""
name: run
output: {tmp_path}
classes: [car, bus, pedestrian]
data:
  train:
    - {{name: skyview, format: visdrone, root: {scenes}/skyview, split: train, share: 2, drop: ["*"]}}
    - {{name: streets, format: voc, root: {scenes}/streets, split: train, share: 1}}
  val:
    - {{name: skyview, format: visdrone, root: {scenes}/skyview, split: val, drop: ["*"]}}
    - {{name: streets, format: voc, root: {scenes}/streets, split: val}}
  image_size: 64
  workers: 0
model: {{norm: group}}
# Adam divides by the gradient's own size: where that is rounding noise, its sign is what differs between splits
optimizer: {{name: sgd, lr: 0.01, momentum: 0.937}}
train: {{steps: 6, global_batch: 12, micro_batch: 12}}
eval: {{every_epochs: null}}
checkpoint: {{every_epochs: null}}
monitor: {{tensorboard: false, every_steps: 2}}
"""
    )
    return path
