"""`ddptrain predict` over whatever lies in a folder: nothing bad stops it, nothing found is lost, nothing is overwritten."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_runs import RUNS, write_config
from support import Ranks, save_checkpoint

from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.cli import main
from ddptrain.commands.image_files import distinct, find_images
from ddptrain.config import RunConfig, load_config
from ddptrain.data.tables.faults import Faults
from ddptrain.tasks.build import new_task
from ddptrain.tasks.classification.task import ClassificationTask


def untrained(config: RunConfig, run: Path) -> Path:
    """A run folder with fresh weights."""
    model = new_task(config).build_model().state_dict()
    save_checkpoint(run / "checkpoints", {"config": config.model_dump_json(), "model": model, "ema": None}, 1, best=True)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    RUNS["classification"].write(folder)
    return untrained(load_config(str(write_config("classification", folder, folder)), []), folder / "run")


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (40, 36, 3), np.uint8))
    return path


def test_what_lies_in_a_folder(tmp_path: Path, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    sound = [picture(images / name, i) for i, name in enumerate(("a.png", "one/x.jpg", "two/x.png", "two/x.bmp", "z.webp"))]
    for name in ("._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png"):
        picture(images / name)
    (images / "two/loop").symlink_to(images)
    (images / "again").symlink_to(images / "one")
    (images / "bad.jpg").write_text("no picture")
    (images / "empty.png").touch()
    (images / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (images / "phone.heic").touch()
    assert main(["predict", str(run), str(images), str(sound[0]), "--out", str(out)]) == 1
    output = capfd.readouterr()
    assert json.loads((out / "predictions.json").read_text()).keys() == {str(p) for p in sound}
    pictures = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.jpg"))
    assert pictures == ["a.jpg", "one/x.jpg", "two/0005_x.jpg", "two/0006_x.jpg", "z.jpg"]
    for name, why in (("bad.jpg", "not an image"), ("empty.png", "the file is empty"), ("gone.png", "No such file")):
        assert f"skipped: {images / name}: {why}" in output.err
    assert "failed: 3 of 8 images were skipped, each is named above" in output.err
    assert "3 hidden files or folders (skipped), 2 folders reached twice (visited once), 1 .heic file (not read)" in output.out
    assert "5 images with" in output.out


def test_weights_of_a_gpu_predict_without_one(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    known = load_checkpoint(run, best=True)
    config = known.config.model_copy(update={"train": known.config.train.model_copy(update={"device": "cuda"})})
    image = picture(tmp_path / "a.png")
    assert main(["predict", str(untrained(config, tmp_path / "run")), str(image)]) == 0
    assert "train.device=cuda, but this machine has no GPU: using the CPU" in capfd.readouterr().err


def test_arithmetic_is_that_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RUNS["classification"].write(tmp_path)
    before = torch.get_num_threads()
    config = load_config(str(write_config("classification", tmp_path, tmp_path)), [f"train.threads={before + 1}"])
    seen, real = [], ClassificationTask.predict_file
    monkeypatch.setattr(ClassificationTask, "predict_file", lambda *a: seen.append(torch.get_num_threads()) or real(*a))
    image = str(picture(tmp_path / "a.png"))
    assert main(["predict", str(untrained(config, tmp_path / "run")), image]) == 0
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def test_when_nothing_can_be_used(tmp_path: Path, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    (images / "deep/er").mkdir(parents=True)
    assert main(["predict", str(run), str(images), "--out", str(out)]) == 2
    assert f"error: {images}: no image in it or below it; images end in .bmp" in capfd.readouterr().err
    (images / "deep/er/a.heic").touch()
    assert main(["predict", str(run), str(images)]) == 2
    assert "left out: 1 .heic file (not read)" in capfd.readouterr().err
    (images / "deep/er/a.jpg").touch()
    assert main(["predict", str(run), str(images), "--out", str(out)]) == 2
    assert "error: no image could be used" in capfd.readouterr().err
    assert json.loads((out / "predictions.json").read_text()) == {}
    (out / "predictions.json").write_text('{"earlier": {}}')
    assert main(["predict", str(run), str(images), "--out", str(out)]) == 2
    assert json.loads((out / "predictions.json").read_text()) == {"earlier": {}}
    capfd.readouterr()
    assert main(["predict", str(run), str(tmp_path / "none")]) == 2
    assert "none: no such image or folder" in capfd.readouterr().err


def test_no_image_is_overwritten_by_its_picture(tmp_path: Path, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = picture(tmp_path / "images/sub/a.jpg")
    before = image.read_bytes()
    assert main(["predict", str(run), str(tmp_path / "images"), "--out", str(tmp_path / "images")]) == 2
    assert f"{image}: is one of the images, and would be overwritten; name another folder" in capfd.readouterr().err
    assert image.read_bytes() == before


def test_a_killed_prediction_leaves_what_it_found(tmp_path: Path, run: Path) -> None:
    for i in range(120):
        picture(tmp_path / f"images/{i}.bmp", i)
    out = tmp_path / "out"
    process = Ranks(1, main, ["predict", str(run), str(tmp_path / "images"), "--out", str(out)])
    while len(list(out.glob("*.jpg"))) < 10 and process.processes[0].is_alive():
        time.sleep(0.01)
    process.processes[0].kill()
    assert process.wait() == [-9], process.text
    assert 1 <= len(json.loads((out / "predictions.json").read_text())) < 120


def test_names_take_no_time() -> None:
    """Comparing each with each would take minutes."""
    start = time.monotonic()
    names = distinct([f"folder/{i % 90_000}" for i in range(100_000)])
    assert len(set(names)) == 100_000
    assert names[20_000] == "folder/20000"
    assert names[0], names[90_000] == ("folder/00000_0", "folder/90000_0")
    assert time.monotonic() - start < 20


def test_a_name_that_looks_like_a_numbered_one_is_kept_apart() -> None:
    assert distinct(["a", "0002_a", "a"]) == ["0000_a", "0002_a", "_0002_a"]


def test_folders_are_listed_once(tmp_path: Path) -> None:
    picture(tmp_path / "a/x.png")
    faults = Faults()
    assert list(find_images([tmp_path, tmp_path / "a", tmp_path / "a/x.png"], faults).values()) == ["a/x"]
    assert faults.counts["folder reached twice"] == 1


@pytest.mark.parametrize("channels", [4, 5])
def test_depth_maps_from_a_folder(tmp_path: Path, channels: int, capfd: pytest.CaptureFixture[str]) -> None:
    RUNS["detection"].write(tmp_path)
    model = [f"model={{size: n, norm: group, in_channels: {channels}}}"]
    config = load_config(str(write_config("detection", tmp_path, tmp_path)), model)
    deep = untrained(config, tmp_path / "deep")
    for name in ("one/a", "two/a"):
        picture(tmp_path / f"images/{name}.jpg")
    (tmp_path / "maps/one").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "maps/one/a.png"), np.full((40, 36), 9000, np.uint16))
    arguments = ["predict", str(deep), str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    status = main([*arguments, "--depth", str(tmp_path / "maps")])
    output = capfd.readouterr()
    predictions = json.loads((tmp_path / "out/predictions.json").read_text())
    assert predictions[str(tmp_path / "images/one/a.jpg")]["depth"] is True
    if channels == 4:
        assert status == 1
        assert f"skipped: {tmp_path}/images/two/a.jpg: no depth map in {tmp_path}/maps" in output.err
    else:
        assert status == 0
        assert "1 of them without a depth map" in output.out
        assert predictions[str(tmp_path / "images/two/a.jpg")]["depth"] is False
        assert main([*arguments, "--depth", str(tmp_path / "none")]) == 2
        assert "--depth: " in capfd.readouterr().err


def test_a_model_without_depth_refuses_depth_maps(tmp_path: Path, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = picture(tmp_path / "a.png")
    assert main(["predict", str(run), str(image), "--depth", str(tmp_path)]) == 2
    assert "--depth: the run's model takes no depth" in capfd.readouterr().err


def test_a_frame_without_labels_stops_no_folder_of_panoramas(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    RUNS["interaction"].write(tmp_path)
    config = load_config(str(write_config("interaction", tmp_path, tmp_path)), [])
    pairs = untrained(config, tmp_path / "pairs")
    sequence = next(p for p in (tmp_path / "images/image_stitched").iterdir())
    frames = sorted(sequence.iterdir())
    (sequence / f"unknown{frames[0].suffix}").write_bytes(frames[0].read_bytes())
    labels = next((tmp_path / "labels").glob(f"*/{sequence.name}.json"))
    content = json.loads(labels.read_text())
    content["labels"][frames[0].name].append({"label_id": "pedestrian:99", "box": [1, "two", 3, 4]})
    labels.write_text(json.dumps(content))
    assert main(["predict", str(pairs), str(sequence), "--out", str(tmp_path / "out")]) == 1
    output = capfd.readouterr()
    assert "has no such frame" in output.err
    assert f"warning: left out: {labels}: {frames[0].name}: pedestrian:99: malformed row: " in output.err
    assert "1 person was left out of them, as warned above" in output.out
    predictions = json.loads((tmp_path / "out/predictions.json").read_text())
    assert predictions.keys() == {str(f) for f in frames}
    assert [len(predictions[str(f)]["left_out"]) for f in frames] == [1, *[0] * (len(frames) - 1)]


def test_windows(tmp_path: Path, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`--tiles` predicts an image as an evaluation with `eval.tiles` does."""
    data = tmp_path / "data"
    RUNS["detection"].write(data)
    config = load_config(str(write_config("detection", data, tmp_path)), ["eval.score_threshold=0.01"])
    detector = untrained(config, tmp_path / "detector")
    image = next(data.rglob("VisDrone2019-DET-val/images/*.jpg"))
    found = []
    for words in ([], ["--tiles", "96"]):
        assert main(["predict", str(detector), str(image), "--out", str(tmp_path / "out"), *words]) == 0
        found.append(json.loads((tmp_path / "out" / "predictions.json").read_text())[str(image)]["detections"])
    saved = tmp_path / "saved.json"
    only = [f"data.val=[{config.data.val[0].model_dump_json()}]"]
    assert main(["eval", str(detector), *only, "eval.tiles.size=96", "--save-predictions", str(saved)]) == 0
    rows = json.loads(saved.read_text())[str(image)]["detections"]
    assert found[0] != found[1]
    assert [round(r["score"], 5) for r in rows] == [r["score"] for r in found[1]]
    assert [[round(v, 2) for v in r["box"]] for r in rows] == [r["box"] for r in found[1]]
    assert "predicted whole" not in capfd.readouterr().out
    assert main(["predict", str(detector), str(image), "--out", str(tmp_path / "out"), "--tiles", "4000"]) == 0
    assert "1 of them predicted whole, being no larger than a window of eval.tiles" in capfd.readouterr().out
    for arguments, said in (
        ([str(run), "--tiles", "96"], "--tiles: only a run of detection predicts in windows, the run's task is classification"),
        ([str(detector), "--tiles", "16"], "--tiles: eval.tiles.size: 16: must be an integer ≥ 32"),
    ):
        assert main(["predict", arguments[0], str(image), *arguments[1:]]) == 2
        assert said in capfd.readouterr().err
