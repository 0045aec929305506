"""What a sweep lays out, refuses and continues."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from ddptrain.cli import main
from ddptrain.config import load_config, resolve
from ddptrain.errors import UserError
from ddptrain.system.start import Start, write_start
from launch import sbatch, sweep


@pytest.fixture
def config(login_config: Path) -> Path:
    return login_config


def test_grid_of_a_sweep(config: Path) -> None:
    assert sweep.parse_grid(["a.b=1,2", "c=[1, 2],[3]"]) == {"a.b": ["1", "2"], "c": ["[1, 2]", "[3]"]}
    with pytest.raises(UserError, match="write key=value"):
        sweep.parse_grid(["a"])
    folder = sweep.lay_out(config, ["seed=5"], {"optimizer.lr": ["0.1", "0.2"]}, 2)
    runs = json.loads((folder / "sweep.json").read_text())["runs"]
    written = [resolve(yaml.safe_load((folder / f"{i}.yaml").read_text())) for i in range(4)]
    assert [(c.optimizer.lr, c.seed) for c in written] == [(0.1, 5), (0.1, 6), (0.2, 5), (0.2, 6)]
    assert len({c.folder for c in written}) == 4
    for run, ap in zip(runs, (0.1, 0.3, 0.5)):
        Path(run["run"]).mkdir(parents=True)
        (Path(run["run"]) / "summary.json").write_text(json.dumps({"AP": ap}))
    assert sweep.table(folder).splitlines()[2:] == ["| 0.1 | 2/2 | 0.2000 ± 0.1414 |", "| 0.2 | 1/2 | 0.5000 |"]
    assert sweep.lay_out(config, [], {}, 1).name == "small-sweep-2"


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep here that trains nothing, and compares nothing."""
    monkeypatch.setattr(sweep, "run_here", lambda folder, nproc: 0)
    monkeypatch.setattr("launch.cli._print_results", lambda folder, compare: None)


@pytest.mark.usefixtures("untrained")
def test_overrides_behind_a_grid_are_overrides(config: Path) -> None:
    grids = ["--grid", "optimizer.lr=0.1,0.2", "seed=5", "name=b", "--grid", "ema.decay=0.9,0.99"]
    assert main(["sweep", str(config), "train.steps=8", "--local", *grids]) == 0
    runs = [load_config(f"runs/b-sweep-1/{i}.yaml") for i in range(4)]
    assert [(c.optimizer.lr, c.ema.decay) for c in runs] == [(0.1, 0.9), (0.1, 0.99), (0.2, 0.9), (0.2, 0.99)]
    assert [c.name for c in runs] == [f"b-sweep-1-{i}" for i in range(4)]
    assert {(c.seed, c.train.steps) for c in runs} == {(5, 8)}


def test_names_that_look_like_numbers_reach_the_runs(config: Path) -> None:
    folder = sweep.lay_out(config, ["classes=[car, '1e3', '1_0']"], {}, 1)
    assert load_config(folder / "0.yaml").classes == ("car", "1e3", "1_0")


@pytest.mark.usefixtures("untrained")
def test_a_sweep_here_continues_in_its_folder(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(config), "--local", "--grid", "optimizer.lr=0.1,0.2"]) == 0
    assert main(["sweep", "runs/small-sweep-1", "--local"]) == 0
    assert [path.name for path in Path("runs").iterdir()] == ["small-sweep-1"]
    assert main(["sweep", "runs/small-sweep-1", "--local", "train.steps=9"]) == 2
    assert "key=value: has no effect on a sweep that continues" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"holds no sweep\.json; give the folder"):
        sweep.table(config)  # a file


def test_runs_of_a_sweep_here_keep_their_source(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of the config first; once the run has begun with it, the run's own checkpoints."""
    given = []
    monkeypatch.setattr("launch.torchrun.run", lambda path, overrides, nproc: given.append((path.name, overrides)) or 0)
    folder = sweep.lay_out(config, ["resume=runs/other"], {"optimizer.lr": ["0.1", "0.2"]}, 1)
    (tmp_path / "runs/small-sweep-1-1").mkdir()
    write_start(tmp_path / "runs/small-sweep-1-1", Start(str(tmp_path / "runs/other")))
    sweep.run_here(folder, 1)
    sweep.run_here(sweep.lay_out(config, [], {}, 1), 1)
    assert given == [("0.yaml", []), ("1.yaml", ["resume=auto"]), ("0.yaml", ["resume=auto"])]


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What sbatch would be called with; it gives the number 77."""
    calls: list[list[str]] = []
    monkeypatch.setattr(sbatch, "queue", lambda arguments: calls.append(list(arguments)) or "77")
    return calls


def test_an_array_has_the_cores_of_its_widest_run_and_one_shape(config: Path, queued: list[list[str]]) -> None:
    sweep.submit(sweep.lay_out(config, [], {"data.workers": ["0", "7", "1"]}, 1), {}, None)
    assert "--cpus-per-task=8" in queued[0]
    left = sorted(Path("runs").rglob("*"))
    with pytest.raises(UserError, match="the runs differ in sbatch's --nodes, and all runs of an array"):
        sweep.submit(sweep.lay_out(config, [], {"slurm.nodes": ["1", "3"]}, 1), {}, None)
    with pytest.raises(UserError, match="none does not exist"):
        sweep.submit(sweep.lay_out(config, [], {"data.val.0.root": ["data", "none"]}, 1), {}, None)
    assert (len(queued), sorted(Path("runs").rglob("*"))) == (1, left)  # nothing is left of a refused sweep


@pytest.mark.usefixtures("queued")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", "--local", "--parallel", "2"], "--parallel: has no effect with --local; remove it"),
        (["sweep", "--local", "--gpus-per-node", "0"], "--gpus-per-node: has no effect with --local"),
        (["sweep", "--local", "--no-check"], "--no-check: has no effect with --local"),
        (["sweep", "--local", "--after", "12"], "--after: has no effect with --local"),
        (["sweep", "--nproc", "4"], "--nproc: has no effect without --local"),
        (["launch", "--nproc", "1", "--rdzv", "host:29500"], "--rdzv: has no effect with --nnodes 1"),
        (["launch", "--nproc", "1", "--rdzv-id", "a"], "--rdzv-id: has no effect with --nnodes 1"),
    ],
)
def test_an_option_without_effect_is_refused(
    config: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([arguments[0], str(config), *arguments[1:]]) == 2
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed=1,2"], "seed cannot be in a grid; --seeds N trains"),
        (["name=a,b"], "name cannot be in a grid; each run is named"),
        (["output=a,b"], "output cannot be in a grid"),
        (["optimizer.lr=0.1,0.2", "optimizer.lr=0.3,0.4"], r"optimizer\.lr is listed twice; list"),
        (["train.global_batch_size=4,8", "train.global_batch=4,12"], r"listed twice \(as train\.global_batch_size\)"),
        (["train.global_batch_size=4,8", "train.global_batch=4"], "also set by an override; remove one"),
        (["train.clip_norm=1,"], "a value is empty; remove a comma, or write null"),
        (["optimizer.lr=0.01,0.010"], r"optimizer\.lr=0\.01 and optimizer\.lr=0\.010 are the same run"),
        (["train.precision=none,fp32"], "are the same run"),
        (["train.micro_batch=4,5", "--nproc", "3"], "5 does not divide"),
    ],
)
def test_a_grid_whose_table_would_be_wrong_is_refused(
    config: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(config), "--local", "--grid", *arguments]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not Path("runs").exists()
