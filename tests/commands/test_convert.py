"""Conversions: what a format can hold comes back, what it cannot is counted, and nothing is half written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ddptrain.commands.convert import convert
from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats import write, writing
from ddptrain.data.formats.build import read, splits_of
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.errors import UserError

PLAIN_ONLY = ("yolo", "csv")
UAVDT = ("uavdt", "uavdt-xml")


def rows_of(table: AnnotationTable, keep: np.ndarray, flags: bool, key: Callable[[str], str]) -> dict[str, list]:
    """Per image its kept rows: class name, ignored (or crowd), box."""
    contents = {}
    for i in range(len(table)):
        r = table.rows(i)
        columns = zip(table.labels[r], table.ignore[r], table.crowd[r], table.boxes[r].tolist(), keep[r])
        named = [(table.names[c] if c >= 0 else "", bool(g) and flags, bool(w) and flags, b) for c, g, w, b, k in columns if k]
        contents[key(table.path(i))] = named
    return contents


def assert_same(a: AnnotationTable, b: AnnotationTable, keep: np.ndarray, flags: bool = True, by_name: bool = True) -> None:
    """`b` has the images of `a`, their sizes and the rows of `a` that `keep` says, in any order, to 0.02 px."""
    assert len(a) == len(b)
    names = {a.path(i): str(i) for i in range(len(a))} | {b.path(i): str(i) for i in range(len(b))}
    key = (lambda p: Path(p).name) if by_name else names.__getitem__
    left = rows_of(a, keep, flags, key)
    right = rows_of(b, np.ones(len(b.boxes), bool), flags, key)
    assert left.keys() == right.keys()
    for image, rows in left.items():
        others = list(right[image])
        assert len(rows) == len(others), image
        for name, ignored, crowd, box in rows:
            same = [i for i, o in enumerate(others) if o[:3] == (name, ignored, crowd)]
            gaps = [float(np.abs(np.subtract(box, others[i][3])).max()) for i in same]
            assert min(gaps, default=np.inf) <= 0.02, (image, name, box)
            others.pop(same[int(np.argmin(gaps))])


def roundtrip(config: DetectionDataset, target: str, out: Path) -> tuple[AnnotationTable, AnnotationTable, dict[str, int]]:
    """The table of one split before and after, and what was lost."""
    split = None if config.split is None else (config.split,)
    layout: dict[str, Any] = {"annotations": config.annotations, "images": config.images, "names": config.names}
    (done,) = convert(config.format, target, config.root, out, splits=split, **layout)
    before = read(config)[0]
    after, faults = read(DetectionDataset(name="x", format=target, root=str(out), split=config.split))
    assert faults.text() in ("no faults", done.faults.text())
    assert (done.images, done.boxes) == (len(before), len(before.boxes))
    return before, after, {k: n for k, n in done.lost.items() if n}


SETS: dict[str, dict[str, Any]] = {
    "multiformat100": {"format": "voc", "annotations": "gts/imagenet_format/Annotations", "images": "images"},
    "bccd": {"format": "voc", "split": "test"},
    "aerial_cars_yolo": {"format": "yolo", "split": "val", "names": ("car", "truck", "bus", "minibus")},
    "tiny_coco38": {"format": "coco", "split": "train2017"},
    "visdrone_native": {"format": "visdrone", "split": "train"},
    "visdrone_vehicles_yolo": {"format": "yolo"},
    "wind_turbines": {"format": "csv", "split": "test"},
    "auair_subset": {"format": "auair"},
}


@pytest.mark.parametrize("target", ["coco", "yolo", "csv", "voc"])
@pytest.mark.parametrize("name", list(SETS))
def test_real_sets_come_back(data_root: Path, tmp_path: Path, name: str, target: str) -> None:
    config = DetectionDataset(name=name, root=str(data_root / name), **SETS[name])
    before, after, lost = roundtrip(config, target, tmp_path / "out")
    regions = before.labels < 0
    special = before.ignore | before.crowd
    if target == "coco":
        keep = np.ones(len(before.boxes), bool)
        expected: dict[str, int] = {}
    elif target == "voc":
        keep = ~regions
        expected = {writing.REGION_LOST: int(regions.sum()), writing.CROWD_IGNORED: int(before.crowd.sum())}
        before.ignore[:] = special
        before.crowd[:] = False
    else:
        keep = ~special
        expected = {
            writing.REGION_LOST: int(regions.sum()),
            writing.IGNORED_LOST: int((before.ignore & ~regions).sum()),
            writing.CROWD_LOST: int(before.crowd.sum()),
        }
    assert lost == {k: n for k, n in expected.items() if n}
    assert_same(before, after, keep)


def test_visdrone_comes_back_whole(data_root: Path, tmp_path: Path) -> None:
    config = DetectionDataset(name="v", root=str(data_root / "visdrone_native"), format="visdrone", split="train")
    before, after, lost = roundtrip(config, "visdrone", tmp_path / "out")
    assert lost == {}
    assert_same(before, after, np.ones(361, bool))
    # byte by byte, but for truncation and occlusion, which are not kept
    for old in (data_root / "visdrone_native/VisDrone2019-DET-train/annotations").glob("*.txt"):
        new = tmp_path / "out/VisDrone2019-DET-train/annotations" / old.name
        fields = [sorted(line.split(",")[:6] for line in p.read_text().splitlines()) for p in (old, new)]
        assert fields[0] == fields[1]


def test_visdrone_vid_becomes_det(data_root: Path, tmp_path: Path) -> None:
    root = data_root / "visdrone_native"
    (done,) = convert("visdrone-vid", "visdrone", root, tmp_path / "out", on_fault="drop")
    assert (done.split, done.images, done.boxes) == ("train", 12, 432)
    assert "452 labels without images" in done.text()
    assert len(read(DetectionDataset(name="d", format="visdrone", root=str(tmp_path / "out"), split="train"))[0].boxes) == 432
    with pytest.raises(UserError, match=r"visdrone_native: .*label without image.*leave it out with --drop"):
        convert("visdrone-vid", "visdrone", root, tmp_path / "strict")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def uavdt(tmp_path: Path) -> DetectionDataset:
    """Two sequences in UAVDT's layout, with fractions, ignore regions and a frame without boxes."""
    root = tmp_path / "uavdt"
    (root / "GT").mkdir(parents=True)
    for sequence in ("M0101", "M0203"):
        for frame in (1, 2, 7):
            path = root / sequence / f"img{frame:06d}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (100, 80)).save(path)
        (root / f"GT/{sequence}_gt_whole.txt").write_text("7,1,1,2,30.25,40,1,1,3\n1,1,1,2,30,40,1,1,1\n1,2,50,2,3,4,1,1,2\n")
        (root / f"GT/{sequence}_gt_ignore.txt").write_text("1,1,60,50,20,20,1,-1,-1\n")
    (root / "train.txt").write_text("M0101\n")
    (root / "test.txt").write_text("M0203\n")
    return DetectionDataset(name="u", format="uavdt", root=str(root), split="train")


