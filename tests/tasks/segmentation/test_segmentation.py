"""Segmentation through the same engine: exact over splits, ranks and resumes, and it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from support import Ranks, command_line, cut_back, equal, final_state, largest_difference, summary, train

from ddptrain.cli import main
from ddptrain.config import load_config
from ddptrain.structures import SampleKey
from ddptrain.tasks.build import build_task

MASK2FORMER = (
    "model={name: mask2former, embed_dim: 8, depths: [1, 1, 1, 1], heads: [1, 1, 2, 2], window: 4, drop_path: 0, hidden: 32,"
    " feedforward: 32, attention_heads: 2, encoder_layers: 1, decoder_layers: 3, queries: 8}"
)
MASKS = "loss={name: masks, points: 200}"
DEEPLAB = ("model={name: deeplabv3_mobilenet_v3_large, norm: group, aux: true, dropout: 0}", "data.augment.crop=true")


@pytest.fixture
def mask2former() -> tuple[str, ...]:
    """The overrides with which a tiny Mask2Former is trained."""
    for package in ("transformers", "scipy"):
        pytest.importorskip(package, reason="pip install 'ddptrain[transformers]'")
    return MASK2FORMER, MASKS


@pytest.mark.parametrize("kind", ["deeplab", "mask2former"])
def test_other_models_and_losses_are_exact_too(
    masks_config: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """As tests/distributed/test_split.py, which runs LR-ASPP."""
    keys = DEEPLAB if kind == "deeplab" else request.getfixturevalue("mask2former")
    states = []
    for world_size, micro in [(1, 12), (1, 3), (2, 2)]:
        name = f"w{world_size}m{micro}"
        # in two steps only: a group norm of a few pixels multiplies the rounding of each by a hundred
        train(world_size, masks_config, f"name={name}", f"train.micro_batch={micro}", "train.steps=2", *keys)
        states.append(final_state(tmp_path / name))
    for other in states[1:]:
        assert largest_difference(states[0]["model"], other["model"]) < 1e-5
        assert largest_difference(states[0]["ema"], other["ema"]) < 1e-5
        assert other["samples_by_dataset"] == [16, 8]


def test_a_cut_run_of_mask2former_is_bit_equal_whatever_the_workers(
    masks_config: Path, tmp_path: Path, mask2former: tuple[str, ...]
) -> None:
    """Its points are drawn anew in every step."""
    steps = ("train.steps=6", "eval.every_steps=2", "checkpoint.every_steps=2", "checkpoint.keep_last=9", *mask2former)
    train(1, masks_config, "name=calm", *steps)
    for workers in (1, 3):
        name = f"killed{workers}"
        cut_back(tmp_path / "calm", tmp_path / name, 2)
        train(1, masks_config, f"name={name}", *steps, "resume=auto", f"data.workers={workers}")
        equal(final_state(tmp_path / "calm"), final_state(tmp_path / name))
        assert (tmp_path / "calm/history.csv").read_text() == (tmp_path / name / "history.csv").read_text()


def test_windows_give_the_same_metrics_on_one_two_and_three_ranks(masks_config: Path, tmp_path: Path) -> None:
    train(1, masks_config, "train.steps=2")
    found = []
    keys = ["eval.batch=4", "eval.window=slide", "data.image_size=32"]
    for world_size in (1, 2, 3):
        ranks = Ranks(world_size, command_line, ["eval", str(tmp_path / "run"), *keys, "--json"])
        assert ranks.wait() == [0] * world_size, ranks.text
        found.append(ranks.text)
    metrics = json.loads(found[0][found[0].index("{") :])  # behind what is said on stderr
    assert found[0] == found[1] == found[2]
    assert metrics["class/square/IoU"] == metrics["dataset/all/class/square/IoU"]
    assert metrics["dataset/discs/class/square/IoU"] is None  # unknown there


def test_a_class_that_a_dataset_does_not_label_is_unknown_there(masks_config: Path) -> None:
    task = build_task(load_config(masks_config))
    model = task.build_model()
    for dataset, known in ((0, True), (1, False)):
        batch = task.train.collate([task.train[SampleKey(i, dataset, i)] for i in range(4)])
        model.zero_grad()
        task.loss(model, batch).total.backward()
        grads = [p.grad for n, p in model.named_parameters() if n.endswith("high_classifier.bias")]
        assert (grads[0] != 0).tolist() == [True, True, known]
    model.eval()
    with torch.inference_mode():
        found = task.predict(model, task.val_samples.collate([task.val_samples[SampleKey(0, 1, i)] for i in range(3)]))
    assert not any((np.r_[p["cells"] % 3, p["cells"] // 3] == 2).any() for p in found)
    drawn = task.sampler.keys(np.arange(120))[0]
    assert np.bincount(drawn).tolist() == [80, 40]


def test_an_image_may_be_thinner_than_a_pixel_of_its_preview(masks_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = build_task(load_config(masks_config))
    batch = task.val_samples.collate([task.val_samples[SampleKey(0, 0, 0)]])
    thin = replace(
        batch, native_size=torch.tensor([[4000, 6]]), targets={"native_mask": torch.zeros(1, 6, 4000, dtype=torch.uint8)}
    )
    monkeypatch.setattr(task, "logits", lambda model, batch: iter([torch.zeros(3, 6, 4000)]))
    (found,) = task.predict(torch.nn.Identity(), thin)
    assert cv2.imdecode(found["preview"], cv2.IMREAD_UNCHANGED).shape[:2] == (1, 256)


@pytest.mark.learning
@pytest.mark.usefixtures("figures")
def test_it_learns_reports_and_predicts(masks_config: Path, tmp_path: Path, tables: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures of the report need the extra [report]")
    text = train(
        1,
        masks_config,
        "train.steps=50",
        "optimizer={name: adamw, lr: 0.004, momentum: 0.9}",
        "ema.decay=0.8",
        "eval.every_steps=25",
        "checkpoint.monitor=[loss]",
        "monitor={tensorboard: true, images: 4}",
        "data.augment={scale: 0.1, translate: 0.05}",
        "loss.class_weights=none",
        timeout=280,
    )
    run = tmp_path / "run"
    assert summary(run)["mIoU"] >= 0.6, text
    for name in ("training_curves.png", "confusion_matrix.png", "class_iou.png", "worst_images.jpg", "best_images.jpg"):
        assert (run / "report" / name).stat().st_size > 5000, name
    assert "class/disc/IoU" in (run / "report" / "evaluation_report.txt").read_text()
    picture = tables / "all/images/val/0.png"
    assert main(["predict", str(run), str(picture), "--score", "0.5"]) == 0
    said = json.loads((run / "predictions/predictions.json").read_text())[str(picture)]
    assert (said["width"], said["height"], said["mask"]) == (56, 48, "0.png")
    assert sum(said["classes"].values()) == pytest.approx(1, abs=1e-3)
    with Image.open(run / "predictions" / "0.png") as image:
        assert image.mode == "P"
        labels = np.array(image)
    truth = cv2.imread(str(tables / "all/masks/val/0.png"), cv2.IMREAD_UNCHANGED)
    assert (labels == truth)[truth != 255].mean() > 0.9
    overlay = cv2.imread(str(run / "predictions" / "0.jpg"))
    assert overlay.shape[:2] == (48 * 6, 56 * 6)


def test_check_reports_pixels_by_class_and_faults(
    masks_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "check.html")]
    assert main(["check", str(masks_config), *out, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    first, second = facts["classes"][:2]
    assert first["pixels"]["square"] > 0
    assert second["pixels"]["square"] is None
    assert facts["datasets"][0]["images"] == 10
    assert main(["check", str(masks_config), *out, "classes=[ground, disc, square, tree]"]) == 0
    said = capsys.readouterr().out
    assert "class tree: no training dataset labels it" in said
    assert main(["check", str(masks_config), *out, "data.train.0.names=[ground, disc]"]) == 1
    said = capsys.readouterr().out
    assert "unknown label in a mask: 2 (" in said
    assert "allowed: 0 to 1, and 255 for void" in said


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["data.val.1.drop=[ground, disc]"], "discs: no pixels are left after its classes are mapped"),
        (["loss={name: masks}"], "loss.name: masks is not the loss of lraspp_mobilenet_v3_large; set it to pixels"),
        ([MASK2FORMER, "loss={name: pixels}"], "loss.name: pixels is not the loss of mask2former; set it to masks"),
        (["model.aux=true"], "aux: lraspp_mobilenet_v3_large has none; remove it"),
        (["loss={cross_entropy: 0}"], "loss.cross_entropy: it and dice are both 0"),
        (
            ["model={name: mask2former, weights: w, hidden: 64}", MASKS],
            "hidden: the folder of weights determines the architecture",
        ),
        (["loss.class_weights=[1, 2]"], "loss.class_weights: 2 numbers for 3 classes; give one number ≥ 0 for each class"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    masks_config: Path, keys: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(masks_config), *keys]) == 2
    said = capsys.readouterr().err.strip()
    assert line in said
    assert "\n" not in said


@pytest.mark.learning
def test_real_images_are_learned(tmp_path: Path, data_root: Path) -> None:
    """CamVid, a miniature of configs/camvid.yaml: road, sky and buildings after some seconds."""
    config = Path(__file__).resolve().parents[3] / "configs" / "camvid.yaml"
    root = f"root={data_root}/camvid36"
    keys = ("train.epochs=15", "data.image_size=128", "eval.every_epochs=15", "data.workers=0")
    train(1, config, f"output={tmp_path}", f"data.train.0.{root}", f"data.val.0.{root}", *keys, timeout=400)
    assert summary(tmp_path / "camvid")["pixel_accuracy"] >= 0.5
