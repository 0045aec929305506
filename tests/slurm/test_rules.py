"""The rules of the launcher, each on a real Slurm: what a start, a stop, a crash, a lost machine lead to."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from private_slurm import PrivateSlurm, trackers, wait_for
from slurm_jobs import ENDED, Jobs, Submitted, need_slurm

from launch import cluster, control, logs, rendezvous, source, submitit

HELPERS = Path(__file__).parents[1] / "helpers"
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
STEPS = 60


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of a run of two ranks that nobody disturbed, on this machine without Slurm."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    arguments = ["train", str(folder), f"steps={STEPS}", "dt=0"]
    program = f"import sys; from launch.torchrun import start; sys.exit(start({arguments!r}, 2, module='gloo_run'))"
    environ = dict(os.environ, PYTHONPATH=f"{source.source_root()}:{HELPERS}", OMP_NUM_THREADS="1")
    subprocess.run([sys.executable, "-c", program], check=True, env=environ, capture_output=True)
    return (folder / "weights").read_text()


SHOWN = {
    "GLOO_SOCKET_IFNAME": "lo", "NCCL_IB_HCA": "mlx5", "NCCL_DEBUG": "INFO", "SET_UP": "a b", "CONTAINED": "y", "GIVEN": "c;d",
}  # fmt: skip
"""Variables and their values in a rank: two of the submitting shell, then debug, setup, container, env."""


def test_two_nodes_train(slurm: Jobs, calm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("NCCL_IB_HCA", "mlx5")
    monkeypatch.delenv("OMP_NUM_THREADS")
    both = slurm.both(
        run={"steps": STEPS, "dt": 0.01, "show": ",".join(SHOWN)}, check=True, account="lab", debug=True,
        extra={"gpus-per-node": 2, "comment": "e; $f"}, setup=("export SET_UP='a b'",), container="env CONTAINED=y",
        env={"GIVEN": "c;d"}, srun={"quit-on-interrupt": True},
    )  # fmt: skip
    for job in both:
        assert job.end() == ("COMPLETED", 0), job.log
        assert job.status == "finished"
        assert job.weights == calm
        assert job.log.count("has gpus=0,1 threads=2") == 2, job.log  # all GPUs and cores of the node, one task
        for name, value in SHOWN.items():
            assert job.log.count(f"{name}={value!r}") == 2, job.log
        text = slurm.cluster.run("scontrol", "show", "job", job.id)
        assert "Account=lab" in text
        assert "Comment=e; $f" in text
        # without accounting: Slurm's text file of ended jobs is asked
        ended = cluster._sacct(job.id)
        assert ended
        assert ended.state == "COMPLETED"
        # NodeAddr: the names resolve nowhere
        assert re.search(r"at 127\.0\.0\.1:(2\d{4}|3[012]\d{3})$", job.log, re.MULTILINE), job.log
        reports = [json.loads(p.read_text()) for p in job.folder.glob("agent.r0.*.json")]
        assert sorted((r["node"], r["check"], r["code"]) for r in reports) == [(n, "passed", 0) for n in slurm.cluster.nodes]


def went_on(job: Submitted, calm: str, times: int = 1) -> None:
    """The job stopped, all ranks after the same step, and resumed from exactly there to the undisturbed run's weights."""
    assert job.end() == ("COMPLETED", times), job.log
    assert job.weights == calm
    stops = re.findall(r"stopped rank=\d step=(\d+)", job.log)
    starts = re.findall(r"start rank=\d size=2 step=(\d+)", job.log)
    assert starts == ["0", "0", *stops], job.log
    assert len(stops) == 2 * times
    assert stops[::2] == stops[1::2]


