"""The pre-flight ends, whatever hangs in it, and names the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launch import preflight
from launch.agent import Agent, allocator
from launch.plan import Plan, node_name

HANGS = """
import sys, time
from pathlib import Path
from launch import preflight
from launch.plan import Plan
preflight.PATIENCE_S = 1
preflight.check_machine = lambda plan: "passed"
preflight.{part} = lambda plan: time.sleep(60)
sys.exit(preflight.main(Plan("", (), nnodes=2, check=True), Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("part", "status", "words"),
    [
        ("check_machine", preflight.BAD_NODE, "pre-flight: bad machine: its test did not finish within 1 s"),
        ("all_reduce", 1, "pre-flight: the all-reduce over 2 machines did not finish within 2 s"),
    ],
)
def test_a_test_that_hangs_ends_with_a_message(tmp_path: Path, part: str, status: int, words: str) -> None:
    """A driver that does not answer is the machine's fault, a network that does not may be any machine's."""
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-c", HANGS.format(part=part), str(report)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout.strip()) == (status, f"[{node_name()}] {words}")
    bad = "its test did not finish within 1 s" if part == "check_machine" else "passed"
    assert json.loads(report.read_text()) == {"node": node_name(), "check": bad}


def test_the_agent_leaves_a_test_behind_that_no_signal_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "LIMIT_S", 0.2)
    agent = Agent(Plan("", ()), tmp_path / "agent.json")
    hanging = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert agent._end_of(hanging) == preflight.BAD_NODE
    assert json.loads((tmp_path / "agent.json").read_text())["check"] == "its test did not finish within 0.2 s"
    assert hanging.wait(10)


def test_ranks_get_memory_that_grows_unless_there_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the config sets for its ranks comes last."""
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    grows = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    assert allocator({}) == grows
    assert allocator({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:512"}) == allocator({"PYTORCH_ALLOC_CONF": ""}) == {}
    assert Agent(Plan("", ()))._worker_spec()["env"].items() >= grows.items()
    own = {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}
    assert Agent(Plan("", (), env=own))._worker_spec()["env"].items() >= own.items()
