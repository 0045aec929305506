"""No key is taken and then ignored: changing any key of any section changes the run, or is refused in one line.

`KEYS` has a line for each key of each section, also for those that come: another value, and what shows that it matters: a
probe, or the test of a part that cannot be built alone. `RUNS_TRIED` are the runs in which it is tried: each key of each of
them is changed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import key_probes as probe
import pytest
from pydantic import BaseModel
from small_runs import COMMON, RUNS

from ddptrain.config import RunConfig, resolve
from ddptrain.config.docs import to_yaml
from ddptrain.config.places import sections_in
from ddptrain.config.section import NamedSection
from ddptrain.config.tasks import every_run
from ddptrain.config.text import dump_inline, parse_yaml
from ddptrain.config.unused import unused
from ddptrain.errors import UserError

ROOT = Path(__file__).parents[1]
Probe = Callable[[RunConfig], Any]


class Key(NamedTuple):
    """Another value than the one in the runs that are tried, and what shows that it matters: a probe, or a test's file."""

    other: Any
    shown: Probe | str


SPLIT = {"train": "val", "val": "train"}
KEYS: dict[str, dict[str, Key]] = {
    "RunConfig": {
        "name": Key("other", probe.folder),
        "output": Key("elsewhere", probe.folder),
        "task": Key("detection", "tests/config/test_tasks.py"),
        "seed": Key(9, probe.samples),
        "resume": Key("auto", "tests/distributed/test_resume.py"),
        "init_from": Key("nowhere", probe.state),
        "init_strict": Key(True, "tests/checkpoint/test_weights.py"),
        "freeze": Key(["nothing"], probe.state),
        "classes": Key(lambda value: [*value, "one more"], probe.network),
    },
    "OwnRun": {"options": Key({"a": 1}, "tests/tasks/test_docs_tasks.py")},
    "ResumeConfig": {
        "source": Key("nowhere", "tests/checkpoint/test_weights.py"),
        "allow": Key(["seed"], "tests/distributed/test_resume.py"),
    },
    "DatasetConfig": {
        "name": Key("other", probe.samples),
        "format": Key("own", probe.samples),
        "root": Key("nowhere", probe.samples),
        "split": Key(SPLIT.__getitem__, probe.samples),
        "annotations": Key("nowhere", probe.samples),
        "images": Key("nowhere", probe.samples),
        "names": Key(["one"], probe.samples),
        "share": Key(7, probe.samples),
        "rename": Key({"nobody": 0}, probe.samples),
        "ignore": Key(["nobody"], probe.samples),
        "drop": Key(["nobody"], probe.samples),
        "annotated": Key("all", probe.samples),
        "exif": Key("ignore", "tests/data/images/test_orientation.py"),
    },
    "DetectionDataset": {
        "depth": Key("depth", probe.samples),
        "depth_range": Key([0, 9], probe.samples),
        "depth_invalid": Key([1], probe.samples),
        "depth_missing": Key(lambda value: "zeros" if value == "error" else "error", probe.samples),
    },
    "HoldoutDataset": {"holdout": Key(0.5, "tests/data/formats/test_holdout.py")},
    "SegmentationDataset": {
        "void": Key(2, probe.samples),
        "values": Key({2: 1}, "tests/data/formats/test_masks.py"),
    },
    "InteractionDataset": {"sequences": Key(["nowhere"], probe.samples)},
    "AugmentConfig": {
        **{k: Key(0.25, probe.samples) for k in ("scale", "translate", "hflip", "hsv_h", "hsv_s", "hsv_v")},
        **{k: Key(30, probe.samples) for k in ("rotate", "shear")},
        "vflip": Key(0.7, probe.samples),
    },
    "MixingAugment": {"mixup": Key(0.7, probe.samples), "close_epochs": Key(200, probe.samples), "pool": Key(8, probe.samples)},
    "DetectionAugment": {"mosaic": Key(0.7, probe.samples)},
    "ClassificationAugment": {"cutmix": Key(0.7, probe.samples), "mix_alpha": Key(0.2, probe.samples)},
    "SegmentationAugment": {"crop": Key(True, probe.samples)},
    "PairsConfig": {
        "distance_multiplier": Key(1.5, probe.samples),
        "max_difficulty": Key(1, "tests/data/tables/test_pairs.py"),
        "use_group_sampling": Key(lambda value: not value, "tests/data/tables/test_pairs.py"),
        "max_group_samples_ratio": Key(0.3, probe.samples),
        "max_negatives_per_frame": Key(1, probe.samples),
        "balance_ratio": Key(0.3, probe.samples),
    },
    "DataConfig": {
        "image_size": Key(96, probe.samples),
        "samples_per_epoch": Key(7, probe.samples),
        "workers": Key(1, "tests/data/loading/test_loader.py"),
        "on_fault": Key("drop", "tests/commands/test_check.py"),
        "max_bad_samples": Key(1, "tests/faults/test_run_faults.py"),
    },
    "DetectionData": {"allow_missing_annotations": Key(lambda value: not value, probe.samples)},
    "BalancedData": {"balance": Key("undersample", probe.samples)},
    "YoloConfig": {
        "name": Key("fcos_resnet50_fpn", probe.network),
        "size": Key("s", probe.network),
        "strides": Key([4, 8, 16], probe.network),
        "in_channels": Key(lambda value: 9 - value, probe.network),
        "fusion": Key("add", probe.network),
        "backbone": Key("resnet18", probe.network),
        "pretrained": Key(True, probe.network),
        "norm": Key("none", probe.network),
        "reg_max": Key(4, probe.network),
    },
    "TorchvisionConfig": {
        "name": Key("fasterrcnn_mobilenet_v3_large_320_fpn", probe.network),
        "pretrained": Key(True, probe.network),
        "pretrained_backbone": Key(True, probe.network),
    },
    "ClassifierConfig": {
        "name": Key("squeezenet1_1", probe.network),
        "pretrained": Key(True, probe.network),
        "weights": Key("nowhere", probe.network),
    },
    "LeNetConfig": {"name": Key("small_resnet", probe.network)},
    "SmallResNetConfig": {
        "name": Key("lenet", probe.network),
        "blocks": Key(2, probe.network),
        "width": Key(16, probe.network),
        "norm": Key("none", probe.network),
        "dropout": Key(0.5, probe.network),
    },
    "InteractionConfig": {
        "name": Key("lenet", probe.network),
        "stage": Key(lambda value: 3 - value, probe.network),
        "backbone": Key("mobilenet_v3_small", probe.network),
        "pretrained": Key(True, probe.network),
        "weights": Key("nowhere", probe.network),
        "blocks": Key(2, probe.network),
        "width": Key(24, probe.network),
        "norm": Key("none", probe.network),
        "hidden": Key(8, probe.network),
        "dropout": Key(0.5, probe.network),
    },
    "SegmenterConfig": {
        "name": Key(lambda value: "fcn_resnet50" if value.startswith("lraspp") else "deeplabv3_resnet50", probe.network),
        "pretrained": Key(True, probe.network),
        "pretrained_backbone": Key(True, probe.network),
        "aux": Key(lambda value: not value, probe.network),
        "norm": Key("frozen", probe.network),
        "dropout": Key(0.25, probe.network),
    },
    "Mask2FormerConfig": {
        "name": Key("lraspp_mobilenet_v3_large", probe.network),
        "weights": Key("nowhere", probe.network),
        "embed_dim": Key(16, probe.network),
        "depths": Key([1, 1, 1, 2], probe.network),
        "heads": Key([1, 1, 1, 2], probe.network),
        "window": Key(3, probe.network),
        "drop_path": Key(0.5, probe.network),
        "hidden": Key(64, probe.network),
        "feedforward": Key(24, probe.network),
        "attention_heads": Key(4, probe.network),
        "encoder_layers": Key(2, probe.network),
        "decoder_layers": Key(3, probe.network),
        "queries": Key(7, probe.network),
    },
    "LossConfig": {
        "name": Key("cross_entropy", probe.loss),
        "box": Key(5, probe.loss),
        "cls": Key(2, probe.loss),
        "dfl": Key(3, probe.loss),
        "topk": Key(2, probe.loss),
        "alpha": Key(2, probe.loss),
        "beta": Key(1, probe.loss),
    },
    "SizeWeights": {
        "small": Key(3, probe.loss),
        **{k: Key(3, "tests/models/yolo/test_partial_labels.py") for k in ("medium", "large")},
    },
    "ImageLossConfig": {
        "name": Key(lambda value: {"focal": "cross_entropy"}.get(value, "focal"), probe.loss),
        "class_weights": Key(lambda value: "balanced" if value == "none" else "none", probe.loss),
        "label_smoothing": Key(0.3, probe.loss),
        "gamma": Key(0.5, probe.loss),
        "pos_weight": Key("balanced", probe.loss),
    },
    "PixelLossConfig": {
        "name": Key("masks", probe.loss),
        "cross_entropy": Key(2, probe.loss),
        "dice": Key(3, probe.loss),
        "aux": Key(0.1, probe.loss),
        "class_weights": Key("none", probe.loss),
    },
    "MaskLossConfig": {
        "name": Key("pixels", probe.loss),
        "cls": Key(3, probe.loss),
        "mask": Key(3, probe.loss),
        "dice": Key(3, probe.loss),
        "no_object": Key(0.5, probe.loss),
        "points": Key(60, probe.loss),
        "oversample": Key(5, probe.loss),
        "importance": Key(0.2, probe.loss),
    },
    "TrainConfig": {
        "epochs": Key(3, probe.state),
        "steps": Key(5, probe.state),
        "global_batch": Key(6, probe.state),
        "micro_batch": Key(6, probe.state),
        "threads": Key(3, "tests/engine/test_arithmetic.py"),
        "deterministic": Key(True, "tests/engine/test_arithmetic.py"),
        "reduction": Key("fast", "tests/distributed/test_split.py"),
        "precision": Key("bf16", probe.state),
        "clip_norm": Key(1, probe.state),
        "patience": Key(3, probe.state),
        "tf32": Key(False, "tests/engine/test_arithmetic.py"),
        "channels_last": Key(False, probe.state),
        "max_bad_steps": Key(1, "tests/faults/test_run_faults.py"),
        "timeout_s": Key(5, "tests/faults/test_run_faults.py"),
        "device": Key("cpu", "tests/slurm/test_submission.py"),
    },
    "EvalConfig": {
        "every_epochs": Key(2, probe.due),
        "every_steps": Key(3, probe.due),
        "batch": Key(3, probe.evaluation),
        "max_bad_images": Key(1, probe.evaluation),
    },
    "DetectionEval": {
        "max_detections": Key(3, probe.predictions),
        "score_threshold": Key(0.5, probe.predictions),
        "nms_iou": Key(0.2, probe.predictions),
        "nms": Key("soft", probe.predictions),
        "soft_nms_sigma": Key(0.1, "tests/models/test_suppression.py"),
        "nms_agnostic": Key(True, probe.predictions),
        "flip": Key(True, probe.predictions),
        "scales": Key([1, 0.5], probe.predictions),
        "rectangular": Key(True, "tests/tasks/detection/test_test_time.py"),
        "protocols": Key(["coco", "voc"], probe.predictions),
        "coco_max_detections": Key(3, "tests/tasks/detection/test_scores.py"),
        "voc_points": Key("11", "tests/tasks/detection/test_scores.py"),
        "voc_iou": Key(0.7, "tests/tasks/detection/test_scores.py"),
    },
    "SegmentationEval": {
        "window": Key(lambda value: "slide" if value == "whole" else "whole", probe.predictions),
        "overlap": Key(0.1, probe.predictions),
    },
    "CheckpointConfig": {
        "every_epochs": Key(2, probe.due),
        "every_steps": Key(3, probe.due),
        "keep_last": Key(1, probe.run),
        "keep_every": Key(2, probe.run),
        "monitor": Key(["f1"], probe.state),
    },
    "MonitorConfig": {
        "every_steps": Key(1, probe.run),
        "tensorboard": Key(False, probe.run),
        "images": Key(0, probe.run),
    },
    "OptimizerConfig": {
        "name": Key(lambda value: "adamw" if value == "sgd" else "sgd", probe.updates),
        "lr": Key(0.05, probe.updates),
        "momentum": Key(0.6, probe.updates),
        "weight_decay": Key(0.3, probe.updates),
        "scale_weight_decay": Key(lambda value: not value, probe.updates),
        "nominal_batch": Key(32, probe.updates),
    },
    "ScheduleConfig": {
        "name": Key(lambda value: "constant" if value != "constant" else "linear", probe.updates),
        "final": Key(0.2, probe.updates),
        "milestones": Key([0.4, 0.5], probe.updates),
        "gamma": Key(0.5, probe.updates),
        "pct_start": Key(0.2, probe.updates),
        "div_factor": Key(5, probe.updates),
        "final_div_factor": Key(3, probe.updates),
        "warmup_epochs": Key(1.5, probe.updates),
        "warmup_bias_lr": Key(0.3, probe.updates),
        "warmup_momentum": Key(0.3, probe.updates),
    },
    "EmaConfig": {
        "enabled": Key(lambda value: not value, probe.updates),
        "decay": Key(0.5, probe.updates),
        "tau": Key(3, probe.updates),
    },
    "SlurmConfig": {
        **{k: Key(3, probe.submission) for k in ("nodes", "gpus_per_node", "ranks_per_node", "cpus_per_task")},
        **{k: Key(2, probe.submission) for k in ("max_stops", "max_crashes")},
        **{k: Key(77, probe.submission) for k in ("signal_s", "grace_s", "max_restarts")},
        **{k: Key("x", probe.submission) for k in ("mem", "partition", "account", "qos", "constraint", "exclude", "address")},
        **{k: Key("x", probe.submission) for k in ("container", "python", "check_command")},
        **{k: Key({"begin": "x"}, probe.submission) for k in ("extra", "srun", "env")},
        "nodes": Key(2, "tests/slurm/test_submission.py"),
        "time": Key("1:00:00", probe.submission),
        "setup": Key(["module load x"], probe.submission),
        "debug": Key(True, probe.submission),
        "check": Key(False, probe.submission),
    },
}
"""By section and key."""
ENGINE = ("name", "output", "resume", "init_", "freeze", "train", "optimizer", "schedule", "ema", "checkpoint", "monitor")
RULES = ("optimizer", "schedule", "ema")
LEARNING = ("task", "options", "seed", "classes", "data", "model", "loss", "eval")