def test_uavdt_comes_back(uavdt: DetectionDataset, tmp_path: Path) -> None:
    before, after, lost = roundtrip(uavdt, "uavdt", tmp_path / "out")
    assert lost == {}
    assert_same(before, after, np.ones(4, bool))
    assert Path(after.path(2)).parts[-2:] == ("M0101", "img000007.jpg")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain box of each class, an ignored one, a crowd and a region without class in every format, from COCO's."""
    root = tmp_path_factory.mktemp("pairs")
    (root / "src/images").mkdir(parents=True)
    (root / "src/annotations").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (100, 80)).save(root / f"src/images/{name}.png")
    boxes: list[dict[str, Any]] = [
        {"category_id": 1, "bbox": [1, 2, 30.25, 40]},
        {"category_id": 2, "bbox": [50, 2, 3, 4]},
        {"category_id": 3, "bbox": [50, 20, 30, 10]},
        {"category_id": 2, "bbox": [60, 40, 10, 10], "ignore": 1},
        {"category_id": 1, "bbox": [70, 50, 20, 20], "iscrowd": 1},
        *({"category_id": c, "bbox": [5, 60, 20, 15], "ignore": 1, "ignore_region": 1} for c in (1, 2, 3)),
    ]
    content = {
        "images": [{"id": i, "file_name": f"{n}.png", "width": 100, "height": 80} for i, n in enumerate("ab")],
        "categories": [{"id": i, "name": n} for i, n in enumerate(("car", "truck", "bus"), 1)],
        "annotations": [{"id": i, "image_id": 0, **box} for i, box in enumerate(boxes)],
    }
    (root / "src/annotations/instances_all.json").write_text(json.dumps(content))
    for fmt in write.WRITERS:
        convert("coco", fmt, root / "src", root / fmt)
    return root


