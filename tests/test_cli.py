"""What a user sees: one clear line and status 2 for a mistake, nothing half-written; results where the README says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from support import save_checkpoint, train

from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.cli import main
from ddptrain.config import load_config
from ddptrain.data.synthetic.scenes import write_demo
from ddptrain.tasks.build import build_task


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which `ddptrain …` refuses."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("ddptrain: error: ")
    return err


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A private copy of the scenes, to be damaged."""
    write_demo(tmp_path / "scenes", images=8, seed=1)
    return tmp_path / "scenes"


@pytest.fixture
def broken_config(config: Path, scenes: Path, broken: Path) -> Path:
    config.write_text(config.read_text().replace(str(scenes), str(broken)))
    return config


def yolo_copy(folder: Path) -> str:
    """A YOLO dataset of two images; returns the override that trains on it."""
    for part in ("images/train", "labels/train"):
        (folder / part).mkdir(parents=True)
    for i in range(2):
        cv2.imwrite(str(folder / f"images/train/{i}.jpg"), np.full((64, 64, 3), 90 + i, np.uint8))
        (folder / f"labels/train/{i}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/train\nnc: 3\nnames: [car, bus, pedestrian]\n")
    return f"data.train=[{{name: y, format: yolo, root: {folder}, split: train}}]"


def misspelt(broken: Path) -> list[str]:
    return ["train.global_bacth=8"]


def missing_folder(broken: Path) -> list[str]:
    return [f"data.train.0.root={broken}/nowhere"]


def corrupt_jpeg(broken: Path) -> list[str]:
    path = next((broken / "streets/JPEGImages").glob("*.jpg"))
    path.write_bytes(path.read_bytes()[:500])
    return []


def label_with_nan(broken: Path) -> list[str]:
    override = yolo_copy(broken / "yolo")
    (broken / "yolo/labels/train/1.txt").write_text("0 0.5 0.5 0.2 0.2\n1 nan 0.5 0.1 0.1\n")
    return [override]


def contradicting_class_count(broken: Path) -> list[str]:
    override = yolo_copy(broken / "yolo")
    text = (broken / "yolo/data.yaml").read_text()
    (broken / "yolo/data.yaml").write_text(text.replace("nc: 3", "nc: 4"))
    return [override]


def empty_dataset(broken: Path) -> list[str]:
    (broken / "streets/ImageSets/Main/train.txt").write_text("")
    return []


def unmapped_class(broken: Path) -> list[str]:
    return ["classes=[car, pedestrian]"]


def indivisible_batch(broken: Path) -> list[str]:
    return ["train.device=cuda"]


FAULTS: dict[Callable[[Path], list[str]], tuple[str, ...]] = {
    misspelt: ("config-detection.yaml", "train.global_bacth", "global_batch"),
    missing_folder: ("skyview", "nowhere"),
    corrupt_jpeg: (".jpg", "streets", "data.on_fault=drop"),
    label_with_nan: ("1.txt:2", "nan"),
    contradicting_class_count: ("data.yaml", "nc", "4", "3"),
    empty_dataset: ("streets", "empty"),
    unmapped_class: ("bus", "rename"),
    indivisible_batch: ("cuda",),
}


