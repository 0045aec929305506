"""What only a GPU can show, as a table of what was expected and what was found: `make gpu`, at most ten minutes on one GPU.

    python benchmarks/gpu/check.py [--device cuda|cpu] [--only versions,steps,…]

Goes on after a failure, and exits with 1 where something was not as expected. Each check runs in a process of its own, since a
fault of a kernel leaves a process without its GPU. On the CPU the same script checks what can be had there, in a minute.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ddptrain.data.synthetic.scenes import write_demo

ROOT = Path(__file__).resolve().parents[2]
PARTS = str(ROOT / "benchmarks" / "gpu" / "parts.py")
GONE_S = 40.0
"""How soon all ranks must be gone after one of them failed."""


class Found(NamedTuple):
    """What a check found, and whether it is as expected; None where nothing is expected of it."""

    text: str
    good: bool | None = True


class Machine:
    """Where the checks run: a device, datasets, a folder for runs."""

    def __init__(self, device: str, folder: Path) -> None:
        self.device, self.folder, self.on_gpu = device, folder, device == "cuda"
        self.gpus = torch.cuda.device_count() if self.on_gpu else 0
        if not self.on_gpu:
            importlib.import_module("parts")  # once, for those that are forked
            torch.set_num_threads(1)
        write_demo(folder / "data", 160 if self.on_gpu else 16)
        demo = (ROOT / "configs" / "demo.yaml").read_text().replace("runs/demo-data", str(folder / "data"))
        self.config = folder / "demo.yaml"
        self.config.write_text(demo)
        common = ["monitor.tensorboard=false", "monitor.images=0", "eval.every_epochs=null", "checkpoint.every_epochs=null"]
        common.append(f"monitor.every_steps={25 if self.on_gpu else 3}")
        small = [] if self.on_gpu else ["data.image_size=64", "train.global_batch=4", "train.micro_batch=2", "data.workers=0"]
        self.common = [f"output={folder}", f"train.device={device}", *common, *small]

    def _do(self, *command: str, timeout: float = 180, ranks: int = 1) -> tuple[list[int], str, float]:
        """Exit statuses of the ranks of a command of Python, what they printed, and the seconds until the last was gone."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(s.getsockname()[1]), "WORLD_SIZE": str(ranks)}
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_", "RANK", "LOCAL_"))}
        log, processes, began = self.folder / f"log-{time.monotonic_ns()}.txt", [], time.monotonic()
        with log.open("w") as out:
            for rank in range(ranks):
                own = {**place, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(ranks)} if ranks > 1 else {}
                environ = plain | own | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": plain.get("OMP_NUM_THREADS", "1")}
                processes.append(self._start(command, environ, out))
            while any(p.poll() is None for p in processes) and time.monotonic() - began < timeout:
                time.sleep(0.1)
        seconds = time.monotonic() - began
        for p in processes:
            p.kill()
            p.wait()
        return [p.returncode for p in processes], log.read_text(errors="replace"), seconds

    def _start(self, command: Sequence[str], environ: dict[str, str], out: Any) -> Any:
        """A process of Python. Without a GPU a part of parts.py is forked."""
        if self.on_gpu or command[0] != PARTS:
            return subprocess.Popen([sys.executable, "-P", *command], stdout=out, stderr=out, env=environ, cwd=ROOT)
        import parts
        from forked import Forked

        _, what, *arguments = command
        return Forked(lambda: parts.PARTS[what](*arguments), environ, out.fileno())

    def child(self, what: str, *arguments: str, timeout: float = 180, ranks: int = 1) -> dict[str, Any]:
        """What a part of parts.py has found; raises RuntimeError with its last words where it failed."""
        codes, text, _ = self._do(PARTS, what, *arguments, timeout=timeout, ranks=ranks)
        found = [line[6:] for line in text.splitlines() if line.startswith("found ")]
        if any(codes) or not found:
            raise RuntimeError(f"status {codes}: {last_words(text)}")
        return dict(json.loads(found[-1]))

    def train(self, name: str, *overrides: str) -> list[str]:
        """Arguments of a run."""
        return ["train", str(self.config), *self.common, f"name={name}", *overrides]

    def pytest(self) -> tuple[list[int], str, float]:
        """The tests that are marked for a GPU."""
        return self._do("-m", "pytest", "-q", "-m", "gpu", "tests")


def last_words(text: str) -> str:
    """The last line that a failed command printed."""
    return next((line.strip()[:160] for line in reversed(text.splitlines()) if line.strip()), "nothing was printed")