def preempt(slurm: Jobs) -> None:
    """A job of a higher partition wants all nodes."""
    slurm.cluster.run("sbatch", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")


def test_requeue_and_preemption_save_and_go_on(slurm: Jobs, calm: str) -> None:
    both = slurm.both(partition="low", run={"steps": STEPS, "workers": 1, "every": 1000, "hold": 2})
    by_sbatch, by_submitit = both
    assert "is requeued" in control.requeue(by_sbatch.training().id)
    # what Slurm sends when the time limit is near; submitit then calls checkpoint
    slurm.cluster.run("scancel", "--signal=USR2", by_submitit.training().id)
    for job in both:
        job.training(1)
    preempt(slurm)
    for job in both:
        went_on(job, calm, times=2)
    assert re.search(r"job: saved [\d.]+ s after the signal", by_submitit.log), by_submitit.log


def test_taken_ports_are_passed_over(slurm: Jobs) -> None:
    """Another job's store and a service that says nothing hold the ports that the job would take first."""
    job = slurm.gloo(extra={"begin": "now+3"}, run={"steps": 2})
    ports = rendezvous.candidate_ports(f"{job.id}.0")
    foreign, _ = rendezvous.open_store(ports[:1])
    with socket.create_server(("", ports[1])):
        assert job.end() == ("COMPLETED", 0), job.log
    assert f"at 127.0.0.1:{ports[2]}\n" in job.log
    assert "start rank=0 size=2" in job.log
    del foreign


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_preemption_without_grace_saves_and_continues(slurm: Jobs, calm: str) -> None:
    job = slurm.gloo(partition="rude", run={"steps": STEPS, "workers": 1, "every": 1000, "hold": 1}).training()
    preempt(slurm)
    went_on(job, calm)


def test_scancel_saves_and_is_final(slurm: Jobs) -> None:
    both = [job.training() for job in slurm.both(run={"steps": 1000, "workers": 1, "every": 1000})]
    slurm.cluster.run("scancel", *(job.id for job in both))
    for job in both:
        assert job.end() == ("CANCELLED", 0), job.log
        wait_for("save", lambda job=job: job.status == "stopped", 30)


@pytest.mark.slow
def test_cancel_waits_for_a_slow_save(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm itself leaves KillWait, 2 s here; this save takes longer."""
    need_slurm()
    with PrivateSlurm(kill_wait=2) as own, Jobs(own, code, tmp_path, monkeypatch) as place:
        job = place.gloo(way=submitit, run={"steps": 1000, "save_s": 5, "every": 1000}).training()
        assert "saves" in control.cancel(job.id)
        assert job.end() == ("CANCELLED", 0), job.log
        assert job.status == "stopped"
        assert "already ended (CANCELLED)" in control.cancel(job.id)
        slow = place.gloo("slow", nodes=1, run={"steps": 1000, "save_s": 600, "every": 1000}).training()
        own.run("scontrol", "requeue", slow.id)
        slow.until("start 1 of job")
        end = json.loads((slow.folder / "ends.json").read_text())["0"]
        assert (end["kind"], end["signal"]) == ("unsaved", "SIGTERM")  # nothing crashed


def test_a_stop_before_any_rank_is_heard(slurm: Jobs) -> None:
    """Slurm delivers a signal only to steps, and there is none yet."""
    both = slurm.both(nodes=1, setup=("sleep 5",), run={"steps": 3})
    for job in both:
        wait_for("start", lambda job=job: job.show()["JobState"] == "RUNNING")
    assert "is requeued" in control.requeue(both[0].id)
    assert "is cancelled" in control.cancel(both[1].id)
    assert both[1].end() == ("CANCELLED", 0), both[1].log
    assert both[0].end() == ("COMPLETED", 1), both[0].log
    assert both[0].log.count("start rank=0") == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scontrol_requeue_saves_and_continues(slurm: Jobs, calm: str) -> None:
    both = [job.training() for job in slurm.both(run={"steps": STEPS, "every": 1000, "hold": 1})]
    for job in both:
        slurm.cluster.run("scontrol", "requeue", job.id)
    for job in both:
        went_on(job, calm)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lost", [0, 1])
def test_lost_node_leads_to_a_new_start(slurm: Jobs, calm: str, lost: int) -> None:
    """The first node runs the batch script. Slurm itself would take SlurmdTimeout to find it dead: an operator is quicker."""
    job = slurm.gloo(run={"steps": STEPS, "every": 1, "hold": 1}).training()
    node = slurm.cluster.nodes[lost]
    slurm.cluster.cut_off(node)
    slurm.cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    slurm.cluster.boot(node)
    slurm.cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    assert job.end() == ("COMPLETED", 1), job.log
    assert job.weights == calm
    starts = re.findall(r"start rank=\d size=2 step=(\d+)", job.log)
    assert starts[:2] == ["0", "0"] != starts[2:], job.log


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_node_that_lost_its_processes_and_answers_again(slurm: Jobs, calm: str) -> None:
    """Slurm misses nothing: the agent of the other node does."""
    job = slurm.gloo(run={"steps": STEPS, "every": 1, "hold": 1}).training()
    slurm.cluster.cut_off(slurm.cluster.nodes[1])
    slurm.cluster.boot(slurm.cluster.nodes[1])
    assert job.end(400) == ("COMPLETED", 1), job.log
    assert f"agent: waiting for {slurm.cluster.nodes[1]}" in job.log
    assert f"agent: {slurm.cluster.nodes[1]} was silent for 60 s" in job.log
    assert re.search(r"job: lost at step \d+", job.log), job.log
    assert job.weights == calm


def test_crash_loop_ends_and_chains_are_true(slurm: Jobs) -> None:
    job = slurm.gloo(way=submitit, max_crashes=1, max_restarts=0, run={"fail": 1, "fails": "always"})
    chained = {"dependency": f"afterok:{job.id}", "kill-on-invalid-dep": "yes"}
    after = slurm.gloo("after", nodes=1, extra=chained)
    assert job.end() == ("FAILED", 1), job.log
    assert "it crashed 2 times without a new checkpoint" in job.log
    failure = logs.root_failure(job.folder / "logs")
    assert failure
    assert (failure[0].rank, "rank 1 was told to fail" in failure[1]) == (1, True)
    names = sorted(p.name for p in (job.folder / "logs").glob("*.log"))
    assert [n.split(".")[0] for n in names] == ["r0", "r0", "r1", "r1"]
    assert {n.split(".")[2] for n in names} == set(slurm.cluster.nodes)
    assert after.end()[0] == "CANCELLED"


def test_exit_statuses_of_a_stop_and_a_mistake(slurm: Jobs) -> None:
    stopped = slurm.gloo("stopped", max_stops=0, run={"steps": 1000})
    mistake = slurm.gloo("mistake", run={"mistake": 1})
    control.requeue(stopped.training().id)
    assert stopped.end() == ("FAILED", 0), stopped.log
    assert (stopped.status, stopped.show()["ExitCode"]) == ("stopped", "75:0")
    assert "it was stopped 1 time and slurm.max_stops is 0" in stopped.log
    assert mistake.end() == ("FAILED", 0), mistake.log
    assert mistake.show()["ExitCode"] == "2:0"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ended_job_continues_when_it_is_requeued(slurm: Jobs, calm: str) -> None:
    both = [job.training() for job in slurm.both(max_stops=0, run={"steps": STEPS, "hold": 1, "every": 1000})]
    for job in both:
        control.requeue(job.id)
    for job in both:
        assert job.end()[0] == "FAILED", job.log
        assert "is requeued" in control.requeue(job.id)
        wait_for("queue", lambda job=job: job.show()["JobState"] not in ENDED)
    for job in both:
        went_on(job, calm)


def test_killed_rank_restarts_in_place(slurm: Jobs, calm: str) -> None:
    job = slurm.gloo(max_restarts=1, run={"steps": STEPS, "every": 1, "hold": 1}).training()
    os.kill(int((job.run / "pid.1").read_text().split()[0]), signal.SIGKILL)
    (job.run / "go").touch()
    assert job.end() == ("COMPLETED", 0), job.log
    assert job.weights == calm
    again = [p.read_text() for p in (job.folder / "logs").glob("r0.a1.*.log")]
    steps = [re.findall(r"start rank=\d size=2 step=(\d+)", text) for text in again]
    assert len(steps) == 2, job.log
    assert steps[0] == steps[1] != ["0"], job.log


def test_job_without_a_fit_node_ends(slurm: Jobs) -> None:
    """No torch here sees a GPU: the pre-flight fails on the only node that the job may have."""
    job = slurm.gloo(nodes=1, check=True, gpus_per_node=2, exclude=slurm.cluster.nodes[1], run={"steps": 3})
    assert job.end() == ("FAILED", 0), job.log
    assert f"[{slurm.cluster.nodes[0]}] pre-flight: bad machine: 0 GPUs of 2" in job.log
    assert re.search(r"not requeued: without \S+ \S+, partition main has 0 of the 1 machines that are needed", job.log)


def test_bad_node_is_excluded(slurm: Jobs) -> None:
    """The job could go to either node; the pre-flight says that the one it went to first is bad."""
    command = f'test ! -e {slurm.folder}/bad -a "$SLURMD_NODENAME" || {{ echo no scratch disk >&2; false; }}'
    (slurm.folder / "bad").touch()
    job = slurm.gloo(nodes=1, check=True, check_command=command, run={"steps": 3})
    job.until("requeued, without")
    (slurm.folder / "bad").unlink()
    assert job.end() == ("COMPLETED", 1), job.log
    first = re.search(r"\[(\S+)\] pre-flight: bad machine: check_command: status 1 no scratch disk", job.log)
    assert first, job.log
    shown = job.show()
    assert shown["ExcNodeList"] == first[1] != shown["NodeList"]


@pytest.mark.slow
@pytest.mark.parametrize("tracker", trackers()[1:2])
def test_save_under_another_tracker(tracker: str, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cgroup (root's) and pgid send a signal to the agents only, linuxproc to the whole tree, loader workers included.

    An ordinary user has linuxproc and pgid (see test_as_an_ordinary_user).
    """
    need_slurm()
    with PrivateSlurm(tracker=tracker) as cluster, Jobs(cluster, code, tmp_path, monkeypatch) as place:
        job = place.gloo(run={"steps": 1000, "workers": 2, "every": 1000}).training()
        cluster.run("scancel", job.id)
        assert job.end() == ("CANCELLED", 0), job.log
        wait_for("save", lambda: job.status == "stopped", 30)
        pids = [int((job.run / f"pid.{r}").read_text().split()[0]) for r in (0, 1)]
        wait_for("end of the ranks", lambda: not any(Path(f"/proc/{p}").exists() for p in pids), 30)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_time_limit_saves_and_continues(slurm: Jobs, calm: str) -> None:
    """Slurm looks at time limits every 30 s and sends the signal 30 s early: 40 to 70 s after a start; the second needs 20."""
    for job in slurm.both(time="2:00", signal_s=50, run={"steps": STEPS, "every": 1000, "hold": 1}):
        went_on(job, calm)