@pytest.mark.parametrize("damage", FAULTS, ids=lambda f: f.__name__)
def test_a_users_mistake_is_one_line(
    damage: Callable[[Path], list[str]], broken_config: Path, broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = damage(broken)
    line = refused(capsys, "train", str(broken_config), *overrides)
    assert all(word in line for word in FAULTS[damage]), line
    assert not (broken_config.parent / "run").exists()


def test_faults_are_dropped_and_counted_when_asked(broken_config: Path, broken: Path) -> None:
    corrupt_jpeg(broken)
    assert "1 unreadable image" in train(1, broken_config, "data.on_fault=drop", "train.steps=1", "train.global_batch=4")


def test_a_run_reports_what_it_did(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Summary, history, resolved config, evaluation again, pictures: all of it from one joint run."""
    train(1, config, "train.steps=6", "eval.every_steps=3", "monitor.tensorboard=true")
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "step", "epoch", "samples", "images_per_second"} <= summary.keys()
    assert [(m["name"], m["drawn"]) for m in summary["mixture"]] == [("skyview", 48), ("streets", 24)]
    assert all({"share_asked", "share_drawn", "passes", "AP"} <= m.keys() for m in summary["mixture"])
    assert [line.split(",")[0] for line in (run / "history.csv").read_text().splitlines()] == ["step", "3", "6"]
    assert list((run / "tensorboard").glob("events*"))
    assert "finished at step 6" in (run / "log.txt").read_text()

    assert main(["eval", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() >= {"AP", "dataset/skyview/AP", "class/car/AP"}
    image = next(Path(str(config)).parent.parent.rglob("JPEGImages/*.jpg"), None)
    assert main(["predict", str(run), str(image or run), "--out", str(tmp_path / "out")]) in (0, 2)
    capsys.readouterr()
    assert main(["config", str(run / "config.yaml")]) == 0
    assert "global_batch: 12" in capsys.readouterr().out


def test_predict_writes_pictures_and_json(config: Path, scenes: Path, tmp_path: Path) -> None:
    train(1, config, "train.steps=1")
    images = scenes / "streets" / "JPEGImages"
    assert main(["predict", str(tmp_path / "run"), str(images), "--limit", "2"]) == 0
    out = tmp_path / "run" / "predictions"
    found = json.loads((out / "predictions.json").read_text())
    assert len(found) == len(list(out.glob("*.jpg"))) == 2
    assert all(entry["width"] == 192 and isinstance(entry["detections"], list) for entry in found.values())


@pytest.mark.parametrize(
    "start", [["-m", "ddptrain"], ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "ddptrain"]]
)
def test_started_as_the_readme_says(config: Path, tmp_path: Path, start: list[str]) -> None:
    """As a module, and through torchrun by hand."""
    command = [sys.executable, *start, "train", str(config), "train.steps=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished at step 1" in done.stdout


def test_nproc_starts_the_ranks_itself(config: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ddptrain", "train", str(config), "train.steps=1", "--nproc", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ranks" in done.stdout
    wrong = subprocess.run(
        [*command, "name=x", "train.global_batch=7"], capture_output=True, text=True, timeout=120, check=False
    )
    assert wrong.returncode == 2
    assert "set it to 6 or 8" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    shutil.rmtree(tmp_path / "run")


def test_a_trained_run_needs_no_published_weights_and_refuses_another_model(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(1, config, "train.steps=1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    state = load_checkpoint(tmp_path / "run", print).state
    started = json.loads(state["config"])
    started["model"] |= {"backbone": None, "pretrained": True}
    save_checkpoint(tmp_path / "run/checkpoints", state | {"config": json.dumps(started)}, 1)
    assert load_checkpoint(tmp_path / "run", best=True).config.model.pretrained is False
    line = refused(capsys, "eval", str(tmp_path / "run"), "model.size=s")
    assert "weights do not fit the model of the config" in line


@pytest.mark.parametrize("arguments", [["train", "x.yaml", "--nproc", "0"], ["predict", "run", "a.jpg", "--limit", "-1"]])
def test_a_number_below_one_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "must be an integer ≥ 1" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_not_an_error() -> None:
    command = f"{sys.executable} -m ddptrain config | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_a_library_loss_without_ignore_regions_is_reported(config: Path) -> None:
    words = "learns objects in ignore regions and crowds as background"
    library = ["model={name: ssdlite320_mobilenet_v3_large}", "data.allow_missing_annotations=true"]
    assert sum(words in note for note in build_task(load_config(config, library)).notes) == 1
    assert not any(words in note for note in build_task(load_config(config)).notes)


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize("command", ["report", "predict", "export"])
def test_a_place_that_cannot_be_written_is_one_line(
    config: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """A file stands where a folder is due: the system refuses, as it would with a full disk or a missing permission."""
    train(1, config, "train.steps=1")
    (tmp_path / "file").write_text("")
    images = [str(next(scenes.rglob("*.jpg")))] if command == "predict" else []
    assert main([command, str(tmp_path / "run"), *images, "--out", str(tmp_path / "file" / "below")]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert str(tmp_path / "file") in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["launch", "x.yaml", "--nproc", "1", "--max-restarts", "-1"], "must be an integer ≥ 0, not '-1'"),
        (["launch", "x.yaml", "--nproc", "1", "--nnodes", "2", "--rdzv", "localhost:abc"], "HOST:PORT with a port from 1 to"),
        (["launch", "x.yaml", "--nproc", "1", "--nnodes", "2", "--rdzv", "localhost:70000"], "HOST:PORT with a port from 1 to"),
        (["compare", "a", "b", "--seed", "-1"], "must be an integer ≥ 0, not '-1'"),
        (["check", "x.yaml", "--images", "-5"], "must be an integer ≥ 0, not '-5'"),
        (["predict", "run", "a.jpg", "--score", "nan"], "must be a number from 0 to 1, not 'nan'"),
        (["predict", "run", "a.jpg", "--score", "2"], "must be a number from 0 to 1, not '2'"),
    ],
)
def test_an_option_out_of_its_range_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.yaml", "--schema"], "a.yaml: has no effect beside --schema"),
        (["a.yaml", "--data", "b.yaml"], "a.yaml: has no effect beside --data"),
        (["--schema", "--data", "b.yaml"], "--data has no effect beside --schema"),
        (["--weights", "share"], "--weights has no effect without --data"),
    ],
)
def test_config_takes_no_argument_without_effect(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, "config", *arguments)
