"""VOC sets in other encodings, with files that are none, and in the folders that the field uses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ddptrain.commands.convert import convert
from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats.build import read
from ddptrain.errors import UserError

Make = Callable[..., DetectionDataset]
Save = Callable[..., Path]


def xml(name: str = "car", head: str = "") -> str:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    return f"{head}<annotation><object><name>{name}</name>{box}</object></annotation>"


def put(root: Path, save_image: Save, name: str, text: str | bytes = xml(), images: str = "JPEGImages") -> Path:
    """An XML file at `name` and its image in the folder beside its own."""
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    save_image(file.parent.parent / images / f"{file.stem}.jpg")
    return file


def voc(root: Path, split: str | None = None) -> DetectionDataset:
    return DetectionDataset(name="v", format="voc", root=str(root), split=split)


def refused(config: DetectionDataset) -> str:
    with pytest.raises(UserError) as caught:
        read(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("encoding", ["gbk", "shift_jis", "utf-16", "latin-1", "cp1252", "utf-8-sig", "euc-kr"])
def test_encodings(tmp_path: Path, save_image: Save, encoding: str) -> None:
    name = {"gbk": "汽车", "shift_jis": "車", "utf-16": "車", "euc-kr": "차", "utf-8-sig": "車"}.get(encoding, "bücher")
    declared = encoding.removesuffix("-sig")
    text = xml(name, f'<?xml version="1.0" encoding="{declared}"?>\n').encode(encoding)
    put(tmp_path, save_image, "Annotations/a.xml", text)
    table, faults = read(voc(tmp_path))
    assert (table.names, faults.text()) == ((name,), "no faults")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (xml(head='<?xml version="1.0" encoding="foo"?>'), "its encoding 'foo' is unknown; save it in UTF-8"),
        (xml("bücher").encode("latin-1"), "not well-formed"),
        (xml("bücher", '<?xml version="1.0" encoding="ascii"?>').encode("latin-1"), "it is not in ascii, which it declares"),
        ("", "no element found"),
        (xml()[:-20], "a.xml:1: unreadable label"),
        (b"\xff\xfe\x00<", "a.xml:1: unreadable label"),
        ("not XML", "a.xml:1: unreadable label"),
    ],
)
def test_files_that_cannot_be_read_are_not_files_without_objects(
    tmp_path: Path, save_image: Save, text: str | bytes, words: str
) -> None:
    put(tmp_path, save_image, "Annotations/a.xml", text)
    message = refused(voc(tmp_path))
    assert "a.xml:1: unreadable label" in message
    assert words in message
    assert "1 of 1 files cannot be read; correct them" in message
    put(tmp_path, save_image, "Annotations/b.xml")
    assert words in refused(voc(tmp_path))
    assert len(read(voc(tmp_path), "drop")[0]) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [("Annotations/a.xml", "no object in any of the 1 XML files of"), ("Annotations/a.json", "no XML file of")],
)
def test_no_object_and_no_file_are_two_things(tmp_path: Path, save_image: Save, name: str, words: str) -> None:
    put(tmp_path, save_image, name, "<annotation/>")
    assert words in refused(voc(tmp_path))


@pytest.mark.parametrize("folder", ["Annotations", "annotations"])
@pytest.mark.parametrize("images", ["JPEGImages", "images"])
@pytest.mark.parametrize("suffix", ["xml", "XML"])
def test_folders_and_suffixes(tmp_path: Path, save_image: Save, folder: str, images: str, suffix: str) -> None:
    put(tmp_path, save_image, f"{folder}/a.{suffix}", images=images)
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets/train.txt").write_bytes(b"C:\\set\\JPEGImages\\a.jpg\r\n")
    assert len(read(voc(tmp_path, "train"))[0].boxes) == 1
    bad = xml().replace("<xmax>9</xmax>", "")
    (tmp_path / folder / f"a.{suffix}").write_text(f"{bad}\n")
    assert f"a.{suffix}:1: malformed row" in refused(voc(tmp_path, "train"))


@pytest.mark.parametrize("layout", ["{}/annotations/{}.xml", "{}/Annotations/{}.xml", "{}/{}.xml"])
def test_a_folder_for_each_split_converts_as_a_whole(tmp_path: Path, save_image: Save, layout: str) -> None:
    root = tmp_path / "set"
    for split, name in (("train", "car"), ("val", "bus")):
        path = put(root, save_image, layout.format(split, split), xml(name), images="images")
        if path.parent.name == split:
            (root / "images" / f"{split}.jpg").rename(path.with_suffix(".jpg"))
    if (root / "images").exists():
        (root / "images").rmdir()
    for split in ("train", "val"):
        table, faults = read(voc(root, split))
        assert (len(table), table.names, faults.text()) == (1, ("bus", "car"), "no faults")
    assert "split test does not exist; splits in" in refused(voc(root, "test"))
    assert "no split is chosen; splits in" in refused(voc(root))
    done = convert("voc", "yolo", root, tmp_path / "out")
    assert [(c.split, c.images, c.boxes) for c in done] == [("train", 1, 1), ("val", 1, 1)]


def test_an_image_without_a_file_is_counted(tmp_path: Path, save_image: Save) -> None:
    put(tmp_path, save_image, "Annotations/a.xml")
    save_image(tmp_path / "JPEGImages" / "b.jpg")
    assert "JPEGImages/b.jpg: image without label: no XML file of its name in" in refused(voc(tmp_path))
    table, faults = read(voc(tmp_path), "drop")
    assert (len(table), faults.counts) == (1, {"image without label": 1})


def test_an_object_is_read_through_one_gate(voc_set: Make, voc_object: Callable[..., str]) -> None:
    good = voc_object("car", 1, 1, 9, 9)
    for old, new, words in (
        ("<difficult>0", "<difficult>yes", "a.xml:3: malformed row: difficult is 'yes'; must be 0 or 1"),
        ("<difficult>0", "<difficult>2", "difficult is '2'; must be 0 or 1"),
        ("<name>", "<name>bus</name><name>", "name is given twice in one object"),
        ("<xmin>", "<xmin>2</xmin><xmin>", "xmin is given twice in one object"),
        ("<bndbox>", "<bndbox></bndbox><bndbox>", "bndbox is given twice in one object"),
        ("<xmin>1", "<xmin>1_0", "bndbox 1_0 1 9 9: '1_0' is not a number"),
        ("<xmax>9", "<xmax>9,5", "9,5 has a decimal comma; write 9.5"),
    ):
        assert words in refused(voc_set(good.replace(old, new)))
    table, _ = read(voc_set(good.replace("<difficult>0", "<difficult>True")))
    assert table.ignore.tolist() == [True, False]


def test_two_files_of_one_image_keep_all_boxes(tmp_path: Path, save_image: Save) -> None:
    put(tmp_path, save_image, "Annotations/a.xml")
    other = xml("bus").replace("<annotation>", "<annotation><filename>a.jpg</filename>")
    put(tmp_path, save_image, "Annotations/b.xml", other)
    (tmp_path / "JPEGImages/b.jpg").unlink()
    assert "b.xml: repeated entry of an image: " in refused(voc(tmp_path))
    table, faults = read(voc(tmp_path), "drop")
    assert dict(faults.counts) == {"repeated entry of an image": 1}
    assert (len(table), table.labels.tolist()) == (1, [1, 0])


def test_a_split_that_nothing_makes_is_not_all_images(tmp_path: Path, save_image: Save) -> None:
    put(tmp_path, save_image, "Annotations/a.xml")
    assert "split val does not exist; splits in " in refused(voc(tmp_path, "val"))
    assert "none; remove split if the dataset has none (`holdout` can split a dataset that is not video)" in refused(
        voc(tmp_path, "val")
    )


def test_a_name_may_end_like_a_list_of_a_class(tmp_path: Path, save_image: Save, voc_object: Callable[..., str]) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    for stem in ("photo", "photo 1", "photo 0"):
        save_image(tmp_path / f"JPEGImages/{stem}.jpg")
        (tmp_path / f"Annotations/{stem}.xml").write_text(f"<annotation>{voc_object('car', 1, 1, 9, 9)}</annotation>")
    (tmp_path / "ImageSets/Main/train.txt").write_text("photo  1\nphoto 1\nphoto 0.jpg\n")
    table, faults = read(DetectionDataset(name="v", format="voc", root=str(tmp_path), split="train"))
    assert [Path(p).stem for p in table.paths] == ["photo", "photo 1", "photo 0"]
    assert not faults.counts


@pytest.mark.parametrize("text", ["<annotation xmlns='x'>{}</annotation>", "<root><annotation>{}</annotation></root>"])
def test_objects_elsewhere_are_no_background(
    tmp_path: Path, save_image: Save, voc_object: Callable[..., str], text: str
) -> None:
    (tmp_path / "Annotations").mkdir()
    for stem, own in (("a", "<annotation>{}</annotation>"), ("b", text)):
        save_image(tmp_path / f"JPEGImages/{stem}.jpg")
        (tmp_path / f"Annotations/{stem}.xml").write_text(own.format(voc_object("car", 1, 1, 9, 9)))
    table, faults = read(DetectionDataset(name="v", format="voc", root=str(tmp_path)), "drop")
    assert [Path(p).stem for p in table.paths] == ["a"]
    assert "must be <annotation> without xmlns" in faults.kept[0].what
