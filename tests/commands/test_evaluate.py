"""What `ddptrain eval` can be asked for: other weights, other data, other protocols, other output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from small_runs import RUNS, write_config

from ddptrain.cli import main
from ddptrain.engine.evaluate import Evaluation
from ddptrain.metrics.arrays import DetectionArrays
from ddptrain.metrics.outcome import read_outcome
from ddptrain.tasks.detection.external import read_external
from ddptrain.tasks.detection.scores import detections_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    RUNS["detection"].write(folder)
    config = str(write_config("detection", folder, folder))
    assert main(["train", config, "train.steps=3", "checkpoint.every_steps=2"]) == 0
    return folder / "run"


def printed(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capfd.readouterr()
    assert main(["eval", *arguments]) == 0
    return json.loads(capfd.readouterr().out)


def test_weights(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    best, last = printed(capfd, str(run), "--json"), printed(capfd, str(run), "--weights", "last", "--json")
    earlier = printed(capfd, str(run), "--json", "--weights", str(run / "checkpoints/step_00000002.pt"))
    kept = {}
    for name, path in {"run": run, "file": run / "checkpoints/step_00000002.pt"}.items():
        file = str(run.parent / f"{name}.npz")
        printed(capfd, str(run), "--json", "--save", file, *(["--weights", str(path)] if path.is_file() else []))
        kept[name] = read_outcome(Path(file)).about
    assert [(about["step"], about["weights"]) for about in kept.values()] == [(3, "best"), (2, "step_00000002.pt")]
    assert kept["run"]["digest"] != kept["file"]["digest"]
    assert last == best  # there was one evaluation, at the end
    assert earlier["loss"] != last["loss"]
    assert main(["eval", str(run), "--weights", "nix.pt"]) == 2
    assert "nix.pt: no such checkpoint" in capfd.readouterr().err
    assert main(["eval", str(run / "checkpoints/best.pt"), "--weights", "last"]) == 2
    assert "best.pt is already a checkpoint; give its run folder" in capfd.readouterr().err


def test_arithmetic_is_that_of_the_config(
    run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddptrain.commands import evaluate as command

    seen, real, before = [], command.evaluate, torch.get_num_threads()
    monkeypatch.setattr(command, "evaluate", lambda *a: seen.append(torch.get_num_threads()) or real(*a))
    printed(capfd, str(run), "--json", f"train.threads={before + 1}")
    assert main(["report", str(run), f"train.threads={before + 2}"]) == 0
    assert (seen, torch.get_num_threads()) == ([before + 1, before + 2], before)


def test_json_into_a_file_before_or_behind_the_run(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = printed(capfd, "--json", str(run))
    assert main(["eval", str(run), "--json", str(tmp_path / "new/m.json"), "eval.batch=4"]) == 0
    assert "skyview" in capfd.readouterr().out  # the tables are printed as well
    found = json.loads((tmp_path / "new/m.json").read_text())
    loss = {key for key in wanted if "loss" in key}  # kernels may round otherwise for another number of images
    assert [found.pop(key) for key in loss] == pytest.approx([wanted.pop(key) for key in loss], rel=1e-6)
    assert found == wanted
    assert printed(capfd, str(run), "--json", "eval.protocols=[coco, voc]")["voc/AP"] is not None


def test_files_that_cannot_be_written_are_refused_before_the_evaluation(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr("ddptrain.commands.evaluate.load_checkpoint", pytest.fail)
        for option, words in (
            (["--save", str(tmp_path)], f"--save: {tmp_path} is a directory; name a file"),
            (["--save", str(tmp_path / "file/x.npz")], f"--save: {tmp_path / 'file'} cannot be made ("),
            (["--save-predictions", str(tmp_path)], f"--save-predictions: {tmp_path} is a directory"),
            (["--json", str(tmp_path / "file/new/x.json")], f"--json: {tmp_path / 'file/new'} cannot be made ("),
        ):
            assert main(["eval", str(run), *option]) == 2
            assert words in capfd.readouterr().err
    printed(capfd, str(run), "--json", "--save", str(tmp_path / "new/folder/x.npz"))
    assert read_outcome(tmp_path / "new/folder/x.npz").about["step"] == 3


def test_data_of_another_config(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = run.parent
    data = tmp_path / "other.yaml"
    other = {"name": "own", "format": "voc", "root": str(folder / "streets"), "split": "train"}
    data.write_text(json.dumps({"data": {"val": [other]}, "train": {"epochs": 3}}))
    metrics = printed(capfd, str(run), "--data", str(data), "--json")
    assert {key.split("/")[1] for key in metrics if key.startswith("dataset/")} == {"own"}
    data.write_text(json.dumps({"data": {"val": [other | {"drop": ["bus"]}]}}))
    assert main(["eval", str(run), "--data", str(data), "--json"]) == 0
    said = capfd.readouterr().err
    assert "boxes of dropped classes left out; no faults" in said
    assert said.startswith("ddptrain: note: val own: ")
    assert "train " not in said
    data.write_text("data: {train: []}")
    assert main(["eval", str(run), "--data", str(data)]) == 2
    assert "has no data.val; list the datasets" in capfd.readouterr().err


def test_saved_predictions_are_those_that_were_scored(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[Any, Evaluation]] = []
    from ddptrain.commands import evaluate as command

    real = command.evaluate
    monkeypatch.setattr(command, "evaluate", lambda task, *a: kept.append((task, real(task, *a))) or kept[0][1])
    path = tmp_path / "predictions.json"
    scored = printed(capfd, str(run), "--json", "--save-predictions", str(path), "--protocol", "visdrone")
    task, evaluation = kept[0]
    read = read_external(path, task.val_sets, task.classes, None, pytest.fail)
    for mine, theirs in zip(map(detections_of, evaluation.predictions), read, strict=True):
        assert len(mine.scores) > 100
        for column in DetectionArrays._fields:
            assert np.array_equal(getattr(mine, column), getattr(theirs, column)), column
    truth = tmp_path / "truth.yaml"
    config = task.config.model_dump(mode="json", exclude_defaults=True)
    truth.write_text(json.dumps({"classes": config["classes"], "data": {"val": config["data"]["val"]}}))
    again = printed(
        capfd, "--predictions", str(path), "--truth", str(truth), "--json", "--protocol", "visdrone",
        "eval.max_detections=300",
    )  # fmt: skip
    of_the_network = {"bad_images", "objects_without_point"}
    assert {k: v for k, v in scored.items() if "loss" not in k and k not in of_the_network} == again


def test_what_does_not_go_together(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, line in (
        ([], "eval: no runs; give one run or checkpoint, or --predictions FILE --truth CONFIG"),
        ([str(run), str(run)], "eval: 2 runs; give one run"),
        ([str(run), "--json", "m.txt"], "eval: --json m.txt: the name of the file must end in .json"),
        (["--predictions", "p.json"], "eval: --predictions needs --truth CONFIG"),
        ([str(run), "--predictions", "p.json", "--truth", "t.yaml"], "eval: --predictions cannot be combined with RUN"),
        ([str(run), "--truth", "t.yaml"], "eval: --truth and --names go with --predictions, not with a run"),
        (["--predictions", "p", "--truth", "t", "--data", "d"], "--predictions cannot be combined with --data and --weights"),
        ([str(run), "--protocol", "cocoa"], 'eval.protocols.1: "cocoa": allowed: coco, visdrone, voc or uavdt'),
    ):
        assert main(["eval", *arguments]) == 2
        assert line in capfd.readouterr().err, arguments


def test_split_only_where_there_are_boxes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    RUNS["classification"].write(tmp_path)
    assert main(["train", str(write_config("classification", tmp_path, tmp_path)), "train.steps=1"]) == 0
    for option in (["--split-by", "folder"], ["--save-predictions", str(tmp_path / "p.json")]):
        assert main(["eval", str(tmp_path / "run"), *option]) == 2
        assert f"{option[0]}: only" in capfd.readouterr().err


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """UAVDT's layout: two sequences whose frames have the same names, one with an ignore region; the truth as a config, and
    predictions: all of the first sequence are right, those of the second lie beside the objects, or in the region."""
    root = tmp_path_factory.mktemp("uavdt")
    (root / "GT").mkdir()
    found: dict[str, Any] = {}
    for sequence, shift in (("M0101", 0), ("M0202", 200)):
        (root / "UAV-benchmark-M" / sequence).mkdir(parents=True)
        rows = []
        for frame in (1, 2):
            path = root / "UAV-benchmark-M" / sequence / f"img{frame:06d}.jpg"
            cv2.imwrite(str(path), np.zeros((540, 1024, 3), np.uint8))
            for n in range(3):
                left, top = 50 * n + 10, 60 * frame
                rows.append(f"{frame},{n},{left},{top},40,20,1,1,{n % 2 + 1}")
                box = [left + shift, top, left + shift + 40, top + 20]
                entry = {"class": ("car", "truck")[n % 2], "score": 0.9 - n / 10, "box": box}
                found.setdefault(f"{sequence}/{path.name}", {"detections": []})["detections"].append(entry)
        (root / "GT" / f"{sequence}_gt_whole.txt").write_text("\n".join(rows))
    (root / "GT" / "M0202_gt_ignore.txt").write_text("1,1,200,0,600,540,-1,-1,-1\n")
    (root / "predictions.json").write_text(json.dumps(found))
    (root / "truth.yaml").write_text(json.dumps({"data": {"val": [{"name": "uavdt", "format": "uavdt", "root": str(root)}]}}))
    return root / "predictions.json", root / "truth.yaml"


def test_frames_of_videos_and_a_table_of_folders(
    videos: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    predictions, truth = videos
    arguments = ["--predictions", str(predictions), "--truth", str(truth), "--protocol", "uavdt", "--json"]
    got = printed(capfd, *arguments, "--split-by", "folder")
    first, second = (got[f"split/UAV-benchmark-M/M0{number}/AP"] for number in ("101", "202"))
    assert (first, second) == (1, 0)
    # the detections in the first frame of M0202 lie in its region; those in the second are false alarms: two right, one wrong,
    # three times, of 12 objects
    assert got["uavdt/AP70_vehicle"] == pytest.approx((1 + 1 + 0.8 + 0.8 + 0.75 + 0.75) / 12)
    assert 0 < got["uavdt/AP70"] < 1
    sizes = printed(capfd, *arguments, "--split-by", "size")
    assert (sizes["split/small/objects"], sizes["split/small/AR"], sizes["split/large/AP"]) == (12, 0.5, None)
    datasets = printed(capfd, *arguments, "--split-by", "dataset")
    assert datasets["split/uavdt/AP"] == datasets["dataset/uavdt/AP"] == datasets["AP"]
    lost = tmp_path / "lost.json"
    lost.write_text(json.dumps({"M0303/img000001.jpg": json.loads(predictions.read_text())["M0101/img000001.jpg"]}))
    assert main(["eval", "--predictions", str(lost), "--truth", str(truth)]) == 2
    assert "none of 1 image is in the truth; the first: M0303/img000001.jpg" in capfd.readouterr().err


def test_visdrone_text_files(data_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The truth of real files as predictions finds itself, by VisDrone's rules and by COCO's."""
    root = data_root / "visdrone_native"
    (tmp_path / "found").mkdir()
    for file in (root / "VisDrone2019-DET-train/annotations").glob("*.txt"):
        rows = [line.split(",") for line in file.read_text().splitlines()]
        kept = [[*row[:4], "0.9", row[5], "-1", "-1"] for row in rows if row[4] == "1" and row[5] not in ("0", "11")]
        (tmp_path / "found" / file.name).write_text("".join(",".join(row) + "\n" for row in kept))
    data = {"name": "drone", "format": "visdrone", "root": str(root), "split": "train"}
    truth = tmp_path / "truth.yaml"
    truth.write_text(json.dumps({"data": {"val": [data], "on_fault": "drop"}}))
    arguments = ["--predictions", str(tmp_path / "found"), "--truth", str(truth), "--protocol", "visdrone", "--json"]
    got = printed(capfd, *arguments)
    assert got["AP"] == pytest.approx(1)
    assert got["visdrone/AP"] == pytest.approx(1)
