"""A run on two nodes of a private Slurm, pre-empted twice and hit by a time limit, beside the same run left alone:

    python benchmarks/survival.py [--config configs/bench/bccd.yaml] [--steps 600] [--size 160] [--through submitit sbatch]

Prints the job's log, `ddptrain jobs` at each stage, the times, and whether both runs ended with the same state, bit for bit.
About 4 minutes for each way on 2 cores. Needs `apt-get install slurm-wlm munge`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "helpers")]

from private_slurm import PrivateSlurm, missing, wait_for  # noqa: E402
from support import equal, final_state  # noqa: E402

SLURM = ("--nodes=2", "--gpus-per-node=0", "--partition=low", "--time=2:00", "slurm.signal_s=60")


class Watch:
    """Notes when each line of a job's log came, and when the run's status became `stopped`, to 0.02 s."""

    def __init__(self, log: Path, status: Path) -> None:
        self.lines: list[tuple[float, str]] = []
        self.saves: list[float] = []
        self._log, self._status, self._ended = log, status, False
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended:
            if self._log.exists():
                for line in self._log.read_text(errors="replace").split("\n")[len(self.lines) : -1]:
                    self.lines.append((time.time(), line))
            try:
                saved = self._status.stat().st_mtime
                if json.loads(self._status.read_text())["state"] == "stopped" and saved not in self.saves:
                    self.saves.append(saved)
            except FileNotFoundError:
                pass
            time.sleep(0.02)

    def end(self) -> None:
        """Stop watching, with the last lines read."""
        time.sleep(0.5)
        self._ended = True
        self._thread.join()

    def at(self, pattern: str) -> list[tuple[float, re.Match[str]]]:
        """Times and matches of the lines that match."""
        return [(t, m) for t, line in list(self.lines) if (m := re.search(pattern, line))]

    def steps(self) -> list[tuple[int, float, int]]:
        """Start, time and number of each step."""
        found, start = [], -1
        for t, line in list(self.lines):
            start += " job: start " in line
            if m := re.search(r"\bstep (\d+)/", line):
                found.append((start, t, int(m[1])))
        return found


def say(*arguments: str) -> str:
    """Run ddptrain as a user would, and show it."""
    done = subprocess.run([sys.executable, "-m", "ddptrain", *arguments], capture_output=True, text=True, check=True)
    print(f"\n$ ddptrain {' '.join(arguments)}\n{done.stdout}", end="", flush=True)
    return done.stdout


def survive(cluster: PrivateSlurm, way: str, config: str, overrides: list[str]) -> tuple[dict[str, str], Path]:
    """Submit a run and let it be stopped; returns what was measured, and the run's folder."""
    print(f"\n## through {way}")
    say("jobs")
    began = time.time()
    said = say("submit", config, *overrides, f"name={way}", *SLURM, "--through", way)
    number, run, log = re.findall(r"^job (\d+)|^  (?:run|log) +(.*)$", said, re.MULTILINE)
    watch = Watch(Path(log[1]), Path(run[1]) / "status.json")
    try:
        for start in (0, 1):
            wait_for("20 steps", lambda start=start: sum(s[0] == start for s in watch.steps()) >= 20, 180)
            if start == 0:
                say("jobs")
            cluster.run("sbatch", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
            wait_for("save", lambda start=start: len(watch.saves) > start, 60)
            if start == 0:
                wait_for("requeue", lambda: watch.at("job: requeued"))
                say("jobs")
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        shown = lambda: re.search(r"JobState=(\S+)", cluster.run("scontrol", "show", "job", number[0], attempts=5))  # noqa: E731
        wait_for("end", lambda: (m := shown()) and m[1] in ended, 540)
    finally:
        watch.end()
        print("\n".join(line for _, line in watch.lines if not re.search(r"\bstep (?!1/)\d+/", line)))
    say("jobs")
    steps = watch.steps()
    firsts = [next(t for s, t, _ in steps if s == start) for start in range(steps[-1][0] + 1)]
    asked = {}  # both nodes say it
    for t, m in watch.at(r"agent: (\w+): asking"):
        asked.setdefault(sum(f < t for f in firsts), (t, m[1]))
    stops = [int(m[1]) for _, m in watch.at(r"stopped by \w+ after step (\d+)")]
    goes_on = [int(m[1]) for _, m in watch.at(r"from step (\d+) to")]
    return {
        "submission to first step, s": f"{firsts[0] - began:.1f}",
        "stops": ", ".join(f"{name} at step {stop}" for (_, name), stop in zip(asked.values(), stops)),
        "stop signal to saved, s": ", ".join(f"{saved - t:.2f}" for (t, _), saved in zip(asked.values(), watch.saves)),
        "saved to next step, s": ", ".join(f"{first - saved:.1f}" for saved, first in zip(watch.saves, firsts[1:])),
        "steps lost": ", ".join(str(stop - again) for stop, again in zip(stops, goes_on)),
    }, Path(run[1])


def main() -> int:
    """Print everything; 1 where a run did not end as the calm one did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "configs" / "bench" / "bccd.yaml"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--through", nargs="+", choices=("submitit", "sbatch"), default=["submitit", "sbatch"])
    args = parser.parse_args()
    if lacking := missing():
        print(f"skipped: no Slurm here, {', '.join(lacking)} lacking: apt-get install slurm-wlm munge")
        return 0
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory(prefix="survival-") as folder, PrivateSlurm() as cluster:
        os.environ |= cluster.environ | {"XDG_STATE_HOME": f"{folder}/state", "XDG_CONFIG_HOME": f"{folder}/none"}
        overrides = [
            f"output={folder}/runs", f"train.steps={args.steps}", f"data.image_size={args.size}", "data.workers=1",
            "train.global_batch=8", "train.micro_batch=4", "train.device=cpu", "eval.every_epochs=null",
            "checkpoint.every_epochs=null", "monitor.every_steps=1", "monitor.tensorboard=false",
        ]  # fmt: skip
        began = time.time()
        calm = [sys.executable, "-m", "ddptrain", "launch", args.config, *overrides, "name=calm", "--nproc", "2"]
        subprocess.run(calm, check=True, capture_output=True)
        print(f"calm run, 2 ranks, {args.steps} steps: {time.time() - began:.0f} s")
        expected, rows, code = final_state(Path(folder) / "runs" / "calm"), {}, 0
        for way in args.through:
            rows[way], run = survive(cluster, way, args.config, overrides)
            try:
                equal(expected, final_state(run))
                rows[way]["state equal to the calm run's"] = "yes, every tensor and number"
            except AssertionError as e:
                rows[way]["state equal to the calm run's"], code = f"no: {e}", 1
        print("\n| | " + " | ".join(args.through) + " |\n|" + "---|" * (1 + len(args.through)))
        for key in rows[args.through[0]]:
            print(f"| {key} | " + " | ".join(rows[way][key] for way in args.through) + " |")
    return code


if __name__ == "__main__":
    sys.exit(main())