def fate(fmt: str, name: str, ignored: bool, crowd: bool) -> tuple[str, bool, bool] | None:
    """What a row (class or "", flags) becomes in a format, None for left out: the table of docs/formats.md."""
    special = ignored or crowd
    if fmt == "coco" or not special:
        return name, ignored, crowd
    if fmt in PLAIN_ONLY:
        return None
    if fmt == "uavdt":
        return "", True, False
    return (name, True, False) if name or fmt == "visdrone" else None


@pytest.mark.parametrize("target", list(write.WRITERS))
@pytest.mark.parametrize("source", list(write.WRITERS))
def test_every_pair_of_formats(everything: Path, tmp_path: Path, source: str, target: str) -> None:
    (done,) = convert(source, target, everything / source, tmp_path / "out")
    tables = [
        read(DetectionDataset(name="x", format=fmt, root=str(root), split=done.split))[0]
        for fmt, root in ((source, everything / source), (target, tmp_path / "out"))
    ]
    before, after = (
        [
            ((t.names[c] if c >= 0 else "", bool(g), bool(w)), tuple(np.round(box, 1).tolist()))
            for c, g, w, box in zip(t.labels, t.ignore, t.crowd, t.boxes)
        ]
        for t in tables
    )
    expected = [(fate(target, *row), box) for row, box in before]
    assert sorted(after) == sorted((row, box) for row, box in expected if row is not None)
    assert len(tables[1]) == 2
    # whatever changed or went is counted, nothing else
    assert sum(done.lost.values()) == sum(new != old for (new, _), (old, _) in zip(expected, before))
    assert ("warning" in done.text()) == any(done.lost.values())


@pytest.mark.parametrize("through", ["uavdt-xml", "coco", "voc", "yolo", "csv"])
def test_uavdt_through_another_format(uavdt: DetectionDataset, tmp_path: Path, through: str) -> None:
    done = convert("uavdt", through, uavdt.root, tmp_path / "there")
    assert [d.split for d in done] == ["test", "train"]
    kept = through == "coco"
    assert [d.lost[writing.REGION_LOST] for d in done] == ([0, 0] if kept else [1, 1])
    assert ("warning: 1 ignore region without a class left out" in done[0].text()) != kept
    back = convert(through, "uavdt", tmp_path / "there", tmp_path / "back")
    assert [d.split for d in back] == ["test", "train"]
    before = read(uavdt)[0]
    after = read(uavdt.model_copy(update={"root": str(tmp_path / "back")}))[0]
    assert_same(before, after, before.labels >= (-1 if kept else 0), by_name=False)


