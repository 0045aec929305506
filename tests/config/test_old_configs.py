"""Configs of older versions, which spelled out the keys of every task, load; and better-known names mean the canonical ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from bare_config import bare

from ddptrain.config import load_config, resolve
from ddptrain.config.docs import to_yaml
from ddptrain.config.tasks import RUNS
from ddptrain.config.text import parse_yaml
from ddptrain.errors import UserError

RESOLVED = Path(__file__).parent / "resolved"
"""What `ddptrain config` printed before the config was discriminated by the task."""


@pytest.mark.parametrize("task", RUNS)
def test_an_old_resolved_config_loads_with_every_value(task: str) -> None:
    text = (RESOLVED / f"{task}.yaml").read_text()
    config = load_config(RESOLVED / f"{task}.yaml")
    assert type(config) is RUNS[task]
    assert resolve(parse_yaml(text, task), stored=True) == config
    old, new = parse_yaml(text, task), parse_yaml(to_yaml(config), task)
    grown = ("data", "eval", "train", "model", "loss", "optimizer", "schedule")
    assert {key: old[key] for key in new if key not in grown} == {key: value for key, value in new.items() if key not in grown}
    assert all(old[key].items() <= new[key].items() for key in ("train", "model", "loss", "optimizer") if key in old)
    for section in ("data", "eval"):
        plain = {k: v for k, v in new[section].items() if isinstance(v, (int, float, str)) and k in old[section]}
        assert plain.items() <= old[section].items()
    old_set, new_set = old["data"]["train"][0], new["data"]["train"][0]
    assert {key: old_set[key] for key in new_set if key in old_set}.items() <= new_set.items()
    assert new_set.keys() - old_set.keys() <= {"loss_weight", "tiles"}


def test_only_the_default_of_another_task_is_left_out() -> None:
    for override, key in (("data.augment.crop=true", "crop"), ("eval.window=slide", "window"), ("options={a: 1}", "options")):
        with pytest.raises(UserError, match=rf"{key}: only for .*, not for detection; remove it"):
            resolve(bare("detection"), [override])
    assert resolve(bare("detection"), ["data.augment.crop=no", "data.pairs={balance_ratio: null}", "options={}"])


def test_a_stored_config_may_say_what_its_task_never_read() -> None:
    stored = bare("segmentation", eval={"protocols": ["coco", "voc"]})
    assert resolve(stored, stored=True) == resolve(bare("segmentation"))
    with pytest.raises(UserError, match="protocols: only for detection, not for segmentation"):
        resolve(stored, ["eval.protocols=[coco, voc]"], stored=True)


ALIASES = (
    ("train.precision=fp32", "train.precision=none"),
    ("train.global_batch_size=8", "train.global_batch=8"),
    ("train.micro_batch_size=8", "train.micro_batch=8"),
    ("schedule.name=one_cycle_lr", "schedule.name=one_cycle_3"),
    ("schedule={name: linear, lrf: 0.2}", "schedule={name: linear, final: 0.2}"),
    ("data.augment={mosaic: 1, close_mosaic: 3}", "data.augment={mosaic: 1, close_epochs: 3}"),
)


@pytest.mark.parametrize(("alias", "canonical"), ALIASES)
def test_an_alias_is_spelled_out(alias: str, canonical: str) -> None:
    config = resolve(bare("detection"), [alias])
    assert config == resolve(bare("detection"), [canonical])
    assert to_yaml(config) == to_yaml(resolve(bare("detection"), [canonical]))


def test_an_alias_in_a_file_is_overridden_by_either_name() -> None:
    for file in ({"global_batch": 4}, {"global_batch_size": 4}):
        for name in ("global_batch", "global_batch_size"):
            assert resolve(bare("detection", train=file), [f"train.{name}=6"]).train.global_batch == 6


def test_two_names_of_one_key_are_refused() -> None:
    line = "config: train.global_batch_size: another name of train.global_batch, which is also given; remove one of them"
    with pytest.raises(UserError) as e:
        resolve(bare("detection", train={"global_batch": 4, "global_batch_size": 4}))
    assert str(e.value) == line
    with pytest.raises(UserError, match=r"override 'train=.*': train\.global_batch_size: another name of train\.global_batch"):
        resolve(bare("detection"), ["train={global_batch: 4, global_batch_size: 4}"])


def test_a_key_that_an_alias_sets_is_checked_like_any() -> None:
    with pytest.raises(UserError, match=r"schedule\.final: 0\.2 has no effect here, only schedule\.name=linear, "):
        resolve(bare("detection"), ["schedule.name=constant", "schedule.lrf=0.2"])
    with pytest.raises(UserError, match=r"train\.global_batch: 0: must be an integer ≥ 1"):
        resolve(bare("detection"), ["train.global_batch_size=0"])
