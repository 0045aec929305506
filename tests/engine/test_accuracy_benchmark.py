"""The benchmark of AP: what its rows are trained and scored on, and what its table says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from ddptrain.config import DetectionRun, load_config
from ddptrain.data.synthetic.scenes import write_streets

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
name: streets
classes: [bus, car]
data:
  train: [{name: streets, format: voc, root: ROOT, split: train}]
  val: [{name: streets, format: voc, root: ROOT, split: val}]
"""


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_rows_are_scored_on_training_images_that_they_never_see(tmp_path: Path) -> None:
    import accuracy

    write_streets(tmp_path / "data", "train", range(24), seed=0)
    write_streets(tmp_path / "data", "val", range(24, 30), seed=0)
    file = tmp_path / "streets.yaml"
    file.write_text(CONFIG.replace("ROOT", str(tmp_path / "data")))
    run = load_config(file)
    assert isinstance(run, DetectionRun)
    whole, half = (accuracy.DataSet(run, tmp_path / "yolo", share).parts for share in (1, 0.5))
    names = [{p.name for p in part} for part in (whole["train"], whole["val"])]
    assert names[0] | names[1] == {f"{n:06d}.jpg" for n in range(24)}
    assert not names[0] & names[1]
    assert names[0]
    assert names[1]
    assert half["val"] == whole["val"]
    assert 0 < len(half["train"]) < len(whole["train"])
    # the words after the file choose rows of it
    rows = accuracy.read_rows([str(ROOT / "benchmarks" / "ablation.yaml"), "defaults", "mosaic 1"])
    assert rows == {"defaults": [], "mosaic 1": ["data.augment.mosaic=1"]}


def test_a_quarter_of_a_set_without_splits_is_scored(tmp_path: Path) -> None:
    import accuracy

    write_streets(tmp_path / "data", "train", range(24), seed=0)
    shutil.rmtree(tmp_path / "data" / "ImageSets")
    file = tmp_path / "streets.yaml"
    file.write_text(
        CONFIG.replace("ROOT, split: train", str(tmp_path / "data")).replace("ROOT, split: val", str(tmp_path / "data"))
    )
    run = load_config(file)
    assert isinstance(run, DetectionRun)
    data = accuracy.DataSet(run, tmp_path / "yolo", 1)
    names = [{p.name for p in part} for part in (data.parts["train"], data.parts["val"])]
    assert sorted(map(len, names)) == [len(names[1]), 24 - len(names[1])]
    assert names[0].isdisjoint(names[1])
    assert data.scored.read_text().split() == [str(p) for p in data.parts["val"]]
    assert yaml.safe_load(data.yaml.read_text())["val"] == "val.txt"


def test_every_row_of_the_ablation_is_a_change_to_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    import accuracy

    monkeypatch.chdir(ROOT)
    rows = accuracy.read_rows(["benchmarks/ablation.yaml"])
    # the levels that a config has already
    for path, levels in zip(accuracy.CONFIGS, ("fine levels", "usual levels")):
        plain = load_config(path)
        assert [name for name, changes in rows.items() if load_config(path, changes) == plain] == ["defaults", levels]
    rows = accuracy.read_rows(["benchmarks/small_objects.yaml"])
    for path in (accuracy.CONFIGS[1], ROOT / "benchmarks" / "auair.yaml"):
        plain = load_config(path)
        assert [name for name, changes in rows.items() if load_config(path, changes) == plain] == ["whole"]


def test_the_table_says_when_the_peer_was_passed() -> None:
    import accuracy
    from trained import Trained

    def trained(ap: float, cpu: float, *curve: tuple[float, float, float]) -> Trained:
        return Trained({"AP": ap, "AP50": 2 * ap}, cpu, list(curve))

    ours = {0: trained(0.4, 90, (1, 30, 0.1), (2, 60, 0.35), (3, 90, 0.4)), 1: trained(0.5, 110, (1, 40, 0.45), (2, 80, 0.5))}
    results = {"ours": ours, "usual package, yolo11n": {0: trained(0.3, 200, (3, 200, 0.3))}}
    *_, first, second, _ = accuracy.table("set", results)
    # passed in epochs 2 and 1, after 60 and 40 seconds of its 200
    assert first == "| ours | 45.0 | +0.0 | 90.0 |  | 40.0, 50.0 | 100 | 2 | 50 | 25 % |"
    assert second == "| usual package, yolo11n | 30.0 | -15.0 | 60.0 |  | 30.0 | 200 |  |  |  |"
