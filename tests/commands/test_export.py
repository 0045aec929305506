"""What is exported computes what the model computes, or is not there."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_runs import RUNS
from support import final_state, train
from torch import Tensor, nn

from ddptrain.cli import main
from ddptrain.commands.export import FORMATS, TOLERANCE, export_model
from ddptrain.errors import UserError
from ddptrain.tasks.build import TASKS


class _Net(nn.Module):
    """Convolution, batch norm, a tied weight and a nested output with box-like sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU())
        self.again = self.body[0]
        self.head = nn.Conv2d(8, 4, 1)
        self.register_buffer("scale", torch.tensor(500.0), persistent=False)  # in no file: the constructor knows it

    def forward(self, x: Tensor) -> dict:
        y = self.body(x)
        return {"boxes": self.scale * self.head(y).sigmoid(), "more": [y.mean((2, 3)), (y.amax((2, 3)),)]}


def _net() -> _Net:
    torch.manual_seed(0)
    net = _Net().to(memory_format=torch.channels_last)
    net(torch.randn(4, 3, 16, 16))  # running statistics that are not the initial ones
    return net


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_agrees_with_the_model(tmp_path: Path, format: str) -> None:
    needed = {"safetensors": ["safetensors"], "onnx": ["onnxruntime", "onnxscript"], "torchscript": []}
    for package in needed[format]:
        pytest.importorskip(package, reason="pip install 'ddptrain[export]'")
    net, path = _net(), tmp_path / "new" / f"net.{format}"
    before = {k: v.clone() for k, v in net.state_dict().items()}
    difference = export_model(net, (torch.randn(2, 3, 16, 16),), format, path)
    assert 0 <= difference <= (0 if format == "safetensors" else TOLERANCE)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class _Forked(nn.Module):
    """A graph made with one input is wrong for another."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if bool(x.mean() > 0.7) else x - 1


def test_a_graph_that_differs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with pytest.raises(UserError, match=r"net\.pt: the torchscript file differs from the model by [^\n]*$"):
        export_model(_Forked(), (torch.ones(2, 3, 4, 4),), "torchscript", path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="pip install 'ddptrain[export]'")
    net = _net()
    with torch.no_grad():
        net.head.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="differs from the model by inf"):
        export_model(net, (torch.randn(1, 3, 16, 16),), "safetensors", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_and_a_missing_package_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="'tflite': unknown; formats are safetensors, torchscript, onnx"):
        export_model(_net(), (torch.randn(1, 3, 16, 16),), "tflite", tmp_path / "x")
    for format, package in (("safetensors", "safetensors"), ("onnx", "onnxruntime")):
        for module in [package, *(m for m in sys.modules if m.startswith(f"{package}."))]:
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UserError, match=rf"{package}[^\n]* is not installed; pip install 'ddptrain\[export\]'"):
            export_model(_net(), (torch.randn(1, 3, 16, 16),), format, tmp_path / "x")


@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_exported(
    small_config: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    """The averaged weights, bit by bit, and graphs that say what the run's model says."""
    load_file = pytest.importorskip("safetensors.torch", reason="pip install 'ddptrain[export]'").load_file
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="pip install 'ddptrain[export]'")
    train(1, small_config(task), "train.steps=2", "ema.tau=1", *RUNS[task].norms)
    for format in FORMATS:
        assert main(["export", str(tmp_path / "run"), "--format", format]) == 0
        path = tmp_path / "run" / f"run.{format}"
        assert path.stat().st_size > 10_000
        assert f"{path}: weights of " in capsys.readouterr().out
    state = final_state(tmp_path / "run")
    weights = load_file(tmp_path / "run" / "run.safetensors")
    assert weights.keys() == state["ema"].keys()
    assert all(torch.equal(v, state["ema"][k]) for k, v in weights.items())
    assert not all(torch.equal(v, state["model"][k]) for k, v in weights.items())
    below_a_file = str(tmp_path / "run" / "config.yaml" / "x")
    assert main(["export", str(tmp_path / "run"), "--format", "safetensors", "--out", below_a_file]) == 2
