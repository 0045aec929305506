"""`ddptrain verify` holds on a sound config, says why a batch norm cannot, and sees what is broken."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support import Forked

from ddptrain.cli import main
from ddptrain.commands.differences import differences, largest_difference, only_in_one
from ddptrain.commands.verify import common_micro_batch, one_device
from ddptrain.errors import RunFailed, UserError


def test_resume_holds(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(config), "--resume", "--steps", "3", "train.patience=3", "eval.every_epochs=1"]) == 0
    output = capsys.readouterr().out
    assert "resumed at step 1: bit-equal" in output
    assert "holds: resuming changes nothing" in output


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The runs of verify are forked instead of started."""
    monkeypatch.setattr("ddptrain.commands.short_runs.subprocess.Popen", Forked)
    return monkeypatch


@pytest.mark.usefixtures("forked")
def test_split_of_a_batch_norm_is_broken_and_says_why(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(config), "--split", "--steps", "2", "model.norm=batch"]) == 1
    output = capsys.readouterr().out
    assert "BROKEN: the split changes what is learned" in output
    assert "Set model.norm=sync" in output
    assert "2 ranks x micro batch 6: largest difference" in output


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("forked")
def test_split_and_workers_hold(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(config), "--split", "model.norm=none"]) == 0
    assert main(["verify", str(config), "--workers", "--steps", "2"]) == 0
    output = capsys.readouterr().out
    assert output.count("holds: ") == 2
    assert "3 workers: bit-equal" in output


def test_a_run_that_fails_is_reported_in_one_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(config), "--resume", "--steps", "1"]) == 2
    assert "--steps 1: must be an integer ≥ 2" in capsys.readouterr().err
    assert main(["verify", str(config), "--resume", "data.train.0.root=/nowhere"]) == 1
    output = capsys.readouterr().err
    assert "ended with status" in output
    assert "/nowhere" in output


@pytest.mark.parametrize("ranks", ["", "1", "2,2", "1,x", "0,1", "1,,2"])
def test_numbers_of_ranks_are_refused_in_words(config: Path, ranks: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(["verify", str(config), "--ranks", ranks])
    assert e.value.code == 2
    assert "must be two or more different integers ≥ 1, such as 1,2,4" in capsys.readouterr().err


def test_ranks_that_the_global_batch_does_not_divide_over_are_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(config), "--ranks", "1,5"]) == 2
    assert "train.global_batch: 12 does not divide over 5 ranks; set it to 10 or 15" in capsys.readouterr().err


def test_all_ranks_take_whole_micro_batches_of_one_size() -> None:
    assert common_micro_batch(12, None, [1, 2]) == 6
    assert common_micro_batch(12, 2, [1, 2]) == 2
    assert common_micro_batch(12, None, [1, 2, 3]) == 2
    assert common_micro_batch(8, None, [8, 1]) == 1
    with pytest.raises(UserError, match="start 1 or 3 ranks"):
        common_micro_batch(12, 4, [1, 2])


def test_where_gpus_are_too_few_all_ranks_compute_on_the_cpu() -> None:
    assert one_device("auto", 1, 2) == ("train.device=cpu",)
    assert one_device("auto", 0, 2) == one_device("auto", 2, 2) == one_device("cuda", 1, 2) == one_device("cpu", 1, 2) == ()


def state() -> dict[str, Any]:
    weights = {"a.weight": torch.tensor([1.0, -4.0]), "n": torch.tensor(3)}
    moments = {0: {"exp_avg": torch.tensor([1e-6, 2e-6]), "step": torch.tensor(2.0)}}
    counts = {"step": 2, "skipped": 0, "position": 24, "samples_by_dataset": [16.0, 8.0]}
    counts["pasted_by_dataset"] = [0.0, 0.0]
    return {"model": weights, "ema": None, "optimizer": {"state": moments}, **counts}


def test_the_largest_difference_is_found() -> None:
    assert largest_difference(state(), state()).value == 0
    other = state()
    other["model"]["a.weight"][0] += 0.4
    other["optimizer"]["state"][0]["exp_avg"][1] += 1e-7
    difference = largest_difference(state(), other)
    assert (difference.name, pytest.approx(difference.value)) == ("model a.weight", 0.1)
    other["optimizer"]["state"][0]["exp_avg"][1] = math.nan
    assert largest_difference(state(), other).name == "optimizer 0 exp_avg"


