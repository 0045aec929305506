"""Frames and sequences of video sets that no annotation names are reported."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ddptrain.config.detection import DetectionDataset
from ddptrain.config.interaction import InteractionDataset
from ddptrain.data.formats.build import parse
from ddptrain.data.formats.jrdb import read_jrdb

Save = Callable[..., Path]


@pytest.mark.parametrize("split", [None, "train"])
def test_uavdt_xml(tmp_path: Path, save_image: Save, voc_object: Callable[..., str], split: str | None) -> None:
    for sequence in ("M1", "M2"):
        for frame in (1, 2):
            save_image(tmp_path / f"JPEGImages/{sequence}/img{frame:06d}.jpg")
    (tmp_path / "Annotations/M1").mkdir(parents=True)
    text = f"<annotation>{voc_object('car', 1, 1, 20, 20)}</annotation>"
    (tmp_path / "Annotations/M1/img000001.xml").write_text(text)
    if split:
        (tmp_path / "train.txt").write_text("M1\nM2\nM3\n")
    _, faults = parse(DetectionDataset(name="u", format="uavdt-xml", root=str(tmp_path), split=split))
    where = [str(Path(f.where).relative_to(tmp_path / "JPEGImages")) for f in faults.kept]
    absent = ["M3"] if split else []  # neither images nor XML files
    assert where == [*absent, "M1/img000002.jpg", "M2/img000001.jpg", "M2/img000002.jpg"]
    assert set(faults.counts) == {"image without label"}


@pytest.mark.parametrize("folder", ["UAV-benchmark-M", "."])
def test_uavdt(tmp_path: Path, save_image: Save, folder: str) -> None:
    for sequence in ("M1", "M2"):
        save_image(tmp_path / folder / sequence / "img000001.jpg")
    save_image(tmp_path / "pictures/plot1.jpg")
    (tmp_path / "GT").mkdir()
    (tmp_path / "GT/M1_gt_whole.txt").write_text("1,1,1,1,10,10,1,1,1\n")
    table, faults = parse(DetectionDataset(name="u", format="uavdt", root=str(tmp_path)))
    assert len(table) == 1
    assert [Path(f.where).parent.name for f in faults.kept if f.kind == "image without label"] == ["M2"]


def test_jrdb(tmp_path: Path, save_image: Save) -> None:
    """A sequence without a JSON is a fault; a frame that a JSON leaves out is noted, as only some frames may be labelled."""
    for sequence, frame in (("hall", 0), ("hall", 1), ("yard", 0)):
        save_image(tmp_path / f"images/image_stitched/{sequence}/{frame:06d}.jpg")
    (tmp_path / "labels/labels_2d_stitched").mkdir(parents=True)
    text = '{"labels": {"000000.jpg": [{"label_id": "pedestrian:1", "box": [1, 1, 20, 20]}]}}'
    (tmp_path / "labels/labels_2d_stitched/hall.json").write_text(text)
    config = InteractionDataset(name="d", format="jrdb", root=str(tmp_path))
    table, faults = read_jrdb(config, "drop")
    assert len(table) == 1
    assert [Path(f.where).parent.name for f in faults.kept] == ["yard"]
    assert [note for note in faults.notes if "hall/000001.jpg" in note]
    assert not read_jrdb(config.model_copy(update={"sequences": ("hall",)}))[1].counts
