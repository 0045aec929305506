"""What a checkpoint carries over into a run whose config has changed."""

from __future__ import annotations

from pathlib import Path

import torch
from run_states import state_of

from ddptrain.engine.state import RunState
from ddptrain.engine.step_report import StepReport

UPDATED = StepReport(True, False, 1.0, 1.0, {}, [2.0, 1.0], [8.0, 4.0], [3.0, 5.0], 0, False, [])


def after(state: RunState, steps: int) -> RunState:
    for _ in range(steps):
        state.count(UPDATED)
    return state


def test_another_global_batch_resumes_at_the_same_sample_and_ends_at_the_same_epoch(config: Path) -> None:
    old = after(state_of(config), 8)
    new = state_of(config, "train.global_batch=24")
    new.load_state_dict(old.state_dict())
    assert new.position == old.position == 8 * 12
    assert new.epoch == old.epoch
    assert new.step == 4
    assert new.steps == 20
    again = state_of(config, "train.global_batch=24")
    again.load_state_dict(after(new, 3).state_dict())
    assert (again.step, again.position) == (7, 96 + 72)


def test_the_config_gives_the_decay_and_the_checkpoint_the_moments(config: Path) -> None:
    old = state_of(config, "optimizer.weight_decay=0.1")
    for p in old.model.parameters():
        p.grad = torch.ones_like(p)
    old.optimizer.step()
    new = state_of(config, "optimizer.weight_decay=0.2")
    new.load_state_dict(old.state_dict())
    (before, *_), (now, *_) = old.optimizer.param_groups, new.optimizer.param_groups
    assert now["weight_decay"] == 2 * before["weight_decay"]
    moments = [o.state[g["params"][0]]["momentum_buffer"] for o, g in ((old.optimizer, before), (new.optimizer, now))]
    assert torch.equal(*moments)


def test_sums_by_dataset_follow_the_names(config: Path) -> None:
    old = after(state_of(config), 2)
    text = config.read_text().splitlines()
    at = [i for i, line in enumerate(text) if "split: train" in line]
    text[at[0]], text[at[1]] = text[at[1]], text[at[0]].replace("skyview,", "other,", 1)
    config.write_text("\n".join(text))
    new = state_of(config)
    assert new.sampler.mixture.names == ("streets", "other")
    new.load_state_dict(old.state_dict())
    assert new.samples_by_dataset == [8.0, 0.0]
    assert new.loss_by_dataset == [2.0, 0.0]
    assert new.pasted_by_dataset == [10.0, 0.0]
