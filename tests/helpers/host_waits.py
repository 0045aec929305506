"""Where the host would wait for a GPU, found without one: on fake tensors of a GPU, whose values nobody knows."""

from __future__ import annotations

import os
import traceback
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

needs_fakes = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14), reason="torch 2.6 aborts at a fake convolution of a GPU"
)
"""Of tests that put networks on fake GPUs; with torch 2.14 they are known to run."""
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal"}
"""Operations that read a value from the device."""


class HostWaits(TorchDispatchMode):
    """Counts the waits in what runs inside, by line; also on tensors of the CPU, where an index by truth values is one, too.

    Attributes:
        pause: count nothing.
        suppressions: calls of torchvision's `nms`, whose kernel waits once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()
        self.pause = False
        self.suppressions = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, tensors = function.__name__.split(".")[0], [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        # torch fills by a mask where a number is put in
        masked = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(_is_mask(i) for i in args[1])
        masked = masked and (name == "index" or args[2].ndim > 0)
        repeated = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        self.suppressions += name == "nms"
        out = function(*args, **(kwargs or {}))
        crossed = (
            isinstance(out, Tensor)
            and name in ("_to_copy", "copy_")
            and len({t.device.type for t in [*tensors, out]}) > 1
            and not (kwargs or {}).get("non_blocking")  # from and to page-locked memory
        )
        if not self.pause and (name in WAITS or masked or repeated or crossed):
            own = [
                f
                for f in traceback.extract_stack()
                if f.filename != __file__ and ("/ddptrain/" in f.filename or "/tests/" in f.filename)
            ]
            self.lines[f"{os.path.relpath(own[-1].filename)}:{own[-1].lineno} {name}"] += 1
        return out


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


class HostCalls(TorchFunctionMode):
    """Counts, by name, the calls that read the values of a tensor or send some to one: on tensors of the CPU no operation shows
    them.

    Attributes:
        pause: count nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.pause = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__
        sends = name in ("tensor", "as_tensor") and not isinstance(args[0], Tensor)
        if not self.pause and (sends or name in ("tolist", "cpu", "new_tensor")):
            self.calls[name] += 1
        return function(*args, **(kwargs or {}))


def put_on_fake_gpu(model: nn.Module, mode: FakeTensorMode) -> None:
    """Put fakes in the place of a network's parameters and buffers."""
    for module in model.modules():
        values: Any
        for values in (module._parameters, module._buffers):
            for name, value in values.items():
                if value is not None:
                    moved = on_fake_gpu(value.detach(), mode)
                    values[name] = nn.Parameter(moved, value.requires_grad) if isinstance(value, nn.Parameter) else moved


def on_fake_gpu(value: Any, mode: FakeTensorMode) -> Any:
    """Fake tensors of a GPU with the shapes of `value`, a tensor or a dictionary of them."""
    if isinstance(value, dict):
        return {k: on_fake_gpu(v, mode) for k, v in value.items()}
    with mode:
        return torch.empty(value.shape, dtype=value.dtype, device="cuda", requires_grad=value.requires_grad)