def versions(m: Machine) -> Found:
    """What is installed; NCCL and cuDNN are asked."""
    return Found(m.child("versions", m.device)["text"], None)


def suppression(m: Machine) -> Found:
    """Non-maximum suppression of 40 000 boxes on the device against the CPU."""
    found = m.child("suppression", m.device)
    return Found(f"{found['kept']} boxes, {found['different']} other ones, {found['ms']:.0f} ms", found["different"] <= 2)


def marked(m: Machine) -> Found:
    """The tests marked gpu."""
    codes, text, _ = m.pytest()
    return Found(last_words(text), codes == [0])


def steps(m: Machine) -> Found:
    """Three SGD steps in float32, on the CPU and on the device: the weights."""
    same = ["model.norm=group", "optimizer={name: sgd, lr: 0.01}", "train.steps=4", "train.tf32=false", "data.workers=0"]
    both = (("cpu", "cpu"), ("device", m.device))
    runs = [m.train(f"steps_on_{name}", *same, f"train.device={device}") for name, device in both]
    found = m.child("compare", json.dumps(runs), timeout=240)
    return Found(f"{found['value']:.1e} in {found['name'] or 'nothing'}", found["value"] < 1e-3)


def waits(precision: str) -> Callable[[Machine], Found]:
    """Waits of the host for the device in a step, by line; speed and memory."""

    def check(m: Machine) -> Found:
        count = 101 if m.on_gpu else 7
        found = m.child("waits", *m.train(f"waits_{precision}", f"train.precision={precision}", f"train.steps={count}"))
        lines = ", ".join(f"{line} {n:g}" for line, n in found["waits"].items())
        speed = f"{found['images_per_second']:.0f} images/s, {found['gb']:.2f} GB"
        return Found(f"{sum(found['waits'].values()):g} ({lines}); {speed}", sum(found["waits"].values()) <= 1)

    return check


def layouts(m: Machine) -> Found:
    """Images per second with and without channels-last."""
    speeds = []
    for norm in ("batch", "group", "frozen"):
        for last in ("true", "false"):
            keys = (f"model.norm={norm}", f"train.channels_last={last}", "train.precision=bf16", "train.steps=101")
            found = m.child("waits", *m.train(f"layout_{norm}_{last}", *keys))
            speeds.append(f"{norm} {'channels-last' if last == 'true' else 'rows'} {found['images_per_second']:.0f}")
    return Found(", ".join(speeds), None)


def other_layout(m: Machine) -> Found:
    """A run that is resumed with another memory format."""
    first, again = (m.train("layout", f"train.steps={n}", f"train.channels_last={last}") for n, last in ((2, True), (4, False)))
    found = m.child("runs", json.dumps([first, [*again, "resume=auto"]]))
    return Found(f"step {found['step']}, loss {'finite' if found['finite'] else 'not finite'}", found["finite"])


def verify(*way: str) -> Callable[[Machine], Found]:
    """A verdict of `ddptrain verify`."""

    def check(m: Machine) -> Found:
        keys = [k for k in m.common if not k.startswith(("output", "eval", "checkpoint", "monitor", "train.device"))]
        # several ranks on one GPU compute on the CPU
        device = "auto" if "--ranks" in way and m.gpus == 1 else m.device
        found = m.child("verify", str(m.config), *keys, f"train.device={device}", *way)
        return Found(found["verdict"], found["code"] == 0)

    return check


def ahead(optimizer: str) -> Callable[[Machine], Found]:
    """A run whose steps are launched ahead against one that waits for each, and against one in which the host decides."""

    def check(m: Machine) -> Found:
        count = 101 if m.on_gpu else 8
        keys = (f"optimizer.name={optimizer}", f"train.steps={count}", "train.deterministic=true", "train.tf32=false")
        found = m.child("ahead", *m.train(f"ahead_{optimizer}", *keys), timeout=240)
        noise, (fast, slow) = found["noise"], found["speeds"]
        text = (
            f"{found['ahead']} of {count} steps ahead, difference {found['waiting']:.1g} (host: {found['host']:.1g}, average "
        )
        text += (
            f"{found['average']:.1g}; twice the same run: {noise:.1g}); {fast:.0f} images/s, {slow:.0f} with a wait for each"
        )
        near = found["waiting"] <= 10 * noise and found["host"] <= 10 * noise and found["average"] <= 1e-4 + 10 * noise
        return Found(text, near and found["skipped"] == [1] * 4 and found["ahead"] > count / 2)

    return check


