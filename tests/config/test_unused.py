"""A key that nothing would read beside the values of the others is refused, in one line that says what would read it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bare_config import bare as run

from ddptrain.config import resolve
from ddptrain.config.docs import to_yaml
from ddptrain.config.text import parse_yaml
from ddptrain.errors import UserError


@pytest.mark.parametrize(
    ("task", "overrides", "line"),
    [
        ("classification", "loss={name: bce, gamma: 1.5}", "loss.gamma: 1.5 has no effect here, only loss.name=focal uses it"),
        ("classification", "loss={name: bce, label_smoothing: 0.1}", "only loss.name=cross_entropy or focal uses it"),
        ("classification", "loss={name: bce, class_weights: balanced}", "bce has loss.pos_weight"),
        ("classification", "loss={pos_weight: [1, 2]}", "loss.pos_weight: [1.0, 2.0] has no effect here, only loss.name=bce"),
        ("interaction", "loss={name: focal, pos_weight: balanced}", "only loss.name=bce uses it"),
        ("interaction", "model={blocks: 2}", "model.blocks: 2 has no effect here, only model.backbone=small_resnet uses it"),
        ("interaction", "data.pairs={max_group_samples_ratio: 2}", "only data.pairs.use_group_sampling=true uses it"),
        ("interaction", "data.train.0.annotated=[a]", "data.train.0.annotated: [a] has no effect here, only loss.name=bce"),
        (
            "detection",
            "loss={box: 5} model={name: fcos_resnet50_fpn}",
            "loss.box: 5.0 has no effect here, only model.name=yolo",
        ),
        *(
            (
                "detection",
                f"loss={{{key}: 0.3}} model={{name: fcos_resnet50_fpn}}",
                f"loss.{key}: 0.3 has no effect here, only model.name=yolo",
            )
            for key in ("nwd_scale", "focal_gamma", "focal_alpha", "iou_t")
        ),
        ("detection", "eval={nms_iou: 0.5} model={name: fcos_resnet50_fpn}", "eval.nms_iou: 0.5 has no effect here"),
        ("detection", "data.allow_missing_annotations=true", "only a detector of torchvision uses it"),
        ("detection", "model={pretrained: true}", "model.pretrained: true has no effect here, only model.backbone uses it"),
        ("detection", "model={fusion: add}", "only model.in_channels=4 or 5 uses it"),
        ("detection", "data.val.0.share=2", "data.val.0.share: 2.0 has no effect here"),
        (
            "detection",
            "data.train.0={name: d, format: coco, root: r, images: i, annotations: a, split: s}",
            "data.train.0.split",
        ),
        ("detection", "train={patience: 3} eval={every_epochs: null}", "only eval.every_epochs or eval.every_steps"),
        ("detection", "data.train.0.depth_range=[0, 1]", "only depth: FOLDER beside it uses it"),
        ("detection", "eval={overlap: 0.2}", "eval.overlap"),
        ("segmentation", "eval={overlap: 0.2}", "only eval.window=slide uses it"),
        ("segmentation", "eval={protocols: [coco, voc]}", "only for detection, not for segmentation"),
        ("segmentation", "loss={aux: 0.2}", "only model.aux=true uses it"),
        ("detection", "optimizer={name: adagrad, momentum: 0.5}", "only optimizer.name=sgd, rmsprop, adam or adamw uses it"),
        ("detection", "schedule={warmup_bias_lr: 0.2}", "only optimizer.name=sgd uses it"),
        ("detection", "schedule={gamma: 0.2}", "only schedule.name=multi_step uses it"),
        ("detection", "ema={enabled: false, tau: 9}", "ema.tau: 9.0 has no effect here, only ema.enabled=true uses it"),
        ("own:Task", "optimizer={name: adagrad, momentum: 0.5}", "optimizer.momentum: 0.5 has no effect here"),
    ],
)
def test_what_nothing_reads_is_refused(task: str, overrides: str, line: str) -> None:
    # none of the values holds a "} "
    changes = overrides.replace("} ", "}\n").split("\n")
    with pytest.raises(UserError) as e:
        resolve(run(task), changes)
    assert line in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("task", "file", "overrides", "left_out"),
    [
        (
            "detection",
            {"data.augment": {"mosaic": 1.0, "close_epochs": 5}},
            ["data.augment.mosaic=0"],
            ["data.augment.close_epochs"],
        ),
        ("detection", {"ema": {"decay": 0.99, "tau": 9}}, ["ema.enabled=false"], ["ema.decay", "ema.tau"]),
        ("detection", {"ema": {"decay": 0.99, "tau": 9}}, ["ema={enabled: false, decay: 0.99}"], None),
        ("detection", {"ema": {"enabled": False, "tau": 9}}, ["seed=1"], None),
        ("detection", {"optimizer": {"nominal_batch": 32}}, ["optimizer.weight_decay=0"], ["optimizer.nominal_batch"]),
        ("detection", {"optimizer": {"nominal_batch": 32}}, ["optimizer.weight_decay=0", "optimizer.nominal_batch=16"], None),
        ("detection", {"schedule": {"name": "one_cycle", "final": 0.1}}, ["schedule.name=constant"], ["schedule.final"]),
        ("detection", {"schedule": {"warmup_bias_lr": 0.2}}, ["optimizer.name=adamw"], ["schedule.warmup_bias_lr"]),
        ("detection", {"monitor": {"images": 4}}, ["monitor.tensorboard=false"], ["monitor.images"]),
        (
            "detection",
            {"model": {"in_channels": 5, "fusion": "add"}, "data.train.0.depth_missing": "zeros"},
            ["model.in_channels=3"],
            ["model.fusion", "data.train.0.depth_missing"],
        ),
        ("segmentation", {"eval": {"window": "slide", "overlap": 0.2}}, ["eval.window=whole"], ["eval.overlap"]),
        ("classification", {"loss": {"class_weights": "balanced"}}, ["loss.name=bce"], None),
        ("detection", {"train": {"patience": 3}}, ["eval.every_epochs=null"], None),
    ],
)
def test_what_the_command_line_switches_off_is_left_out_and_reported(
    task: str, file: dict[str, Any], overrides: list[str], left_out: list[str] | None
) -> None:
    data = json.loads(json.dumps(run(task)))
    for key, value in file.items():
        *path, last = key.split(".")
        section = data
        for part in path:
            section = section[int(part)] if isinstance(section, list) else section.setdefault(part, {})
        section[last] = value
    lines: list[str] = []
    if left_out is None:
        with pytest.raises(UserError, match="has no effect here"):
            resolve(data, overrides, tell=lines.append)
        return
    found = resolve(data, overrides, tell=lines.append)
    have, are = ("1 key has", "is") if len(left_out) == 1 else (f"{len(left_out)} keys have", "are")
    which = f"config: {have} no effect with these overrides and {are}"
    assert [line.partition(" left out")[0] for line in lines] == [which]
    assert all(f"{key}=" in lines[0] for key in left_out)
    # what the run folder gets is a config like any other
    assert resolve(parse_yaml(to_yaml(found), "config.yaml"), tell=lines.append) == found
    assert len(lines) == 1


def test_the_way_out_that_the_line_names_works() -> None:
    with pytest.raises(UserError) as e:
        resolve(run("classification", loss={"name": "bce", "gamma": 1.5}))
    assert str(e.value).endswith("remove it, or set loss.gamma=2.0")
    found = resolve(run("classification", loss={"name": "bce", "gamma": 1.5}), ["loss.gamma=2.0"])
    assert resolve(parse_yaml(to_yaml(found), "config.yaml")) == found


def test_a_stored_config_is_taken_as_it_is() -> None:
    """A checkpoint of an older version can still be evaluated, whatever its config set in vain."""
    stored = run("classification", loss={"name": "bce", "gamma": 1.5})
    assert resolve(stored, ["eval.batch=2"], stored=True).loss.name == "bce"
    with pytest.raises(UserError, match=r"eval\.overlap: 0\.3 has no effect here"):
        resolve(run("segmentation"), ["eval.overlap=0.3"], stored=True)


def test_a_task_of_the_users_own_may_read_any_key() -> None:
    assert resolve(run("own:Task", loss={"name": "bce", "gamma": 1.5})).loss.name == "bce"
