"""Predictions of any detector in any form against any form of the truth: the same AP; and what is wrong with them is reported
in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddptrain.cli import main
from ddptrain.config import resolve
from ddptrain.metrics.arrays import overlaps
from ddptrain.metrics.matching import THRESHOLDS
from ddptrain.tasks.build import new_task
from ddptrain.tasks.detection.task import DetectionTask

TRUTHS = {
    "voc": "gts/pascalvoc_format",
    "imagenet": "gts/imagenet_format/Annotations",
    "coco": "gts/coco_format_v1/instances_default.json",
    "coco 2": "gts/coco_format_v2/instances_v2.json",
    "yolo": "gts/yolo_format/obj_train_data",
}
FORMATS = {"imagenet": "voc", "coco 2": "coco"}


def dataset(data_root: Path, form: str) -> dict[str, Any]:
    root = data_root / "multiformat100"
    own = {
        "name": "many",
        "format": FORMATS.get(form, form),
        "root": str(root),
        "images": "images",
        "annotations": TRUTHS[form],
    }
    if form == "yolo":
        own["names"] = (root / "gts/yolo_format/obj.names").read_text().split()
    return own


def read_truth(data: dict[str, Any]) -> DetectionTask:
    task = new_task(resolve({"classes": "auto", "data": {"train": [data], "val": [data]}})).with_classes()
    assert isinstance(task, DetectionTask)
    task.read_truth()
    return task


Rows = dict[str, list[tuple[str, list[float], float]]]


@pytest.fixture(scope="module")
def rows(data_root: Path) -> Rows:
    """By image: class, corners and score of predictions whose overlap with every form of the truth, which differ by up to a
    pixel, lies between the same two thresholds."""
    forms = [read_truth(dataset(data_root, form)) for form in TRUTHS]
    rng = np.random.default_rng(0)
    scores = (rng.permutation(999) / 1000).tolist()  # of equal scores the order of images would decide, which differs
    names = [Path(p).name for p in forms[0].val_sets[0].table.paths[:]]
    out: Rows = {name: [] for name in names}
    for number, name in enumerate(names):
        of_form = []
        for task in forms:
            table = task.val_sets[0].table
            index = [Path(p).name for p in table.paths[:]].index(name)
            part = table.rows(index)
            of_form.append((table.boxes[part], [table.names[k] for k in table.labels[part]]))
        for box, label in zip(*of_form[0]):
            side = np.tile(box[2:] - box[:2], 2)
            for _ in range(30):
                moved = (box + rng.normal(size=4) * side * rng.choice([0.03, 0.1]))[None]
                levels = {
                    int((overlaps(moved, boxes, np.zeros(len(boxes), bool)).max(initial=0) >= THRESHOLDS).sum())
                    for boxes, _ in of_form
                }
                if len(levels) == 1 and (moved[0, 2:] > moved[0, :2]).all():
                    found = label if rng.random() < 0.9 else "cat"
                    out[name].append((found, moved[0].tolist(), float(scores.pop())))
                    break
        if number == 7:
            out[name] = []  # an image without predictions
    assert sum(map(len, out.values())) > 200
    return out


def write_coco(folder: Path, rows: Rows) -> Path:
    """A COCO dataset with scores, its ids its own."""
    classes = sorted({c for found in rows.values() for c, _, _ in found}, reverse=True)
    content = {
        "images": [{"id": 50 + i, "file_name": name} for i, name in enumerate(rows)],
        "categories": [{"id": 7 * i, "name": c} for i, c in enumerate(classes)],
        "annotations": [
            {
                "image_id": 50 + i,
                "category_id": 7 * classes.index(c),
                "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]],
                "score": s,
            }
            for i, found in enumerate(rows.values())
            for c, b, s in found
        ],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def write_named(folder: Path, rows: Rows) -> Path:
    """A COCO list of results that names its images and classes."""
    content = [
        {"image_id": Path(name).stem, "category_id": c, "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]], "score": s}
        for name, found in rows.items()
        for c, b, s in found
    ]
    (folder / "named.json").write_text(json.dumps(content))
    return folder / "named.json"


def write_own(folder: Path, rows: Rows) -> Path:
    content = {
        f"/elsewhere/images/{name}": {"detections": [{"class": c, "score": s, "box": b} for c, b, s in found]}
        for name, found in rows.items()
    }
    (folder / "predictions.json").write_text(json.dumps(content))
    return folder / "predictions.json"


def write_yolo(folder: Path, rows: Rows, sizes: dict[str, tuple[int, int]], names: list[str]) -> Path:
    (folder / "yolo").mkdir(exist_ok=True)
    for name, found in rows.items():
        size = np.tile(sizes[name], 2)
        lines = []
        for c, b, s in found:
            x1, y1, x2, y2 = (np.array(b) / size).tolist()
            lines.append(f"{names.index(c)} {(x1 + x2) / 2!r} {(y1 + y2) / 2!r} {x2 - x1!r} {y2 - y1!r} {s}\n")
        (folder / "yolo" / f"{Path(name).stem}.txt").write_text("".join(lines))
    return folder / "yolo"


def evaluate(predictions: Path, data: dict[str, Any], capfd: pytest.CaptureFixture[str], *more: str) -> dict[str, float]:
    truth = predictions.parent / "truth.yaml"
    truth.write_text(json.dumps({"data": {"val": [data]}}))
    assert main(["eval", "--predictions", str(predictions), "--truth", str(truth), "--json", *more]) == 0
    return json.loads(capfd.readouterr().out)


def test_every_form_of_both_gives_one_and_the_same_ap(
    data_root: Path, rows: Rows, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in (data_root / "multiformat100" / TRUTHS["voc"]).iterdir():
        (plain / file.name).write_text(file.read_text().replace("<difficult>1", "<difficult>0"))
    names = (data_root / "multiformat100/gts/yolo_format/obj.names").read_text().split()
    table = read_truth(dataset(data_root, "voc")).val_sets[0].table
    sizes = {Path(p).name: tuple(size) for p, size in zip(table.paths[:], table.sizes.tolist())}
    written = [write_coco(tmp_path, rows), write_named(tmp_path, rows), write_own(tmp_path, rows)]
    written.append(write_yolo(tmp_path, rows, sizes, names))
    found = {}
    for form in TRUTHS:
        for path in written if form == "coco" else written[2:3]:
            more = ["--names", ",".join(names)] if path.name == "yolo" else []
            truth = dataset(data_root, form)
            if form == "voc":  # alone says which objects are difficult
                truth["annotations"] = str(plain)
            metrics = evaluate(path, truth, capfd, *more)
            found[form, path.name] = {k: metrics[k] for k in ("AP", "AP50", "AP75", "AR", "class/person/AP")}
    one = found["coco", "coco.json"]
    assert len(found) == len(TRUTHS) + len(written) - 1
    assert 0.3 < one["AP"] < 0.9
    assert evaluate(written[0], dataset(data_root, "voc"), capfd)["AP"] != one["AP"]  # difficult ones do not count
    for key, other in found.items():
        assert other == pytest.approx(one, abs=1e-12), key


def test_numbers_of_a_coco_list_are_those_of_a_coco_truth(
    data_root: Path, rows: Rows, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((data_root / "multiformat100" / TRUTHS["coco"]).read_text())
    images = {Path(i["file_name"]).name: i["id"] for i in content["images"]}
    ids = {c["name"]: c["id"] for c in content["categories"]}
    results = [
        {"image_id": images[name], "category_id": ids[c], "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]], "score": s}
        for name, found in rows.items()
        for c, b, s in found
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    by_ids = evaluate(path, dataset(data_root, "coco"), capfd)
    by_names = evaluate(write_named(tmp_path, rows), dataset(data_root, "coco"), capfd)
    assert by_ids["AP"] == by_names["AP"]


# an image, a box in it, another image
FIRST, BOX, SECOND = "2007_000027", [10, 10, 50, 50], "2007_000032"


def results(*entries: dict[str, Any]) -> Callable[[Path], None]:
    whole = {"image_id": FIRST, "category_id": "person", "bbox": BOX, "score": 0.5}
    return lambda path: path.with_suffix(".json").write_text(json.dumps([whole | e for e in entries])) and None


def texts(**files: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.mkdir()
        for name, text in files.items():
            (path / f"{name}.txt").write_text(text)

    return write


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nan": (results({}, {"score": float("nan")}), "[1]: non-finite number: score is nan; must be a finite number; 1 such"),
    "no score": (lambda p: p.with_suffix(".json").write_text('[{"image_id": "a", "category_id": "b", "bbox": [0,0,1,1]}]'),
                 "given.json[0]: malformed row: has no score; must be a finite number"),
    "box": (results({"bbox": [1, 2, 3]}), "given.json[0]: malformed row: bbox is [1, 2, 3]; must be a list of four"),
    "a number of a class": (results({"category_id": 3}), "category_id is a number, which only a --truth of one dataset in"),
    "no image of the truth": (results({"image_id": "x"}, {"image_id": "y"}), "none of 2 images is in the truth; the first: x;"),
    "no class of the truth": (results({"category_id": "crane"}), "none of the classes crane is a class of the truth, "),
    "no format": (lambda p: p.with_suffix(".json").write_text('{"a": 1}'), "is in no known format; give a COCO"),
    "no JSON": (lambda p: p.with_suffix(".json").write_text("{"), "is not valid JSON"),
    "twice the image": (texts(**{FIRST: "0 .5 .5 .1 .1 .9\n", f"{FIRST}.jpg": "0 .5 .5 .1 .1 .9\n"}), "are the same image of"),
    "a YOLO class": (texts(**{FIRST: "99 .5 .5 .1 .1 .9\n"}), "2007_000027.txt:1: 99 .5 .5 .1 .1 .9: class 99 is not among"),
    "YOLO without confidence": (texts(**{FIRST: "\n0 .5 .5 .1 .1\n"}), "2007_000027.txt:2: 0 .5 .5 .1 .1: has 5 fields"),
    "YOLO nan": (texts(**{FIRST: "0 .5 .5 .1 .1 nan\n"}), "nan is not a finite number; correct the file"),
    "two formats": (texts(**{FIRST: "0 .5 .5 .1 .1 .9\n", SECOND: "1,2,3,4,0.5,4,-1,-1\n"}), "files of YOLO and files of"),
    "a VisDrone category": (texts(**{FIRST: "1,2,3,4,0.5,12,-1,-1\n"}), ".txt:1: 1,2,3,4,0.5,12,-1,-1: category 12;"),
    "nothing": (lambda p: None, "given.json does not exist; give a COCO JSON"),
}  # fmt: skip


@pytest.fixture(scope="module")
def voc(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("truth") / "truth.yaml"
    path.write_text(json.dumps({"data": {"val": [dataset(data_root, "voc")]}}))
    return path


@pytest.mark.parametrize("case", REFUSED)
def test_bad_predictions_are_refused_in_one_line(
    case: str, voc: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write, line = REFUSED[case]
    write(tmp_path / "given")
    path = tmp_path / "given" if (tmp_path / "given").is_dir() else tmp_path / "given.json"
    assert main(["eval", "--predictions", str(path), "--truth", str(voc), "--json"]) == 2
    said = capfd.readouterr()
    errors = [text for text in said.err.splitlines() if "error" in text]
    assert len(errors) == 1
    assert "--predictions: " in errors[0]
    assert line in errors[0]
    assert said.out == ""


def test_what_users_go_on_with_is_counted(voc: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    results(
        {"image_id": "other"},
        {"category_id": "crane"},
        {"bbox": [400, 300, 500, 500]},
        {"bbox": [3, 3, 0, 4]},
        {"score": 70},
    )(tmp_path / "given")
    assert main(["eval", "--predictions", str(tmp_path / "given.json"), "--truth", str(voc), "--json"]) == 0
    said = capfd.readouterr().err
    for line in (
        "predictions for 1 image not in the truth are left out: other",
        "no predictions for 99 images of the truth: the objects there count as missed",
        "1 prediction of 1 class unknown to the truth left out: crane",
        "1 box beyond the border of an image: each counts as it is; the first: ",
        "1 box without area: each counts as a false alarm; the first: ",
        "1 score outside 0 to 1: AP uses only the order of scores; precision, recall, F1 and confidence are undefined",
    ):
        assert line in said, line


def test_a_truth_without_one_box(data_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "empty"
    (root / "labels").mkdir(parents=True)
    (root / "images").symlink_to(data_root / "multiformat100/images")
    for image in (root / "images").iterdir():
        (root / "labels" / f"{image.stem}.txt").write_text("")
    data = {"name": "none", "format": "yolo", "root": str(root), "names": ["person"]}
    results({})(tmp_path / "given")
    metrics = evaluate(tmp_path / "given.json", data, capfd)
    assert metrics["AP"] is None
