"""What a checkpoint carries over into a run whose config has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from run_states import state_of

from ddptrain.checkpoint.load import Checkpoint
from ddptrain.config import load_config
from ddptrain.engine.resume import take_over
from ddptrain.engine.state import RunState
from ddptrain.engine.step_report import StepReport
from ddptrain.errors import UserError

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


def test_the_optimizer_follows_the_names_of_what_is_trained(config: Path) -> None:
    """Another `freeze` gives the parameters other numbers, by which torch would hand out the moments."""
    old = state_of(config, "freeze=[backbone]")
    for name, p in old.model.named_parameters():
        p.grad = torch.full_like(p, float(len(name))) if p.requires_grad else None
    old.optimizer.step()
    before = {name: old.optimizer.state[p] for name, p in old.model.named_parameters() if p.requires_grad}
    new = state_of(config, "freeze=[neck]")
    new.load_state_dict(old.state_dict())
    kept = 0
    for name, p in new.model.named_parameters():
        moment = new.optimizer.state[p].get("momentum_buffer") if p in new.optimizer.state else None
        if moment is not None:
            kept += 1
            assert torch.equal(moment, before[name]["momentum_buffer"]), name
    assert 0 < kept < len(before)
    assert "freeze has changed: the optimizer starts from scratch for" in new.notes[-1]


def test_an_older_checkpoint_with_another_freeze_is_refused(config: Path) -> None:
    """It does not know the names."""
    old, run = state_of(config, "freeze=[neck]"), load_config(config, ["freeze=[neck]"])
    state = {k: v for k, v in old.state_dict().items() if k != "trained"} | {"config": run.model_dump_json()}
    checkpoint, new = Checkpoint(Path("old.pt"), state), state_of(config)
    with pytest.raises(UserError, match=r"freeze was \['neck'\] and is \[\]: the optimizer's state does not fit"):
        take_over(new, checkpoint, "sgd", ())
    take_over(state_of(config, "freeze=[neck]"), checkpoint, "sgd", ("neck",))
