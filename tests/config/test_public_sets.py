"""The configs for public sets, end to end on small data in the layouts of those sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from support import summary, train

from ddptrain.data.synthetic.scenes import write_flights, write_skyview, write_streets

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FAST = ("train.steps=3", "data.workers=0", "data.cache=none", "train.precision=none", "monitor.tensorboard=false")
YOLO = ("model.size=n", "data.image_size=96", "data.samples_per_epoch=null", "train.global_batch=4", "train.micro_batch=2")
WIDE = ("eval.tiles.size=480", "eval.max_detections=50")


def run(name: str, tmp: Path, roots: Sequence[tuple[str, Path]], *overrides: str) -> dict[str, object]:
    """Train a config of three steps; its roots by the part and number of the dataset."""
    places = [f"data.{dataset}.root={root}" for dataset, root in roots]
    train(1, CONFIGS / f"{name}.yaml", f"output={tmp / 'runs'}", *FAST, *places, *overrides)
    return summary(tmp / "runs" / name)


def test_faster_rcnn_on_two_years_of_voc(tmp_path: Path) -> None:
    parts = (("VOC2007", "trainval", range(4)), ("VOC2012", "trainval", range(4, 8)), ("VOC2007", "test", range(8, 12)))
    for year, split, numbers in parts:
        write_streets(tmp_path / year, split, numbers, seed=1)
    # the first object of each test image is difficult
    for number in range(8, 12):
        file = tmp_path / "VOC2007" / "Annotations" / f"{number:06d}.xml"
        file.write_text(file.read_text().replace("<difficult>0", "<difficult>1", 1))
    roots = [("train.0", tmp_path / "VOC2007"), ("train.1", tmp_path / "VOC2012"), ("val.0", tmp_path / "VOC2007")]
    found = run(
        "voc_fasterrcnn", tmp_path, roots, "model={name: fasterrcnn_mobilenet_v3_large_320_fpn}", "data.image_size=96",
        "classes=[bus, car]", "train.global_batch=4", "eval.score_threshold=0",
    )  # fmt: skip
    assert {"AP", "voc/AP"} <= found.keys()
    log = (tmp_path / "runs" / "voc_fasterrcnn" / "log.txt").read_text()
    assert "train voc2007: 4 images" in log
    assert "train voc2012: 4 images" in log
    assert "4 ignore regions" in log


def test_mask2former_on_ade20k(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="pip install 'ddptrain[transformers]'")
    r = np.random.default_rng(0)
    for split, count in (("training", 4), ("validation", 2)):
        for part in ("images", "annotations"):
            (tmp_path / part / split).mkdir(parents=True)
        for i in range(count):
            mask = np.zeros((80, 96), np.uint8)  # 0: of no class
            mask[8:], mask[40:, 30:60] = 1, 2
            image = (np.array([0, 90, 200], np.uint8)[mask][..., None] + r.integers(0, 40, (80, 96, 3))).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "images" / split / f"ADE_{i:08d}.jpg"), image)
            cv2.imwrite(str(tmp_path / "annotations" / split / f"ADE_{i:08d}.png"), mask)
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName", "1\t0.5\t4\t2\t1\twall", "2\t0.3\t4\t2\t1\tbuilding, edifice"]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(lines))
    tiny = (
        "model={name: mask2former, embed_dim: 8, depths: [1, 1, 1, 1], heads: [1, 1, 1, 1], hidden: 32, feedforward: 16, "
        "attention_heads: 2, encoder_layers: 1, decoder_layers: 2, queries: 5, window: 2}"
    )
    found = run(
        "ade20k_mask2former", tmp_path, [("train.0", tmp_path), ("val.0", tmp_path)], tiny, "data.image_size=64",
        "train.global_batch=2", "train.micro_batch=2", "loss.points=40", "eval.every_steps=3",
    )  # fmt: skip
    assert found["mIoU"] is not None


def skyview_and_flights(folder: Path) -> list[tuple[str, Path]]:
    """Small sets in the layouts of VisDrone-DET and UAVDT."""
    for split, numbers in (("train", range(6)), ("val", range(6, 9))):
        write_skyview(folder / "VisDrone", split, numbers, seed=1)
    for split, numbers in (("train", range(6)), ("test", range(6, 9))):
        write_flights(folder / "UAVDT", split, numbers, seed=2)
    return [(f"{part}.{i}", folder / name) for part in ("train", "val") for i, name in enumerate(("VisDrone", "UAVDT"))]


def test_visdrone(tmp_path: Path) -> None:
    roots = skyview_and_flights(tmp_path)
    found = run("visdrone", tmp_path, [roots[0], roots[2]], *YOLO)
    assert {"AP", "visdrone/AP"} <= found.keys()


@pytest.mark.parametrize("depth", [False, True])
def test_visdrone_with_uavdt(tmp_path: Path, depth: bool) -> None:
    roots = skyview_and_flights(tmp_path)
    if depth:  # of some images only
        for image in sorted((tmp_path / "VisDrone").rglob("*.jpg"))[::2]:
            (tmp_path / "VisDrone" / "depth").mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / "VisDrone" / "depth" / f"{image.stem}.png"), np.full((192, 192), 900, np.uint16))
        (tmp_path / "UAVDT" / "depth").mkdir()
    name = "visdrone_uavdt_depth" if depth else "visdrone_uavdt"
    found = run(name, tmp_path, roots, *YOLO)
    assert {"AP", "visdrone/AP", "uavdt/AP70", "AP_datasets"} <= found.keys()
    log = (tmp_path / "runs" / name / "log.txt").read_text()
    assert "pedestrian, people, bicycle, van, tricycle, awning-tricycle, motor not annotated: unknown there" in log


def test_visdrone_on_real_files(data_root: Path, tmp_path: Path) -> None:
    """Its few native images, with the classes of its partner, which labels vehicles only."""
    names, partner = "[car, van, truck, bus, motor]", data_root / "visdrone_vehicles_yolo"
    vehicles = f"{{name: vehicles, format: yolo, root: {partner}, names: {names}}}"
    own = f"{{name: visdrone, format: visdrone, root: {data_root / 'visdrone_native'}, split: train}}"
    found = run("visdrone", tmp_path, [], *YOLO, f"data.train=[{own}, {vehicles}]", f"data.val=[{own}]", *WIDE)
    assert found["visdrone/AP"] is not None


def test_uavdt_on_real_annotations(data_root: Path, tmp_path: Path) -> None:
    """The first frames of its sequences, whose annotations are real and whose pixels are grey."""
    root = tmp_path / "UAVDT"
    root.mkdir()
    (root / "GT").symlink_to(data_root / "uavdt_gt" / "GT", target_is_directory=True)
    for split, sequences in (("train", ("M0207", "M0208")), ("test", ("M0301",))):
        (root / f"{split}.txt").write_text("".join(f"{s}\n" for s in sequences))
        for sequence in sequences:
            (root / "UAV-benchmark-M" / sequence).mkdir(parents=True)
            for frame in (1, 2, 3):
                file = root / "UAV-benchmark-M" / sequence / f"img{frame:06d}.jpg"
                cv2.imwrite(str(file), np.full((540, 1024, 3), 128, np.uint8))
    native = data_root / "visdrone_native"
    roots = [("train.0", native), ("train.1", root), ("val.0", native), ("val.1", root)]
    found = run("visdrone_uavdt", tmp_path, roots, *YOLO, *WIDE, "data.val.0.split=train")
    assert found["uavdt/AP70"] is not None
