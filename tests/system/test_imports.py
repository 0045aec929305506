"""What a run imports at its start, and how."""

from __future__ import annotations

import gc
import json
import subprocess
import sys

import pytest

from ddptrain.system.imports import quick_imports

NOT_AT_THE_START = (
    "matplotlib",
    "tensorboard",
    "pycocotools",
    "onnx",
    "onnxscript",
    "transformers",
    "scipy",
    "pandas",
    "IPython",
)
"""Packages of other commands, of the end of a run, or of an option, some of which other packages would import if they could."""
START = f"""
import gc, json, sys
from ddptrain.cli import main
try:
    main(["train", "no such file"])
except SystemExit:
    pass
from ddptrain.system.imports import quick_imports
before = [s["collections"] for s in gc.get_stats()]
with quick_imports(True):
    import ddptrain.engine.trainer
after = [s["collections"] for s in gc.get_stats()]
print(json.dumps([before == after, [m for m in {NOT_AT_THE_START} if m in sys.modules]]))
"""


def test_a_start_imports_what_it_needs_and_looks_for_no_garbage_meanwhile() -> None:
    out = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True).stdout
    assert json.loads(out.splitlines()[-1]) == [True, []]


@pytest.mark.parametrize("own", [False, True])
def test_afterwards_garbage_is_collected_as_ever(own: bool) -> None:
    frozen = gc.get_freeze_count()
    try:
        with quick_imports(own):
            assert not gc.isenabled()
        assert gc.isenabled()
        assert (gc.get_freeze_count() > frozen) == own
    finally:
        gc.unfreeze()
