"""Whether two checkouts train the same bits: each case's small run, in both, and every value of their checkpoints compared.

    git worktree add ../before COMMIT
    python benchmarks/same_bits.py ../before [--cases detection,mask2former]

Seconds to minutes on a laptop. Exits with 1 where a value differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))
from small_runs import RUNS, write_config  # noqa: E402

SMALL_SWIN = "embed_dim: 8, depths: [1, 1, 1, 1], heads: [1, 1, 2, 2], window: 4, hidden: 32, feedforward: 32"
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "detection": ("detection", ()),
    "detection, batch norm, mixup, workers": (
        "detection",
        ("model.norm=batch", "data.augment.mixup=0.5", "data.workers=2", "train.micro_batch=4"),
    ),
    "detection, AdamW, cosine, bf16": (
        "detection",
        ("optimizer={name: adamw, lr: 0.001}", "schedule.name=cosine", "train.precision=bf16"),
    ),
    "detection, small objects, resnet18": ("detection", ("model={name: yolo, strides: [4, 8, 16, 32], backbone: resnet18}",)),
    "torchvision detector": (
        "detection",
        ("model={name: fcos_resnet50_fpn}", "data.allow_missing_annotations=true", "train.steps=2"),
    ),
    "classification": ("classification", ()),
    "classification, resnet18": ("classification", ("model={name: resnet18}", "loss={name: focal}")),
    "classification, small_resnet, bce": (
        "classification",
        ("model={name: small_resnet}", "loss={name: bce}", "data.balance=none"),
    ),
    "segmentation": ("segmentation", ()),
    "mask2former": (
        "segmentation",
        (
            f"model={{name: mask2former, {SMALL_SWIN}, attention_heads: 2, encoder_layers: 1, decoder_layers: 2, queries: 5}}",
            "loss={name: masks, points: 64}",
            "train.steps=3",
        ),
    ),
    "interaction, stage 1": ("interaction", ()),
    "interaction, stage 2": ("interaction", ("model.stage=2",)),
}
SPEED = ("images_per_second", "duration", "seconds", "data_wait", "memory")
"""Parts of the names in summary.json whose values are of the machine."""

ABOUT = ("record", "digest")
"""What names the code that computed the bits, and what follows from them."""


def main() -> int:
    """Run all cases; a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="another checkout of this repository")
    parser.add_argument("--cases", help="only these, separated by semicolons")
    args = parser.parse_args()
    wanted = args.cases.split(";") if args.cases else CASES
    different = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for task in RUNS:
            (folder / task).mkdir()
            RUNS[task].write(folder / task)
        for case in wanted:
            task, overrides = CASES[case]
            other, own = (_train(root, task, overrides, folder) for root in (args.other.resolve(), ROOT))
            wrong = [key for key in other.keys() | own.keys() if not _equal(other.get(key), own.get(key))]
            different += bool(wrong)
            print(f"{case}: {len(own)} values, " + (f"DIFFERENT: {sorted(wrong)[:8]}" if wrong else "equal"), flush=True)
    return int(different > 0)


def _train(root: Path, task: str, overrides: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Every value of the last checkpoint and of the summary of a run, by its place."""
    output = Path(tempfile.mkdtemp(dir=folder))
    config = write_config(task, folder / task, output)
    environ = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "DDPTRAIN_CACHE": str(output / "cache")}
    command = [sys.executable, "-P", "-m", "ddptrain", "train", str(config), *overrides]
    done = subprocess.run(command, env=environ, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{root}: {task} {' '.join(overrides)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    state = torch.load(output / "run/checkpoints/last.pt", weights_only=True)
    summary = json.loads((output / "run/summary.json").read_text())
    learned = {key: state[key] for key in state if key not in ("config", "contents", *ABOUT)}
    told = {key: value for key, value in summary.items() if key not in ABOUT}
    values = dict(_walk(learned, "")) | {f"summary{key}": value for key, value in _walk(told, "")}
    return {key: value for key, value in values.items() if not any(part in key for part in SPEED)}


def _walk(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for key, inner in enumerate(value):
            yield from _walk(inner, f"{where}.{key}")
    else:
        yield where, value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same_kind = a.dtype == b.dtype and a.shape == b.shape
        return same_kind and torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))
    return type(a) is type(b) and (a == b or (a != a and b != b))


if __name__ == "__main__":
    sys.exit(main())
