"""How long training waits for a checkpoint: `python benchmarks/checkpoint.py [--gigabytes 1] [--rounds 5]`.

One state of some 300 tensors (model, EMA and two optimizer moments of one network) is saved in turn, every round:

    torch.save       alone, into the page cache: neither flushed nor checked, may be cut off
    synchronous      the same, flushed: temporary name, fsync of file and folder, rename (what is compared with)
    ours, waiting    `copy_to_host` and `checkpoint.save`: copy, checksum, fsync, rename, links
    ours, blocked    `CheckpointWriter.submit`: what training waits for
    ours, on disk    from `submit` until the save is on disk, training going on
    slowed down      what a loop of matrix products lost meanwhile, by the count of products that it still did
    first            `submit` of the first save of a run, which also takes its memory; and after `reserve`

Medians with the lowest and highest round.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ddptrain.checkpoint import files as checkpoint
from ddptrain.checkpoint.host_copy import copy_to_host
from ddptrain.checkpoint.writer import CheckpointWriter
from ddptrain.system.files import sync_folder


def make_state(gigabytes: float, device: str) -> dict:
    """Four copies of a network of 75 layers, float32; a few layers are large and many are small, as in a detector."""
    generator = torch.Generator().manual_seed(0)
    sizes = [2 ** (i % 8) for i in range(75)]
    unit = int(gigabytes * 1e9 / 4 / 4 / sum(sizes))
    return {
        part: {f"layer{i}.weight": torch.randn(unit * size, generator=generator).to(device) for i, size in enumerate(sizes)}
        for part in ("model", "ema", "exp_avg", "exp_avg_sq")
    }


def synchronous(folder: Path, state: dict) -> None:
    """`torch.save` as it is made safe by hand."""
    temporary = folder / "plain.pt.tmp"
    with open(temporary, "wb") as f:
        torch.save(state, f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, folder / "plain.pt")
    sync_folder(folder)


def seconds(work: Callable[..., object], *args: object) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def products(matrix: torch.Tensor, until: Callable[[], bool]) -> float:
    """Matrix products per second while `until` is false."""
    count, start = 0, time.perf_counter()
    while not until():
        matrix @ matrix
        if matrix.is_cuda:
            torch.cuda.synchronize()
        count += 1
    return count / (time.perf_counter() - start)


def calm_products(matrix: torch.Tensor) -> float:
    """Matrix products per second in half a second without a save."""
    until = time.perf_counter() + 0.5
    return products(matrix, lambda: time.perf_counter() > until)


def main() -> None:
    """Print the table; exit 1 when training is blocked for more than a quarter of a synchronous save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the state")
    parser.add_argument("--rounds", type=int, default=5, help="saves of each kind")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where the state lies")
    parser.add_argument("--folder", type=Path, default=None, help="a folder of the disk to measure (default: here)")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="checkpoint-benchmark-", dir=args.folder or Path.cwd()))
    times: dict[str, list[float]] = {}  # in the order of the table
    try:
        measure(args, folder, times)
    finally:
        shutil.rmtree(folder)
    print(f"{args.gigabytes:g} GB on {args.device}, {args.rounds} rounds, {folder.parent}")
    for name, values in times.items():
        middle = statistics.median(values)
        unit = "% of the products" if name == "slowed down" else f"s  {args.gigabytes / middle:5.2f} GB/s"
        print(f"{name:16} {middle:7.3f}  [{min(values):.3f}..{max(values):.3f}] {unit}")
    share = statistics.median(times["ours, blocked"]) / statistics.median(times["synchronous"])
    print(f"blocked / synchronous {share:.1%} (promised: at most 25%)")
    sys.exit(share > 0.25)


def measure(args: argparse.Namespace, folder: Path, times: dict[str, list[float]]) -> None:
    """Fill `times` with seconds by kind of save."""
    state = make_state(args.gigabytes, args.device)
    host = {part: {k: v.cpu() for k, v in tensors.items()} for part, tensors in state.items()}
    matrix = torch.randn(512, 512, device=args.device)
    for reserved in (False, True):
        writer = CheckpointWriter(folder / "ours", keep_last=1, keep_every=None, report=print)
        if reserved:
            writer.reserve(state)
            writer.wait()
        times["first, reserved" if reserved else "first"] = [seconds(writer.submit, state, 0)]
        writer.wait()
    for _ in range(args.rounds):
        row = {"torch.save": seconds(torch.save, host, folder / "cached.pt")}
        os.sync()
        row["synchronous"] = seconds(synchronous, folder, state)
        row["ours, waiting"] = seconds(lambda: checkpoint.save(folder / "ours", copy_to_host(state), 1))
        calm = calm_products(matrix)
        start = time.perf_counter()
        writer.submit(state, 2)
        row["ours, blocked"] = time.perf_counter() - start
        waiting = threading.Thread(target=writer.wait)
        waiting.start()
        busy = products(matrix, lambda thread=waiting: not thread.is_alive())
        row["ours, on disk"] = time.perf_counter() - start
        row["slowed down"] = 100 * (1 - busy / calm)
        if writer.failed:
            sys.exit("a save failed: the numbers mean nothing")
        for name, value in row.items():
            times.setdefault(name, []).append(value)


if __name__ == "__main__":
    main()