class Tried(NamedTuple):
    """A small run by its task, what is set in it, and the parts of its config that are changed."""

    task: str
    overrides: tuple[str, ...]
    parts: tuple[str, ...] = LEARNING


SGD = ("optimizer={name: sgd, lr: 0.02, weight_decay: 0.1}", "ema={decay: 0.9, tau: 9}", "schedule.warmup_epochs=1")
MASK2FORMER = (
    "model={name: mask2former, embed_dim: 8, depths: [1, 1, 1, 1], heads: [1, 1, 1, 1], hidden: 32, feedforward: 16, "
    "attention_heads: 2, encoder_layers: 1, decoder_layers: 2, queries: 5, window: 2}"
)
MIXED = "data.augment={mosaic: 0.5, mixup: 0.5, close_epochs: 0}"
BLENDED = "data.augment={mixup: 0.5, close_epochs: 0}"
NO_SHIP = "classes=[car, bus, pedestrian, ship]"
NO_RING = "classes=[disc, square, stripes, ring]"
NO_DEPTH = tuple(f"data.{part}.{i}.depth_missing=zeros" for part in ("train", "val") for i in (0, 1))
RUNS_TRIED: dict[str, Tried] = {
    "yolo": Tried("detection", (MIXED, NO_SHIP, "eval.score_threshold=0")),
    "yolo with depth": Tried(
        "detection", ("model={in_channels: 5}", MIXED, NO_SHIP, *NO_DEPTH), ("data.train", "data.val.1.depth", "model")
    ),
    "torchvision detector": Tried(
        "detection",
        ("model={name: ssdlite320_mobilenet_v3_large}", "data.allow_missing_annotations=true", MIXED, NO_SHIP),
        ("model", "loss", "eval", "data.allow"),
    ),
    "cross entropy": Tried("classification", ("data.balance=none", "loss={}", BLENDED)),
    "focal": Tried("classification", ("loss.name=focal",), ("loss",)),
    "bce": Tried("classification", ("loss={name: bce}", "data.balance=none", BLENDED, NO_RING), ("loss", "data.train")),
    "small_resnet": Tried("classification", ("model={name: small_resnet, blocks: 1, width: 8}",), ("model",)),
    "classifier": Tried("classification", ("model={name: resnet18}",), ("model",)),
    "pixels": Tried("segmentation", ()),
    "auxiliary head": Tried("segmentation", ("model={name: deeplabv3_mobilenet_v3_large, aux: true}",), ("model", "loss")),
    "windows": Tried("segmentation", ("eval.window=slide", "data.image_size=32"), ("eval",)),
    "mask2former": Tried("segmentation", (MASK2FORMER, "loss={points: 40}"), ("model", "loss")),
    "stage 1": Tried("interaction", ()),
    "stage 2": Tried("interaction", ("model.stage=2", "data.pairs={}"), ("data.pairs", "data.train", "model")),
    "stage 2, bce": Tried("interaction", ("model.stage=2", "data.pairs={}", "loss={name: bce}"), ("loss",)),
    "pairs, classifier": Tried("interaction", ("model={name: interaction, backbone: squeezenet1_1}",), ("model",)),
    "engine": Tried(
        "classification",
        (*SGD, "train={epochs: 1, global_batch: 12, micro_batch: 12}", "monitor={every_steps: 50}", "loss={}",
         "eval.every_epochs=1", "checkpoint.every_epochs=0.3", "train.steps=null", "data.augment={}"),
        (*ENGINE, "eval", "slurm"),
    ),
    **{name: Tried("classification", (*SGD, f"optimizer.name={name}"), RULES) for name in ("adamw", "adagrad", "rmsprop")},
    **{
        name: Tried("classification", (*SGD, f"schedule.name={name}"), RULES)
        for name in ("one_cycle_3", "linear", "multi_step", "constant")
    },
    "no warm-up": Tried("classification", (*SGD, "schedule.warmup_epochs=0"), RULES),
    "no average": Tried("classification", (*SGD, "ema={enabled: false}"), RULES),
    "yolo's decay": Tried("classification", (*SGD, "optimizer.scale_weight_decay=yolo"), RULES),
}  # fmt: skip


def sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A section and all below it."""
    yield section
    for field in section.model_fields.values():
        for inner in sections_in(field.annotation):
            yield from sections(inner)


def owner(section: type[BaseModel], key: str) -> str:
    """The section that a key is listed under: the one that first knows it; a name is of each kind of model and loss."""
    bases = [s for s in section.__mro__ if key in getattr(s, "model_fields", ()) and s is not NamedSection]
    return bases[-1].__name__


def keys_of(section: BaseModel, path: str = "") -> Iterator[tuple[str, str, str, Any]]:
    """(dotted path, owner, key, value) of every key; of a list of sections those of the last."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from keys_of(value, f"{path}{name}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            yield from keys_of(value[-1], f"{path}{name}.{len(value) - 1}.")
        else:
            yield f"{path}{name}", owner(type(section), name), name, value


def test_every_key_has_a_line() -> None:
    names: dict[str, set[str]] = {}
    for section in (s for run in every_run().values() for s in sections(run)):
        for key, field in section.model_fields.items():
            if not sections_in(field.annotation) or key == "resume":
                names.setdefault(owner(section, key), set()).add(key)
    for section in names.keys() | KEYS.keys():
        known, listed = names.get(section, set()), set(KEYS.get(section, ()))
        missing, gone = known - listed, listed - known
        assert not missing, f"{section}: {missing}: add a line to KEYS: another value, and the probe in which it matters"
        assert not gone, f"{section}: {gone}: no such key any more"
    tried = {section for name in RUNS_TRIED for _, section, _, _ in keys_of(base_of(name, Path("data"), Path("out")))}
    assert set(names) - tried == {"ResumeConfig", "OwnRun"}


