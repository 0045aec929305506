"""Classification through the same engine: exact over splits, ranks and resumes, and it learns."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import final_state, largest_difference, summary, train

from ddptrain.cli import main
from ddptrain.config import load_config
from ddptrain.data.loading.batches import train_loader
from ddptrain.reporting.run_page.parts import stored
from ddptrain.structures import SampleKey
from ddptrain.tasks.build import build_task
from ddptrain.tasks.logits.sections import logits_sections
from ddptrain.tasks.logits.task import LogitsTask


@pytest.mark.parametrize(
    "overrides",
    [["loss.name=focal", "loss.class_weights=[1, 2, 0.5]"], ["loss={name: bce, pos_weight: balanced}", "data.balance=none"]],
    ids=["focal", "bce"],
)
def test_other_losses_are_sums_too(shapes_config: Path, tmp_path: Path, overrides: list[str]) -> None:
    """As tests/distributed/test_split.py, which runs cross entropy."""
    for world_size, micro in ((1, 12), (2, 2)):
        train(world_size, shapes_config, f"name=w{world_size}", f"train.micro_batch={micro}", *overrides)
    one, two = (final_state(tmp_path / f"w{n}") for n in (1, 2))
    assert largest_difference(one["model"], two["model"]) < 1e-5
    assert largest_difference(one["ema"], two["ema"]) < 1e-5


@pytest.mark.learning
@pytest.mark.usefixtures("figures")
def test_it_learns_reports_and_keeps_the_best_of_each_metric(shapes_config: Path, tmp_path: Path, shapes: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures of the report need the extra [report]")
    train(
        1,
        shapes_config,
        "train.steps=240",
        "train.global_batch=24",
        "train.micro_batch=24",
        "optimizer={name: adamw, lr: 0.004, momentum: 0.9}",
        "ema.decay=0.9",
        "eval.every_steps=60",
        "checkpoint.monitor=[loss, f1]",
        "data.augment={mixup: 0, cutmix: 0, hsv_h: 0, scale: 0.2}",
    )
    run = tmp_path / "run"
    best = summary(run)
    assert best["best"] >= 0.8
    with (run / "history.csv").open() as file:
        rows = np.genfromtxt(file, delimiter=",", names=True, deletechars="")
    links = {name: int((run / "checkpoints" / f"{name}.pt").resolve().stem[5:]) for name in ("best", "best_loss", "best_f1")}
    assert links["best"] == rows["step"][rows["accuracy"].argmax()]
    assert links["best_loss"] == rows["step"][rows["loss"].argmin()]
    assert links["best_f1"] == rows["step"][rows["f1"].argmax()]
    report = run / "report"
    for name in ("training_curves", "confusion_matrix", "probability_distributions", "pr_curve"):
        assert (report / f"{name}.png").stat().st_size > 5000, name
    assert "balanced_accuracy" in (report / "evaluation_report.txt").read_text()
    assert main(["report", str(run), f"--out={tmp_path / 'again'}"]) == 0
    assert {p.name for p in (tmp_path / "again").iterdir()} == {p.name for p in report.iterdir()}
    said = (tmp_path / "again" / "evaluation_report.txt").read_text()
    assert re.search(rf"^accuracy +{best['best']:.4f}$", said, re.MULTILINE)
    picture = shapes / "val/disc/0.png"
    assert main(["predict", str(run), str(picture)]) == 0
    said = json.loads((run / "predictions/predictions.json").read_text())[str(picture)]
    assert sum(row["probability"] for row in said["classes"]) == pytest.approx(1, abs=1e-3)
    assert (run / "predictions" / "0.jpg").is_file()


def test_a_collapsed_classifier_is_named(shapes_config: Path, tmp_path: Path) -> None:
    text = train(1, shapes_config, "train.steps=1", "data.balance=none", "loss.class_weights=[1, 0, 0]", "optimizer.lr=0.5")
    assert "has collapsed: it answers disc for 100% of the images" in text


def test_balance_draws_every_class_equally_often(shapes_config: Path) -> None:
    for balance, each in (("oversample", 14), ("undersample", 5)):
        task = build_task(load_config(shapes_config, [f"data.balance={balance}"]))
        assert task.sampler.mixture.samples_per_epoch == 3 * each
        for epoch in range(3):
            dataset, index = task.sampler.keys(np.arange(epoch * 3 * each, (epoch + 1) * 3 * each))
            keys = [SampleKey(0, int(d), int(i)) for d, i in zip(dataset, index)]
            classes = np.stack([task.train[key].targets["classes"] for key in keys])
            assert np.abs(classes.sum(0) - each).max() <= 1


def test_balance_is_over_the_datasets_that_are_drawn_from(tmp_path: Path, shapes: Path) -> None:
    """Discs are rare in the one dataset, squares in the other."""
    rows = {"one": [("disc", 2, "disc"), ("square", 6, "square")], "two": [("disc", 9, "disc"), ("square", 1, "square")]}
    config = of_rows(tmp_path, shapes, rows, "cross_entropy")

    def drawn(*shares: int) -> tuple[list[float], list[str]]:
        given = [f"data.train.{i}.share={share}" for i, share in enumerate(shares)]
        task = logits_task(config, "classes=[disc, square]", "data.balance=oversample", *given)
        dataset, index = task.sampler.keys(np.arange(1200))
        truth = [task.train.tables[d].truth()[i] for d, i in zip(dataset.tolist(), index.tolist())]
        return np.mean(truth, 0).tolist(), [note for note in task.notes if "data.balance" in note]

    for shares in ((), (1, 0)):
        assert drawn(*shares) == (pytest.approx([0.5, 0.5], abs=0.01), [])
    parts, (note,) = drawn(3, 1)
    assert parts != pytest.approx([0.5, 0.5], abs=0.05)
    assert f"equally often: disc {parts[0]:.0%}"[:-1] in note


def test_what_is_mixed_in_depends_on_the_position_alone(shapes_config: Path) -> None:
    """Neither on the batch nor on the workers; and another position mixes otherwise."""
    task = build_task(load_config(shapes_config))

    def batches(micro_batch: int, workers: int) -> dict[str, torch.Tensor]:
        keys = lambda positions: (positions * 0, positions * 0)  # noqa: E731
        with train_loader(
            task.train,
            keys,
            position=7,
            steps=2,
            global_batch=6,
            micro_batch=micro_batch,
            rank=0,
            world_size=1,
            workers=workers,
        ) as loader:
            found = list(loader)
        return {k: torch.cat([b.targets[k] for b in found]) for k in found[0].targets}

    one, other = batches(6, 0), batches(2, 2)
    for name in one:
        assert torch.equal(one[name], other[name]), name
    assert len(one["part"].unique()) > 6
    assert one["box"].any(1).float().mean() not in (0.0, 1.0)


def of_rows(folder: Path, shapes: Path, rows: dict[str, list[tuple[str, int, str]]], loss: str = "bce") -> Path:
    """A config of datasets in CSV, for training and validation: of each the folders of its images, how many, their classes."""
    for name, lines in rows.items():
        (folder / name).mkdir()
        text = "".join(f"{shapes}/train/{where}/{i}.png,{labels}\n" for where, n, labels in lines for i in range(n))
        (folder / name / "train.csv").write_text(f"image,label\n{text}")
    where = f"split: train, images: {shapes}"
    sets = ", ".join(f"{{name: {n}, format: csv, root: {folder}/{n}, {where}}}" for n in rows)
    config = folder / "c.yaml"
    config.write_text(
        f"name: run\noutput: {folder}\ntask: classification\nclasses: [disc, square, angular]\n"
        f"data: {{train: [{sets}], val: [{sets}], image_size: 32, workers: 0}}\n"
        f"model: {{name: lenet}}\nloss: {{name: {loss}}}\n"
        "train: {steps: 3, global_batch: 8, micro_batch: 8}\nmonitor: {tensorboard: false}\neval: {batch: 7}\n"
    )
    return config


@pytest.fixture
def partly_labelled(tmp_path: Path, shapes: Path) -> Path:
    """Two datasets, of which one labels only discs."""
    rows = {"round": [("disc", 8, "disc"), ("stripes", 5, "")], "all": [("square", 8, "square|angular"), ("disc", 4, "disc")]}
    return of_rows(tmp_path, shapes, rows)


def logits_task(config: Path, *overrides: str) -> LogitsTask:
    task = build_task(load_config(config, list(overrides)))
    assert isinstance(task, LogitsTask)
    return task


def test_several_classes_from_a_csv(tmp_path: Path, partly_labelled: Path) -> None:
    """Two datasets, each labelling only some classes: what one does not label is unknown there."""
    train(1, partly_labelled)
    found = summary(tmp_path / "run")
    assert found["AP"] is not None
    task = build_task(load_config(partly_labelled))
    sample = task.train[SampleKey(0, 0, 0)]
    assert sample.annotated.tolist() == [True, False, False]
    model = task.build_model()
    batch = task.train.collate([sample])
    task.loss(model, batch).total.backward()
    last = list(model.parameters())[-1].grad
    assert last is not None
    assert (last != 0).tolist() == [True, False, False]


def test_classes_that_become_one_are_one_label(tmp_path: Path, shapes: Path) -> None:
    rows = {"one": [("square", 3, "square|angular"), ("disc", 4, "disc")]}
    config = of_rows(tmp_path, shapes, rows, "cross_entropy")
    renamed = [f"data.{part}.0.rename={{angular: square}}" for part in ("train", "val")]
    task = logits_task(config, "classes=[disc, square]", *renamed)
    assert task.train.tables[0].samples_by_class().tolist() == [4, 3]


def test_images_of_which_no_class_is_left_are_counted(tmp_path: Path, shapes: Path) -> None:
    config = of_rows(tmp_path, shapes, {"one": [("square", 3, "square"), ("disc", 4, "disc"), ("stripes", 5, "junk")]})
    junk = [f"data.{part}.0.{key}=[junk]" for part, key in (("train", "drop"), ("val", "ignore"))]
    task = logits_task(config, "classes=[disc, square]", *junk)
    for part in ("train", "val"):
        assert f"{part} one: left out: 5 images whose classes are all ignored or dropped" in task.notes


def test_of_mixed_images_only_what_both_label_is_known(partly_labelled: Path) -> None:
    task = logits_task(partly_labelled, "data.augment.mixup=1", "data.augment.close_epochs=0")
    keys = [SampleKey(p, *(int(column[0]) for column in task.sampler.keys(np.array([p])))) for p in range(24)]
    partners = [task.train.partners.draw(key, task.config.seed, 1)[0] for key in keys]
    labelled = task.train.annotated
    assert any(labelled[key.dataset].sum() > labelled[other.dataset].sum() for key, other in zip(keys, partners))
    for key, other in zip(keys, partners):
        np.testing.assert_array_equal(task.train[key].annotated, labelled[key.dataset] & labelled[other.dataset])


def test_balanced_positives_are_counted_where_the_class_is_labelled(partly_labelled: Path) -> None:
    """Discs: 12 of 25 images; the others: 8 of the 12 that may show them."""
    weights = logits_task(partly_labelled, "loss.pos_weight=balanced")._pos_weight
    assert weights is not None
    assert weights.tolist() == pytest.approx([13 / 12, 4 / 8, 4 / 8])


def test_answers_about_unlabelled_classes_change_no_chart(partly_labelled: Path) -> None:
    task = logits_task(partly_labelled)
    generator = np.random.default_rng(0)
    logits = [generator.normal(size=truth.shape).astype(np.float32) for truth in task.val_truth]

    def charts(unlabelled: float) -> list[Any]:
        found = [np.where(known, own, unlabelled) for own, known in zip(logits, task.val_annotated)]
        predictions = [{i: {"logits": row} for i, row in enumerate(rows)} for rows in found]
        watched = task.view.watched(predictions, task.metrics(predictions))
        counts = {name: np.stack(list(of_class)).tolist() for name, of_class in watched.curves.items()}
        pictures = {name: picture.tolist() for name, picture in watched.pictures.items()}
        return [stored(logits_sections(task, predictions, str)[0]), counts, pictures]

    assert charts(-5) == charts(5)


@pytest.mark.learning
def test_real_images_are_learned(tmp_path: Path, data_root: Path) -> None:
    """CIFAR images, a miniature of configs/cifar10.yaml: far above chance after some seconds."""
    config = Path(__file__).resolve().parents[3] / "configs" / "cifar10.yaml"
    train(
        1,
        config,
        f"output={tmp_path}",
        "train.epochs=4",
        "data.workers=0",
        "model={name: small_resnet, blocks: 1, width: 16}",
        f"data.train.0.root={data_root}/cifar10_1500",
        f"data.val.0.root={data_root}/cifar10_1500",
        "data.augment.cutmix=0",
        "optimizer={name: adamw, lr: 0.005, momentum: 0.9}",
        timeout=400,
    )
    assert summary(tmp_path / "cifar10")["accuracy"] >= 0.25


def test_how_long_images_are_mixed_is_reported(shapes_config: Path) -> None:
    told = build_task(load_config(shapes_config, ["data.samples_per_epoch=36"])).notes
    assert "mixup in 30% and cutmix in 50% of the samples, during the first 2 of 2 epochs" in told
    told = build_task(load_config(shapes_config, ["data.samples_per_epoch=36", "data.augment.close_epochs=10"])).notes
    assert (
        "warning: no mixup and no cutmix: data.augment.close_epochs is as long as the run, 10 epochs of 2; set it lower, or "
        "remove mixup and cutmix"
    ) in told
