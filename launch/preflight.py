"""The pre-flight: is this machine fit to train? GPUs, a matrix product, a command of the user, an all-reduce."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ddptrain.system.files import write_text
from launch import rendezvous
from launch.plan import Plan, node_name

if TYPE_CHECKING:
    import torch

BAD_NODE = 76
PATIENCE_S = 120
"""How long each part may take: the user's command, the products on all GPUs, the all-reduce."""
LIMIT_S = 4 * PATIENCE_S
"""How long all of it may take, the wait for the store of the job included."""


def check_machine(plan: Plan) -> str:
    """Test this machine alone.

    Returns:
        "passed", or what is wrong with the machine.
    """
    import torch

    if plan.check_command:
        try:
            done = subprocess.run(plan.check_command, shell=True, capture_output=True, text=True, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            return f"check_command: did not finish within {PATIENCE_S} s"
        if done.returncode:
            output = " ".join((done.stderr or done.stdout).split())[:200]
            return f"check_command: status {done.returncode} {output}".strip()
    if plan.gpus:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count < plan.gpus:
            return f"{count} GPUs of {plan.gpus}"
    devices = [torch.device("cuda", i) for i in range(plan.gpus)] or [torch.device("cpu")]
    for device in devices:
        try:
            if not product_is_right(device):
                return f"a matrix product on {device} is wrong"
        except RuntimeError as e:
            return f"{device}: {str(e).splitlines()[0]}"
    return "passed"


def product_is_right(device: torch.device) -> bool:
    """Multiply two matrices of small integers, whose product float32 holds exactly, and compare with int64."""
    import torch

    a = torch.arange(256 * 256).reshape(256, 256) % 7
    b = torch.arange(256 * 256).reshape(256, 256) % 11
    return bool(((a.float().to(device) @ b.float().to(device)).cpu() == (a @ b).float()).all())


def all_reduce(plan: Plan) -> None:
    """Sum ones over the machines, on their first GPUs if they have any.

    Raises:
        RuntimeError: a machine is missing, or the sum is wrong.
    """
    import torch
    import torch.distributed as dist  # noqa: TID251  # between machines, before any rank exists

    port = rendezvous.find_store(plan.address, plan.ports, plan.token, PATIENCE_S)
    wait = timedelta(seconds=PATIENCE_S)
    store = dist.TCPStore(plan.address, port, is_master=False, timeout=wait)
    device = torch.device("cuda", 0) if plan.gpus else torch.device("cpu")
    dist.init_process_group(
        "nccl" if plan.gpus else "gloo",
        store=dist.PrefixStore("preflight", store),
        rank=list(plan.addresses).index(node_name()),
        world_size=plan.nnodes,
        timeout=wait,
    )
    ones = torch.ones(1 << 20, device=device)
    dist.all_reduce(ones)
    total = float(ones.double().sum())
    dist.destroy_process_group()
    if total != plan.nnodes << 20:
        raise RuntimeError(f"an all-reduce of ones over {plan.nnodes} machines gave {total / 2**20}")


def within(seconds: float, status: int, late: Callable[[], None]) -> threading.Timer:
    """From now on this process ends after so many seconds, whatever hangs in it, and reports it through `late`, unless the
    timer that is returned is cancelled: a GPU or a network that is broken may answer nothing at all."""

    def leave() -> None:
        late()
        sys.stdout.flush()
        os._exit(status)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    return timer


def main(plan: Plan, report: Path) -> int:
    """Test this machine, then the network; the report names the bad machine."""

    def note(result: str) -> None:
        write_text(report, json.dumps({"node": node_name(), "check": result}))
        if result != "passed":
            print(f"[{node_name()}] pre-flight: bad machine: {result}", flush=True)

    # a command of the user has its own time
    patience = PATIENCE_S * (2 if plan.check_command else 1)
    timer = within(patience, BAD_NODE, lambda: note(f"its test did not finish within {patience} s"))
    result = check_machine(plan)
    timer.cancel()
    note(result)
    if result != "passed":
        return BAD_NODE
    if plan.nnodes > 1:
        late = (
            f"[{node_name()}] pre-flight: the all-reduce over {plan.nnodes} machines did not finish within {2 * PATIENCE_S} s"
        )
        timer = within(2 * PATIENCE_S, 1, lambda: print(late, flush=True))
        all_reduce(plan)
        timer.cancel()
    return 0


if __name__ == "__main__":
    sys.exit(main(Plan.loads(sys.argv[1]), Path(sys.argv[2])))