def test_uavdt_cannot_hold_a_class_of_what_is_ignored(tmp_path: Path, data_root: Path) -> None:
    with pytest.raises(UserError, match=r"uavdt has no class .*aeroplane.*; its classes are car, truck, bus"):
        convert("coco", "uavdt", data_root / "multiformat100", tmp_path / "out", **{
            "annotations": "gts/coco_format_v1/instances_default.json", "images": "images",
        })  # fmt: skip
    for name, difficult in (("a", 1), ("b", 0)):
        folder = tmp_path / "voc"
        (folder / "Annotations").mkdir(parents=True, exist_ok=True)
        (folder / "JPEGImages").mkdir(exist_ok=True)
        Image.new("RGB", (100, 80)).save(folder / f"JPEGImages/{name}.jpg")
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        (folder / f"Annotations/{name}.xml").write_text(
            f"<a><object><name>car</name><difficult>{difficult}</difficult>{box}</object></a>"
        )
    (done,) = convert("voc", "uavdt", folder, tmp_path / "out")
    assert done.lost == {writing.CLASS_LOST: 1}
    table = read(DetectionDataset(name="u", format="uavdt", root=str(tmp_path / "out")))[0]
    assert table.labels.tolist() == [-1, 0]


def test_pycocotools_reads_it_and_ignores_what_is_ignored(data_root: Path, tmp_path: Path) -> None:
    convert("visdrone", "coco", data_root / "visdrone_native", tmp_path / "out")
    file = tmp_path / "out/annotations/instances_train.json"
    coco = COCO(str(file))
    content = json.loads(file.read_text())
    regions = [a for a in content["annotations"] if a.get("ignore_region")]
    assert len(regions) == 32 * 11
    assert all(a["iscrowd"] == a["ignore"] == 1 for a in regions)
    assert len(coco.getAnnIds(iscrowd=False)) == 361 - 32
    assert sum(len(coco.getAnnIds(imgIds=[i])) for i in coco.getImgIds()) == len(content["annotations"])


def test_all_splits_are_converted_once(data_root: Path, tmp_path: Path) -> None:
    done = convert("voc", "yolo", data_root / "bccd", tmp_path / "out")
    assert [(d.split, d.images) for d in done] == [("test", 72), ("train", 205), ("val", 87)]
    config = DetectionDataset(name="y", format="yolo", root=str(tmp_path / "out"), split="val")
    assert splits_of(config) == ("test", "train", "val")
    assert read(config)[0].names == ("Platelets", "RBC", "WBC")


@pytest.mark.parametrize("copy", [False, True])
def test_images_are_linked_or_copied(uavdt: DetectionDataset, tmp_path: Path, copy: bool) -> None:
    convert("uavdt", "coco", uavdt.root, tmp_path / "my set", copy=copy)
    paths = sorted((tmp_path / "my set").rglob("*.jpg"))
    assert len(paths) == 6
    assert all(p.is_symlink() != copy for p in paths)
    original = Path(uavdt.root) / "M0101/img000001.jpg"
    assert paths[0].read_bytes() == original.read_bytes()