def loading(m: Machine) -> Found:
    """Whether a small network at 640 pixels waits for its data."""
    keys = ("model.size=s", "data.image_size=640", "train.precision=bf16", "train.steps=76", f"data.workers={os.cpu_count()}")
    found = m.child("waits", *m.train("loading", *keys))
    wait = found["data_wait"]
    return Found(
        f"{'loader' if wait > 0.1 else 'GPU'}-bound: {wait:.0%} of the time, {found['images_per_second']:.0f} images/s", None
    )


def lost(how: str) -> Callable[[Machine], Found]:
    """Rank 1 of two fails in its third step: when everyone is gone, and who was named."""

    def check(m: Machine) -> Found:
        codes, text, _ = m._do(PARTS, "misbehave", how, *m.train(f"lost_{how}", "train.steps=9"), timeout=120, ranks=2)
        failed = re.search(r"failing at (\S+)", text)
        ended = re.findall(r"^ddptrain: failed: (.*)", text, re.MULTILINE)
        seconds = time.time() - float(failed[1]) if failed else float("inf")
        named = any("rank 1" in line for line in ended)
        good = codes[0] == 1 and named and seconds < GONE_S
        return Found(f"{seconds:.0f} s; {ended[0][:100] if ended else last_words(text)}", good)

    return check


def synced(m: Machine) -> Found:
    """Batch norm over two ranks: its waits."""
    found = m.child("waits", *m.train("synced", "model.norm=sync", "train.steps=51"), ranks=2)
    return Found(
        f"{sum(found['waits'].values()):g}, {found['images_per_second']:.0f} images/s", sum(found["waits"].values()) <= 1
    )


class Check(NamedTuple):
    """A row of the table. `where`: all, a GPU, two GPUs (on the CPU two ranks), or two GPUs only."""

    name: str
    expected: str
    run: Callable[[Machine], Found]
    where: str = "gpu"


SOON = f"all gone in {GONE_S:.0f} s, rank 1 named"
CHECKS = [
    Check("versions", "", versions, "all"),
    Check("suppression", "as on the CPU", suppression, "all"),
    Check("tests", "passed", marked),
    Check("steps", "below 1e-3", steps, "all"),
    Check("waits", "at most 1 a step", waits("none"), "all"),
    Check("waits bf16", "at most 1 a step", waits("bf16")),
    Check("waits fp16", "at most 1 a step", waits("fp16")),
    Check("layouts", "", layouts),
    Check("ahead sgd", "the same bits", ahead("sgd"), "all"),
    Check("ahead adamw", "the same bits", ahead("adamw"), "all"),
    Check("other layout", "loss finite", other_layout, "all"),
    Check("verify resume", "holds", verify("--resume"), "all"),
    Check("verify workers", "holds", verify("--workers"), "all"),
    Check("loading", "", loading),
    Check("raise", SOON, lost("raise"), "two"),
    Check("out of memory", SOON, lost("oom"), "two gpus"),
    Check("kill", SOON, lost("kill"), "two"),
    Check("verify ranks", "holds", verify("--ranks", "1,2"), "all"),
    Check("sync", "at most 1 a step", synced, "two gpus"),
]


def chosen(m: Machine, only: Sequence[str]) -> list[Check]:
    """The checks that this machine can run."""
    can = {"all", "gpu"} | ({"two", "two gpus"} if m.gpus >= 2 else set()) if m.on_gpu else {"all", "two"}
    return [c for c in CHECKS if c.where in can and (not only or c.name in only)]


def main() -> int:
    """Run the checks, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", default="", help="names of checks, separated by commas")
    args = parser.parse_args()
    began, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        machine = Machine(args.device, Path(folder))
        print(f"{'check':<15} {'expected':<34} found", flush=True)
        for check in chosen(machine, args.only.split(",") if args.only else ()):
            try:
                found = check.run(machine)
            except Exception as e:  # the next check may say more
                found = Found(f"{type(e).__name__}: {e}", False)
            bad += found.good is False
            mark = {True: "ok", False: "NOT AS EXPECTED", None: ""}[found.good]
            print(f"{check.name:<15} {check.expected:<34} {found.text}  {mark}".rstrip(), flush=True)
    left = [c.name for c in CHECKS if c not in chosen(machine, ())]
    print(
        f"{bad} not as expected, {time.monotonic() - began:.0f} s"
        + f"; not tried on this machine: {', '.join(left)}" * bool(left)
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
