"""No key is taken and then ignored: changing any key of any section changes the run, or is refused in one line.

`KEYS` (helpers/key_table.py) has a line for each key of each section: another value, and what shows that it matters: a probe,
or the test of a part that cannot be built alone. `RUNS_TRIED` are the runs in which it is tried: each key of each of them is
changed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import key_probes as probe
import pytest
from key_table import KEYS, Probe
from pydantic import BaseModel
from small_runs import COMMON, RUNS

from ddptrain.config import RunConfig, resolve
from ddptrain.config.docs import to_yaml
from ddptrain.config.places import sections_in
from ddptrain.config.section import NamedSection, NetworkSection
from ddptrain.config.tasks import every_run
from ddptrain.config.text import dump_inline, parse_yaml
from ddptrain.config.unused import unused
from ddptrain.errors import UserError

ROOT = Path(__file__).parents[1]

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
MIXED = "data.augment={mosaic: 0.5, mixup: 0.5, copy_paste: 0.5, close_epochs: 0}"
BLENDED = "data.augment={mixup: 0.5, blur: 0.5, jpeg: 0.5, close_epochs: 0}"
NO_SHIP = "classes=[car, bus, pedestrian, ship]"
NO_RING = "classes=[disc, square, stripes, ring]"
NO_DEPTH = tuple(f"data.{part}.{i}.depth_missing=zeros" for part in ("train", "val") for i in (0, 1))
RUNS_TRIED: dict[str, Tried] = {
    "yolo": Tried("detection", (MIXED, NO_SHIP, "eval.score_threshold=0")),
    "yolo's other losses": Tried("detection", ("loss={box_loss: nwd, cls_loss: focal}", NO_SHIP), ("loss",)),
    "repeated images": Tried("detection", ("data.balance=repeat_factor", "data.balance_threshold=0.8"), ("data.balance",)),
    "weighted images": Tried("detection", ("data.balance=image_weights", "eval.every_steps=2"), ("data.balance",)),
    "yolo's other assigner": Tried("detection", ("loss={assigner: simota}", NO_SHIP), ("loss.assign",)),
    "yolo with anchors": Tried(
        "detection",
        ("model={head: anchor_based}", NO_SHIP, "eval.score_threshold=0"),
        ("model", "loss.obj", "loss.anchor_t", "loss.iou_t", "loss.assigner", "loss.box", "loss.cls", "eval.nms"),
    ),
    "yolo with two branches": Tried(
        "detection", ("model={head: dual}", NO_SHIP), ("model", "loss.topk", "loss.assigner", "eval.nms")
    ),
    "yolo with depth": Tried(
        "detection", ("model={in_channels: 5}", MIXED, NO_SHIP, *NO_DEPTH), ("data.train", "data.val.1.depth", "model")
    ),
    "tiles": Tried("detection", (NO_SHIP, "data.train.1.tiles={size: 80}"), ("data.train.1.tiles",)),
    "windows in evaluation": Tried(
        "detection", (NO_SHIP, "eval.score_threshold=0", "eval.tiles={size: 96}"), ("eval.tiles",)
    ),
    "tiles of masks": Tried("segmentation", ("data.train.0.tiles={size: 40}",), ("data.train.0.tiles",)),
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
    "plateau": Tried("classification", (*SGD, "schedule={name: plateau, patience: 3}", "eval.every_steps=1"), RULES),
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
    general = (NamedSection, NetworkSection) if key == "name" else ()
    bases = [s for s in section.__mro__ if key in getattr(s, "model_fields", ()) and s not in general]
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
            if not sections_in(field.annotation) or key in ("resume", "tiles"):
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
