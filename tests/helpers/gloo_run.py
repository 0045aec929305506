"""A small real run for the launcher's tests: ranks on gloo, deterministic steps, the stop flag all-reduced, checkpoints.

It keeps the contract of `ddptrain train` (arguments, status.json, stop and resume) without data sets and models, so a
start takes a second or two: gradients and momentum are written out, for DDP and torch.optim import torch._dynamo, which
takes as long as torch itself. `main(["train", folder, "steps=…", "dt=…", …])`. With `hold=N` the first N starts of a job
do not get past step 50 on their own: they wait there to be stopped, or for a file `go` in the run's folder.
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from ddptrain.system.status import State, write_status


def put(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def main(argv: list[str]) -> int:
    stop: list[str] = []
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, frame: stop.append(signal.Signals(n).name))
    folder, options = Path(argv[1]), dict(a.split("=", 1) for a in argv[2:])
    steps, dt = int(options.get("steps", 40)), float(options.get("dt", 0.1))
    import torch
    import torch.distributed as dist
    from torch.utils.data import DataLoader

    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 8)
    parameters = list(model.parameters())
    momentum = [torch.zeros_like(p) for p in parameters]
    done, kept = 0, folder / "last.pt"
    if options.get("resume") == "auto" and kept.exists():
        state = torch.load(kept, weights_only=True)
        model.load_state_dict(state["model"])
        momentum = state["momentum"]
        done = state["step"]
    hold = int(os.environ.get("SLURM_RESTART_COUNT") or 0) < int(options.get("hold", 0))
    if done and not hold:
        dt = 0.0  # what comes after the last stop need not be slow
    node = os.environ.get("SLURMD_NODENAME", "")
    print(f"start rank={rank} size={size} step={done} node={node}")
    gpus, threads = os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"]
    print(f"has gpus={gpus} threads={threads} note={options.get('note')!r} cwd={os.getcwd()!r}")
    for name in filter(None, options.get("show", "").split(",")):
        print(f"{name}={os.environ.get(name)!r}")

    def save(state: State, reason: str = "") -> None:
        if rank == 0:
            temporary = folder / f".last.{os.getpid()}"
            torch.save({"model": model.state_dict(), "momentum": momentum, "step": done}, temporary)
            os.replace(temporary, kept)
            tell(state, reason)
        dist.barrier()

    def on_any_rank(true: bool) -> bool:
        count = torch.tensor([float(true)])
        dist.all_reduce(count)
        return bool(count.item())

    def tell(state: State, reason: str = "") -> None:
        write_status(folder, state, done, steps, reason, kept if kept.exists() else None)

    if rank == 0:
        tell("running")
    workers = int(options.get("workers", 0))
    loader = DataLoader(
        torch.arange(done, 10_000), batch_size=None, num_workers=workers, worker_init_fn=_deaf if workers else None
    )
    batches = iter(loader)
    put(folder / f"pid.{rank}", f"{os.getpid()} {node}")
    if options.get("fail") == str(rank) and not (folder / "failed_once").exists():
        if options.get("fails") != "always":
            (folder / "failed_once").touch()
        raise RuntimeError(f"rank {rank} was told to fail")
    if options.get("mistake"):
        return 2
    while done < steps:
        while hold and done == 50 and not on_any_rank(bool(stop) or (folder / "go").exists()):
            time.sleep(0.05)
        position = int(next(batches))
        assert position == done, (position, done)
        time.sleep(dt)
        generator = torch.Generator().manual_seed(1000 * done + rank)
        x = torch.randn(4, 8, generator=generator)
        stopping = on_any_rank(bool(stop))
        gradients = torch.autograd.grad((model(x) - x).square().mean(), parameters)
        with torch.no_grad():
            for p, g, m in zip(parameters, gradients, momentum):
                dist.all_reduce(g)
                m.mul_(0.9).add_(g, alpha=1 / size)
                p.sub_(m, alpha=0.01)
        done += 1
        if stopping:
            time.sleep(float(options.get("save_s", 0)))
            assert [int(next(batches)) for _ in range(3)] == [done, done + 1, done + 2]  # the loader still lives
            save("stopped", stop[0] if stop else "another rank")
            print(f"stopped rank={rank} step={done} signals={stop}")
            dist.destroy_process_group()
            return 0
        if done % int(options.get("every", 10)) == 0:
            save("running")
    save("finished")
    digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
    print(f"finished rank={rank} weights={digest[:16]}")
    if rank == 0:
        put(folder / "weights", digest)
    dist.destroy_process_group()
    return 0


def _deaf(worker: int) -> None:
    """Loader workers leave stop signals to their rank: some trackers reach the whole process tree."""
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