def base_of(name: str, data: Path, out: Path, *overrides: str) -> RunConfig:
    tried = RUNS_TRIED[name]
    text = (COMMON + RUNS[tried.task].config).replace("DATA", str(data)).replace("OUTPUT", str(out))
    return resolve(parse_yaml(text, name), [*tried.overrides, *overrides])


@pytest.fixture(autouse=True)
def _no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no download of pretrained weights in a test")

    for place in ("torch.hub.load_state_dict_from_url", "torchvision.models._api.load_state_dict_from_url"):
        monkeypatch.setattr(place, refuse)


@pytest.mark.parametrize("name", RUNS_TRIED)
def test_a_changed_key_changes_the_run_or_is_refused(
    name: str, small_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, tried = small_data(RUNS_TRIED[name].task), RUNS_TRIED[name]
    base = base_of(name, data, tmp_path / "base")
    before: dict[Probe, Any] = {}
    wrong = []
    for path, section, key, value in keys_of(base):
        # a share is one of the sum of all: of one dataset it is the whole, whatever it is
        if not path.startswith(tried.parts) or path == "data.train.0.share":
            continue
        other, shown = KEYS[section][key]
        other = other(value) if callable(other) else other
        change = f"{path}={dump_inline(other)}"
        try:
            changed = base_of(name, data, tmp_path / path if shown is probe.run else tmp_path / "base", change)
            if isinstance(shown, str):
                assert key in (ROOT / shown).read_text(), f"{change}: not in {shown}"
                continue
            look = shown if shown is not probe.submission else lambda c: probe.submission(c, tmp_path)
            if shown not in before:
                before[shown] = look(base)
            if look(changed) == before[shown]:
                wrong.append(change)
        except UserError as e:
            named = (key, path.split(".")[-2] if "." in path else key, key.split("_")[0])
            if "\n" in str(e) or not (isinstance(shown, str) or any(word in str(e) for word in named)):
                wrong.append(f"{change}: {e}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", RUNS_TRIED)
def test_a_resolved_config_is_never_refused(name: str) -> None:
    """What `config.yaml` of a run spells out, all defaults included, loads again."""
    base = base_of(name, Path("data"), Path("out"))
    assert resolve(parse_yaml(to_yaml(base), "config.yaml")) == base
    assert not list(unused(base))
