"""Which files of a folder a reader sees: hidden ones, links in circles and other kinds of images are left out and counted."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ddptrain.config.own import OwnDataset
from ddptrain.data.formats.build import read
from ddptrain.data.formats.depth import DepthMaps
from ddptrain.data.formats.files import files_below, images_below
from ddptrain.data.formats.jrdb import read_jrdb
from ddptrain.data.formats.labelled import read_labelled
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError

Save = Callable[..., Path]
YOLO = "0 .5 .5 .2 .2\n"
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
VOC = f"<annotation><object><name>a</name>{BOX}</object></annotation>"
ROW = "1,1,4,4,1,4,0,0\n"
UAVDT = "1,1,1,1,4,4,1,1,1\n"
JRDB = '{"labels": {"000000.jpg": [{"label_id": "pedestrian:1", "box": [1, 1, 5, 5]}]}}'
COCO = '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}'
PEOPLE = "labels/labels_2d_stitched"
LAYOUTS: dict[str, dict[str, str]] = {
    "yolo": {"images/a.jpg": "", "labels/a.txt": YOLO, "data.yaml": "names: [a]", "labels/._a.txt": "\0\1"},
    "voc": {"JPEGImages/a.jpg": "", "Annotations/a.xml": VOC, "Annotations/._a.xml": "\0\1"},
    "visdrone": {"images/a.jpg": "", "annotations/a.txt": ROW, "annotations/._a.txt": "\0\1"},
    "visdrone-vid": {"sequences/s/0000001.jpg": "", "annotations/s.txt": f"1,1,{ROW}", "annotations/._s.txt": "\0\1"},
    "uavdt": {"s/img000001.jpg": "", "GT/s_gt_whole.txt": UAVDT, "GT/._s_gt_whole.txt": "\0\1"},
    "uavdt-xml": {"images/s/a.jpg": "", "Annotations/s/a.xml": VOC.replace("<name>a", "<name>car")},
    "csv": {"images/a.jpg": "", "all.csv": "a.jpg,1,1,5,5,a\n", "._all.csv": "\0\1"},
    "coco": {"images/a.jpg": "", "annotations/._t.json": "\0", "annotations/t.json": COCO},
    "folder": {"cat/a.jpg": "", "dog/a.jpg": ""},
    "masks": {"images/a.png": "", "masks/a.png": "mask"},
    "jrdb": {"images/image_stitched/s/000000.jpg": "", f"{PEOPLE}/s.json": JRDB, f"{PEOPLE}/._s.json": "\0"},
}
READ: dict[str, Callable[[OwnDataset], tuple[object, Faults]]] = {
    "folder": read_labelled,
    "masks": read_masks,
    "jrdb": read_jrdb,
}


@pytest.fixture(params=LAYOUTS)
def dataset(request: pytest.FixtureRequest, tmp_path: Path, save_image: Save) -> OwnDataset:
    """A set of one or two images in each format, with hidden files and folders, and links back, wherever it has folders."""
    for name, text in LAYOUTS[request.param].items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(("jpg", "png")):
            save_image(path)
            if text == "mask":
                grey_mask(path)
        else:
            path.write_text(text)
    for folder in sorted(p for p in (tmp_path / "set").rglob("*") if p.is_dir()):
        for junk in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
            save_image(folder / junk / "a-checkpoint.jpg")
        for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._a.jpg"):
            (folder / name).write_bytes(b"\0\1\2")
        (folder / "loop").symlink_to(".")
    names = ("x",) if request.param == "masks" else None
    return OwnDataset(name="d", format=request.param, root=str(tmp_path / "set"), names=names)


def grey_mask(path: Path) -> None:
    """All of class 0."""
    Image.new("L", (100, 80)).save(path)


def test_hidden_files_and_links_back_change_nothing(dataset: OwnDataset) -> None:
    table, faults = READ.get(dataset.format, read)(dataset)
    assert len(table) == len([n for n in LAYOUTS[dataset.format] if n.endswith("jpg") or n == "images/a.png"])
    assert faults.counts.keys() <= {"hidden file or folder", "folder reached twice"}
    assert bool(faults.counts["hidden file or folder"]) == (dataset.format != "jrdb")


def test_each_folder_is_visited_once(tmp_path: Path, save_image: Save) -> None:
    top = tmp_path / "set" / "train"
    save_image(tmp_path / "store" / "one.jpg")
    save_image(tmp_path / "set" / "val" / "other.jpg")
    save_image(top / "z" / "own.jpg")
    for name, target in (("a", "z"), ("b", "../../store"), ("c", "../../store"), ("up", ".."), ("here", ".")):
        (top / name).symlink_to(target)
    (top / "dangling").symlink_to("gone")
    faults = Faults()
    assert images_below(top, faults) == [str(top / "b" / "one.jpg"), str(top / "z" / "own.jpg")]
    told = {Path(f.where).name for f in faults.kept}
    assert told == {"a", "c", "up", "here"}
    assert faults.text() == "4 folders reached twice (visited once)"


def test_folders_of_splits_are_not_classes(tmp_path: Path, save_image: Save) -> None:
    for name in ("train/cat/a.jpg", "train/dog/b.jpg", "Val/cat/c.jpg"):
        save_image(tmp_path / name)
    config = OwnDataset(name="d", format="folder", root=str(tmp_path))
    with pytest.raises(UserError, match=r"no split is chosen; splits in .*: Val, train; set split to one of them"):
        read_labelled(config)
    with pytest.raises(UserError, match=r"holdout is for datasets without splits, but .* has Val, train"):
        read_labelled(config.model_copy(update={"split": "train", "holdout": 0.5}))
    assert read_labelled(config.model_copy(update={"split": "train"}))[0].names == ("cat", "dog")


def test_other_kinds_of_images_are_named_with_their_count(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "cat" / "a.png")
    save_image(tmp_path / "b.png")
    for name in ("b.heic", "c.HEIC", "d.gif", "e.jfif", "f.avif", "notes.txt", "README"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    table, faults = read_labelled(OwnDataset(name="d", format="folder", root=str(tmp_path)))
    assert len(table) == 1
    unread = "2 .heic files (not read), 1 .gif file (not read), 1 .jfif file (not read), 1 .avif file (not read)"
    assert faults.text() == f"{unread}; 1 image without labels was left out, for example {tmp_path}/b.png"
    (tmp_path / "cat" / "a.png").unlink()
    with pytest.raises(UserError, match=r"cat: empty class folder: .*; in total: 1 empty class folder; also 2 \.heic files"):
        read_labelled(OwnDataset(name="d", format="folder", root=str(tmp_path)))


def test_one_of_two_files_of_a_name_is_taken_and_reported(tmp_path: Path, save_image: Save) -> None:
    for name in ("a.jpg", "a.png"):
        save_image(tmp_path / "images" / name)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.txt").write_text(ROW)
    table, faults = read(OwnDataset(name="d", format="visdrone", root=str(tmp_path)))
    assert len(table) == 1
    assert faults.text() == "1 name with two suffixes (one of them taken)"
    assert "a.png is taken" in str(faults.kept[0])


def test_depth_maps_come_from_no_hidden_folder(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "depth" / ".ipynb_checkpoints" / "a.png")
    save_image(tmp_path / "depth" / "b.png")
    (tmp_path / "depth" / "a.exr").write_bytes(b"x")
    (tmp_path / "depth" / "loop").symlink_to(".")
    maps = DepthMaps(OwnDataset(name="d", format="yolo", root=str(tmp_path), depth="depth"), [])
    assert maps.find(str(tmp_path / "images/a.jpg")) is None
    assert maps.find(str(tmp_path / "images/b.jpg")) == str(tmp_path / "depth/b.png")
    for told in ("1 hidden file or folder", "1 folder reached twice", "1 .exr file (not read)"):
        assert told in maps.left_out()


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone: cannot be listed: No such file or directory"):
        files_below(tmp_path / "gone", {".txt"}, Faults())


@pytest.mark.parametrize(
    ("fmt", "files"),
    [
        ("coco", {"annotations/train.json": COCO, "annotations/val.json": COCO}),
        ("csv", {"train.csv": "a.jpg,1,1,5,5,a\n"}),
        ("auair", {"annotations.json": '{"annotations": [{"image_name": "a.jpg", "bbox": []}], "categories": ["a"]}'}),
    ],
)
def test_images_that_no_list_names_are_reported(tmp_path: Path, save_image: Save, fmt: str, files: dict[str, str]) -> None:
    folder = "images" if fmt == "auair" else "images/train"
    for stem in "abc":
        save_image(tmp_path / folder / f"{stem}.jpg")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    config = OwnDataset(name="d", format=fmt, root=str(tmp_path), split=None if fmt == "auair" else "train")
    table, faults = read(config)
    assert (len(table), faults.text()) == (
        1,
        f"no faults; 2 images without labels were left out, for example {tmp_path}/{folder}/b.jpg",
    )
