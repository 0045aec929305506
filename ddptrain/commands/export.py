"""`ddptrain export`: weights or a graph for use elsewhere, compared with the model before the file gets its name."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.errors import UserError
from ddptrain.system.printable import say
from ddptrain.tasks.build import new_task

TOLERANCE = 1e-4

Inputs = tuple[Tensor, ...]
Run = Callable[[Inputs], list[Tensor]]


def export_run(run: Path, format: str, out: Path | None) -> int:
    """Write the best weights of a run (averaged, unless it kept no average), or a graph, and check them against the model.

    Args:
        run: run folder or checkpoint.
        format: a key of FORMATS.
        out: the file; default `<name>.<format>` in the run folder.
    """
    checkpoint = load_checkpoint(run, best=True)
    task = new_task(checkpoint.config)
    example = task.example_input()
    out = out or (run if run.is_dir() else checkpoint.path.parents[1]) / f"{task.config.name}.{format}"
    try:
        difference = export_model(checkpoint.fill(task.build_model()), example, format, out)
    except OSError as e:
        raise UserError(f"{out}: cannot be written ({e.strerror}); name another file with --out") from None
    shapes = ", ".join(" x ".join(map(str, x.shape)) for x in example)
    say(f"{out}: weights of {checkpoint.path}; for an input of {shapes} it differs from the model by at most {difference:.2g}")
    return 0


def export_model(model: nn.Module, example: Inputs, format: str, path: Path) -> float:
    """Write a model and check what was written.

    Args:
        model: a model whose forward takes tensors and returns tensors, nested in lists, tuples, dictionaries and data
            classes; it is left as it is, the export is of a copy on the CPU in `eval` mode.
        example: inputs of the model, float32; a graph (torchscript, onnx) is made for their shapes and
            returns the tensors of the output as one flat tuple, in the order in which they stand there.
        format: a key of FORMATS.
        path: the file to write.

    Returns:
        The largest difference between the outputs of the file and of the model, relative to the largest output where
        that is above 1, for `example` and for another input that the graph was not made with.

    Raises:
        UserError: unknown format, a missing package, a model that the format cannot hold, or a difference above
            TOLERANCE; nothing is left at `path` then.
    """
    if format not in FORMATS:
        raise UserError(f"format {format!r}: unknown; formats are {', '.join(FORMATS)}")
    model = copy.deepcopy(model).cpu().eval()
    example = tuple(x.detach().cpu() for x in example)
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of what the comparison below finds out
            try:
                run = FORMATS[format](model, example, temporary)
            except ImportError as e:
                raise UserError(f"export: {e.name} is not installed; pip install 'ddptrain[export]'") from None
        with torch.no_grad():
            inputs = (example, tuple(0.5 * x.flip(-1).roll(1, 0) for x in example))
            difference = max(_difference(run(x), _tensors(model(*x))) for x in inputs)
        if not difference <= TOLERANCE:  # so written that nan is refused
            raise UserError(
                f"{path}: the {format} file differs from the model by {difference:.2g} (allowed {TOLERANCE:g}) and was "
                "not kept; its forward may depend on the values of the input: export safetensors"
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return difference


class _Flat(nn.Module):
    """The model with its tensors in one flat tuple: torchscript has no type for mixed, nested outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *x: Tensor) -> tuple[Tensor, ...]:
        return tuple(_tensors(self.model(*x)))


def _safetensors(model: nn.Module, example: Inputs, path: Path) -> Run:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    # the format has no shared memory and no strides
    try:
        save_file({k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}, path, {"format": "pt"})
    except SafetensorError as e:
        raise UserError(f"{path}: cannot be written ({' '.join(str(e).split())}); name another file with --out") from None
    other = copy.deepcopy(model)
    for tensor in other.state_dict().values():
        tensor.zero_()  # what the file lacks must show; buffers that no state dict holds stay
    other.load_state_dict(load_file(path))
    return lambda x: _tensors(other(*x))


def _torchscript(model: nn.Module, example: Inputs, path: Path) -> Run:
    with torch.no_grad():
        try:
            torch.jit.trace(_Flat(model), example, strict=False, check_trace=False).save(str(path))
        except (RuntimeError, torch.jit.TracingCheckError) as e:
            raise _unfit("torchscript", e) from None
    graph = torch.jit.load(str(path))
    return lambda x: _tensors(graph(*x))


def _onnx(model: nn.Module, example: Inputs, path: Path) -> Run:
    import onnxruntime
    import onnxscript  # noqa: F401  (torch.onnx needs it)

    names = ["images", *(f"input{i}" for i in range(1, len(example)))]
    # torch 2.6 cannot convert with the newer onnxscript: it traces instead
    dynamo = not torch.__version__.startswith("2.6.")
    try:
        torch.onnx.export(model, example, path, input_names=names, dynamo=dynamo, external_data=False, verbose=False)
    except (RuntimeError, torch.onnx.OnnxExporterError) as e:
        raise _unfit("onnx", e) from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {n: v.numpy() for n, v in zip(names, x)})]


FORMATS: dict[str, Callable[[nn.Module, Inputs, Path], Run]] = {
    "safetensors": _safetensors,
    "torchscript": _torchscript,
    "onnx": _onnx,
}


def _unfit(format: str, error: Exception) -> UserError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(f"export: the model does not fit {format} ({line}); export safetensors")


def _tensors(output: Any) -> list[Tensor]:
    """The tensors of a nested output, in the order in which they stand there."""
    if isinstance(output, Tensor):
        return [output]
    if is_dataclass(output):
        output = {f.name: getattr(output, f.name) for f in fields(output)}
    parts = output.values() if isinstance(output, dict) else output
    return [t for part in parts for t in _tensors(part)]


def _difference(written: list[Tensor], expected: list[Tensor]) -> float:
    if [t.shape for t in written] != [t.shape for t in expected]:
        return float("inf")
    largest = 0.0
    for a, b in zip(written, expected):
        if b.numel():
            # inf - inf is nan: outputs that are not finite are refused, a file cannot be checked by them
            scale = max(1.0, b.double().abs().max().item())
            largest = max(largest, (a.double() - b.double()).abs().max().nan_to_num(torch.inf).item() / scale)
    return largest