def test_refusals_leave_nothing_behind(data_root: Path, tmp_path: Path, uavdt: DetectionDataset) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    before = sorted(tmp_path.rglob("*"))
    for arguments, words in (
        (("uavdt", "coco", uavdt.root, taken), "exists; give a new folder"),
        (("uavdt", "tfrecord", uavdt.root, tmp_path / "x"), "no format 'tfrecord' to convert to; coco"),
        (("tfrecord", "coco", uavdt.root, tmp_path / "x"), "no format 'tfrecord' to convert from; auair"),
        (("visdrone", "uavdt", data_root / "visdrone_native", tmp_path / "x"), "uavdt has no class pedestrian"),
        (("coco", "visdrone", data_root / "tiny_coco38", tmp_path / "x"), "visdrone has no class"),
        (("voc", "coco", tmp_path / "gone", tmp_path / "x"), "gone is not a directory"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            convert(*arguments)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_names_that_would_share_a_label_file(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    for suffix in ("jpg", "png"):
        Image.new("RGB", (10, 10)).save(root / f"images/a.{suffix}")
    (root / "all.csv").write_text("a.jpg,1,1,5,5,car\na.png,1,1,5,5,car\n")
    with pytest.raises(UserError, match="two images would both be named a"):
        convert("csv", "voc", root, tmp_path / "out")


def test_splits_that_share_images_are_refused_by_formats_of_one_folder(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another image was already written as"):
        convert("voc", "voc", data_root / "bccd", tmp_path / "out", splits=("train", "trainval"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", UAVDT)
def test_a_sequence_in_two_splits_is_refused(tmp_path: Path, target: str) -> None:
    """The second split would overwrite the labels of the first, and both would read the frames of both."""
    root = tmp_path / "set"
    for frame in range(4):
        path = root / f"images/seqA/img{frame:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 10)).save(path)
    for split, frames in (("train", (0, 1)), ("val", (2, 3))):
        (root / f"{split}.csv").write_text("".join(f"seqA/img{f:06d}.jpg,1,1,5,5,car\n" for f in frames))
    with pytest.raises(UserError, match="sequence seqA has frames in train and in val"):
        convert("csv", target, root, tmp_path / "out")
    assert [d.images for d in convert("csv", target, root, tmp_path / "out", splits=("val",))] == [2]


def test_splits_of_any_name_are_converted_on(tmp_path: Path) -> None:
    """Also those that a data.yaml names but has no usual key for."""
    root = tmp_path / "set"
    for split in ("train", "val", "test-dev"):
        (root / f"images/{split}").mkdir(parents=True)
        Image.new("RGB", (10, 10)).save(root / f"images/{split}/{split}.png")
        (root / f"{split}.csv").write_text(f"{split}.png,1,1,5,5,car\n")
    convert("csv", "yolo", root, tmp_path / "yolo")
    (tmp_path / "yolo/images/unlabelled").mkdir()
    assert [d.split for d in convert("yolo", "coco", tmp_path / "yolo", tmp_path / "coco")] == ["test-dev", "train", "val"]


def test_a_trainval_of_more_images_is_not_left_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(3):
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 10)).save(root / f"images/{i}.png")
    rows = [f"{i}.png,1,1,5,5,car\n" for i in range(3)]
    for split, own in (("train", rows[:1]), ("val", rows[1:2]), ("trainval", rows[:2])):
        (root / f"{split}.csv").write_text("".join(own))
    assert [d.split for d in convert("csv", "coco", root, tmp_path / "coco")] == ["train", "val"]
    (root / "trainval.csv").write_text("".join(rows))
    with pytest.raises(UserError, match=r"trainval has 1 image that neither train nor val has, such as .*2\.png"):
        convert("csv", "coco", root, tmp_path / "more")


def one_image(root: Path, label: int, names: str) -> None:
    """A dataset of YOLO's layout with one box."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(root / "images/a.jpg")
    (root / "labels/a.txt").write_text(f"{label} 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text(f"names: {names}\n")


def test_what_a_format_says_about_classes_beside_those_of_the_source_is_noted(tmp_path: Path) -> None:
    """VisDrone labels all its classes, VOC those that occur: read back, an unknown class is absent, or one vanishes."""
    root = tmp_path / "cars"
    one_image(root, 0, "[car, bus]")
    (to_visdrone,), (to_voc,), (to_coco,) = (convert("yolo", f, root, tmp_path / f) for f in ("visdrone", "voc", "coco"))
    assert "note: read as visdrone, the dataset also claims to label pedestrian, people, " in to_visdrone.text()
    assert to_visdrone.text().endswith("; set annotated: [car, bus] where it is used")
    assert to_voc.text().endswith(
        "; note: voc cannot list a class without boxes (bus); set annotated: [car, bus] where it is used"
    )
    assert "note" not in to_coco.text()


def test_a_class_whose_name_looks_like_a_number_stays_a_name(tmp_path: Path) -> None:
    root = tmp_path / "set"
    one_image(root, 1, "[car, '1e3']")
    convert("yolo", "yolo", root, tmp_path / "out")
    assert read(DetectionDataset(name="n", format="yolo", root=str(tmp_path / "out")))[0].names == ("car", "1e3")