def test_differences_stand_in_their_order_down_to_the_last_bit() -> None:
    other = state()
    other["model"] |= {"a.weight": torch.tensor([1.0, -4.2]), "n": torch.tensor(4), "new": torch.zeros(2)}
    other["optimizer"]["state"][0] = {"exp_avg": torch.zeros(3), "step": torch.tensor(2.0)}
    found = [(d.name, d.value) for d in differences(state(), other)]
    assert found == [
        ("optimizer 0 exp_avg", math.inf),  # of another shape
        ("model n", pytest.approx(1 / 3)),
        ("model a.weight", pytest.approx(0.05)),
    ]
    assert only_in_one(state(), other) == ["model new"]
    zero, negative = {**state(), "ema": {"z": torch.tensor([0.0])}}, {**state(), "ema": {"z": torch.tensor([-0.0])}}
    assert [d.name for d in differences(zero, negative)] == ["ema z"]
    nans = {**state(), "ema": {"z": torch.tensor([math.nan])}}
    assert differences(nans, copy.deepcopy(nans)) == []


def test_runs_that_counted_differently_are_not_match() -> None:
    other = copy.deepcopy(state())
    other["position"] = 36
    with pytest.raises(RunFailed, match="differ in position: 24 and 36"):
        largest_difference(state(), other)


@pytest.mark.usefixtures("forked")
def test_split_of_a_synchronised_batch_norm_holds_over_ranks(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(config), "--split", "model.norm=sync"]) == 0
    output = capsys.readouterr().out
    assert "2 ranks x micro batch 6: largest difference" in output
    assert "holds: the split changes nothing" in output


FAULTS = {
    # ranks of which each takes itself for all
    "ranks": (
        "import os, ddptrain.engine.step as m\nproper = m.Stepper._factor\n"
        "m.Stepper._factor = lambda self, n: proper(self, n) * int(os.environ.get('WORLD_SIZE', 1))",
        "A mistake, not rounding: it stays in float64",
    ),
    # the average starts anew from the fresh weights
    "resume": ("import ddptrain.optim.ema as m\nm.Ema.load_state_dict = lambda self, state: None", "in ema "),
    # randomness of a worker's own
    "workers": (
        "import ddptrain.seeding as m, torch.utils.data as d\nproper = m.stream_key\n"
        "m.stream_key = lambda seed, purpose: proper(seed + 9 * (d.get_worker_info() is not None), purpose)",
        "1 worker: largest difference",
    ),
    # gradients of the last micro batch only
    "split": (
        "import ddptrain.distributed.gradients as m\nm.OrderedGradients._keep = lambda self, number: self.clear()",
        "1 rank x micro batch 6: largest difference",
    ),
}


@pytest.mark.parametrize("way", FAULTS)
def test_what_is_broken_is_seen(config: Path, way: str, capsys: pytest.CaptureFixture[str], forked: pytest.MonkeyPatch) -> None:
    """Each way of breaking the promise, put into the very processes that verify starts, ends with status 1."""
    code, line = FAULTS[way]
    forked.setattr(Forked, "fault", code)
    how = ("--ranks", "1,2") if way == "ranks" else (f"--{way}",)
    assert main(["verify", str(config), *how, "--steps", "2", "model.norm=none", "train.clip_norm=null"]) == 1
    out = capsys.readouterr().out
    assert "BROKEN: " in out
    assert line in out


def test_rounding_that_a_network_amplifies_is_distinguished_from_a_mistake(
    config: Path, capsys: pytest.CaptureFixture[str], forked: pytest.MonkeyPatch
) -> None:
    assert main(["verify", str(config), "--split", "--steps", "3", "model.norm=group", "optimizer.lr=0.1"]) == 0
    out = capsys.readouterr().out
    assert "rounding, or a mistake? Once more in float64" in out
    last = [float(n) for n in re.findall(r"largest difference (\S+) in", out)]
    assert max(last[:2]) > 1e-5
    assert max(last[2:]) < 1e-11
    assert "holds: the split changes nothing (allowed: 1e-09)" in out


@pytest.mark.usefixtures("forked")
def test_ranks_hold_to_the_last_bit_and_print_one_digest(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(config), "--ranks", "1,2,3", "--steps", "2", "model.norm=batch"]) == 0
    out = capsys.readouterr().out
    digests = re.findall(r"rank[s]?: SHA-256 of the weights ([0-9a-f]{64})", out)
    assert len(digests) == 3
    assert len(set(digests)) == 1
    assert out.count("bit-equal") == 2
    assert "holds: with train.micro_batch=2 and 1 thread per rank, the number of ranks changes nothing" in out


@pytest.mark.usefixtures("forked")
def test_a_fast_reduction_is_broken_by_rounding_alone(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(config), "--ranks", "1,2", "--steps", "2", "train.reduction=fast", "train.micro_batch=3"]) == 1
    out = capsys.readouterr().out
    assert "the same run twice: bit-equal" in out
    assert "BROKEN: with train.micro_batch=3 and 1 thread per rank, the number of ranks changes what is learned" in out
    assert "Rounding, not a mistake: it all but vanishes in float64" in out
