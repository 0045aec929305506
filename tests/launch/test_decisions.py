"""What is decided without Slurm and without ranks: settings, budgets, refusals, scripts, logs."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from job_config import SMALL

from ddptrain.cli import main
from ddptrain.config import SlurmConfig, resolve
from ddptrain.config.slurm import RESERVED, minutes
from ddptrain.errors import UserError
from ddptrain.system.status import write_status
from launch import batch, cluster, control, job, logs, sbatch, submission
from launch.job import Job
from launch.plan import Plan, threads_per_rank

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(login_config: Path) -> Path:
    return login_config


def made(folder: Path, **slurm: Any) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    return Job("n", str(folder), str(folder), "m", ("train",), "/", SlurmConfig(**slurm).model_dump(mode="json"), 1, "p", "p")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90:30", 90.5), ("24:00:00", 1440), ("1-12", 2160), ("1-00:30", 1470), ("2-01:02:30", 2942.5)],
)
def test_time_notations_of_slurm(text: str, expected: float) -> None:
    assert minutes(text) == expected


def test_wrong_slurm_keys_are_reported_in_one_line() -> None:
    for overrides, said in (
        (["slurm.time=tomorrow"], "hours:minutes:seconds"),
        (["slurm.node=2"], "did you mean nodes?"),
        (['slurm.extra={"signal": "USR1@10"}'], "set by the launcher"),
        (['slurm.extra={"nodes": 3}'], r"nodes has a key of its own; set slurm\.nodes instead"),
        (['slurm.extra={"comment": "a\\nb"}'], "one line of printable text"),
        (['slurm.partition="gpu\\n#SBATCH --nodes=9"'], r"slurm\.partition: .* one line of printable text"),
        (["slurm.qos=' '"], "must be one line of printable text, and not empty"),
    ):
        with pytest.raises(UserError, match=said) as e:
            resolve(SMALL, overrides)
        assert "\n" not in str(e.value)
    assert [resolve(SMALL, [f"slurm.time={t}"]).slurm.time for t in ("24:00:00", "30")] == ["24:00:00", "30"]


@pytest.mark.parametrize(
    ("time", "signal_s", "said"),
    [
        ("2:00", 120, "a time limit of 120 s leaves no time to train.* slurm.signal_s of at most 60"),
        ("2:59", 120, "of at most 119"),
        ("1:00", 10, "set a slurm.time of more than 60 s"),
        ("3:00", 120, None),
        ("2:00", 60, None),
        ("0", 65535, None),  # no limit
    ],
)
def test_a_time_limit_leaves_time_to_train(time: str, signal_s: int, said: str | None) -> None:
    if said is None:
        assert resolve(SMALL, [f"slurm.time={time}", f"slurm.signal_s={signal_s}"]).slurm.time == time
        return
    with pytest.raises(UserError, match=rf"slurm\.time: .*{said}"):
        resolve(SMALL, [f"slurm.time={time}", f"slurm.signal_s={signal_s}"])


def test_options_come_before_config_before_user_file(config: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "ddptrain").mkdir(parents=True)
    (tmp_path / "home" / "ddptrain" / "slurm.yaml").write_text("partition: users\nnodes: 7\naccount: users\n")
    slurm = submission.load(config, ["slurm.partition=overridden"], {"account": "option"}).slurm
    assert (slurm.partition, slurm.nodes, slurm.account) == ("overridden", 1, "option")
    (tmp_path / "home" / "ddptrain" / "slurm.yaml").write_text("partitions: users\n")
    with pytest.raises(UserError, match="did you mean partition"):
        submission.load(config, [], {})


def test_entries_of_settings_are_merged_one_by_one(config: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "ddptrain").mkdir(parents=True)
    (tmp_path / "home" / "ddptrain" / "slurm.yaml").write_text("extra: {comment: users, mail-type: END}\nenv: {A: users}\n")
    config.write_text(yaml.safe_dump(SMALL | {"slurm": SMALL["slurm"] | {"extra": {"comment": "file"}, "env": {"B.C": "1"}}}))
    slurm = submission.load(config, [], {"extra": {"exclusive": True}, "env": {"B": "2"}, "srun": {"mpi": "none"}}).slurm
    assert slurm.extra == {"comment": "file", "mail-type": "END", "exclusive": True}
    assert slurm.env == {"A": "users", "B.C": "1", "B": "2"}
    assert submission.load(config, [], {}).slurm.extra == {"comment": "file", "mail-type": "END"}


def test_options_of_the_printed_script_are_quoted(tmp_path: Path) -> None:
    assert "#SBATCH --comment='two words'\n" in sbatch.render(made(tmp_path, extra={"comment": "two words"}))


def test_a_requeue_takes_a_cancel_back(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = submission.create(config)
    job.register(mine, "17")
    monkeypatch.setattr(cluster, "job_state", lambda number: cluster.JobState("RUNNING"))
    monkeypatch.setattr(cluster, "call", lambda *command: "")
    control.cancel("17")
    assert (mine.path / batch.CANCEL).exists()
    assert "saves, then is requeued" in control.requeue("17")
    assert not (mine.path / batch.CANCEL).exists()


def test_an_environment_variable_has_a_value(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(config), "--dry-run", "--env", "NAME"]) == 2
    assert "--env NAME: write NAME=value" in capsys.readouterr().err


def test_a_dependency_is_not_lost_beside_another(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["--slurm", "dependency=singleton"], ["slurm.extra.dependency=singleton"]):
        assert main(["submit", str(config), "--dry-run", "--through", "sbatch", "--after", "12", *given]) == 2
        assert "give one dependency" in capsys.readouterr().err
    options = {"extra": {"dependency": "afterok:12"}}
    assert submission.load(config, ["slurm.extra.dependency=false"], options).slurm.extra == options["extra"]


def test_job_folder_holds_all_a_start_needs(config: Path) -> None:
    mine = submission.create(config, ["train.steps=8"], {"nodes": 3})
    config.write_text("broken: after submission")
    assert job.read(mine.path) == mine
    assert mine.arguments == ("train", f"{mine.folder}/config.yaml", "train.steps=8", "resume=auto")
    assert yaml.safe_load((mine.path / "config.yaml").read_text()) == SMALL
    assert (mine.path / "code" / "launch" / "agent.py").read_text() == (ROOT / "launch" / "agent.py").read_text()
    assert mine.options.nodes == 3
    job.register(mine, "17")
    assert job.find("17") == job.find(mine.folder) == mine
    assert job.all_jobs() == [mine]
    with pytest.raises(UserError, match="known: 17"):
        job.find("18")
    submission.discard(mine)
    with pytest.raises(UserError, match=r"job 17: its folder .* is gone"):
        job.find("17")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.val.0.root=elsewhere"], r"data\.val\.0\.root: d: .*/elsewhere does not exist"),
        (["train.global_batch=7", "slurm.nodes=2"], "set it to 8, the nearest that does with train.micro_batch=4"),
        (["optimiser.lr=1"], "did you mean optimizer"),
        (["data.train.0.depth=maps"], r"data\.train\.0\.depth: d: .*/data/maps does not exist"),
        (["init_from=runs/before"], r"init_from: .*/runs/before does not exist; give a run folder"),
        (["resume=gone.pt"], r"resume: .*/gone\.pt does not exist"),
        (["slurm.setup=['if true; then', 'fi']"], r"slurm\.setup\.0: 'if true; then' is not a complete shell command"),
        (["slurm.setup=['true', 'echo \"a']"], r"slurm\.setup\.1: .* give each command an entry"),
        (["slurm.setup=['export A=1 \\']"], r"slurm\.setup\.0: .* is not a complete shell command"),
        (["slurm.setup=['cat <<EOF']"], r"slurm\.setup\.0: .* is not a complete shell command"),
    ],
)
def test_refusals_leave_nothing_behind(config: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        submission.create(config, overrides)
    assert not Path("runs").exists()


def test_a_resumed_run_needs_no_init_from(config: Path, tmp_path: Path) -> None:
    loaded = resolve(SMALL, ["init_from=gone", "resume=auto"])
    with pytest.raises(UserError, match="init_from"):
        submission.check_starts(loaded.resume, loaded.init_from, loaded.folder)
    (loaded.folder / "checkpoints").mkdir(parents=True)
    (loaded.folder / "checkpoints" / "step_1.pt").touch()
    submission.check_starts(loaded.resume, loaded.init_from, loaded.folder)


def test_budgets(tmp_path: Path) -> None:
    def over(*kinds: tuple[str, int]) -> bool:
        mine = made(tmp_path / "j", max_stops=2, max_crashes=2)
        (mine.path / "ends.json").unlink(missing_ok=True)
        for restart, (kind, step) in enumerate(kinds):
            batch.note_end(mine.path, restart, kind, step)
        return batch.over_budget(mine) is not None

    assert not over(("stopped", 1), ("stopped", 2))
    assert over(("stopped", 1), ("stopped", 2), ("stopped", 3))
    assert not over(*[("crashed", s) for s in range(50)])  # it gets on
    assert over(("crashed", 5), ("crashed", 5), ("lost", 5))
    assert over(("unsaved", 5), ("crashed", 5), ("unsaved", 5))
    assert not over(("crashed", 5), ("crashed", 5), ("crashed", 6), ("crashed", 6))
    assert not over(("crashed", 5), ("stopped", 9), ("crashed", 9), ("crashed", 9))
    assert over(("bad node", 0), ("bad node", 0), ("bad node", 0))
    assert not over(("bad node", 0), ("bad node", 0), ("stopped", 3), ("stopped", 4), ("crashed", 4), ("crashed", 4))


NO_CODE: dict[str, Any] = {}


STOP = {"signal": "SIGTERM"}


@pytest.mark.parametrize(
    ("state", "code", "agents", "kind"),
    [
        ("finished", 0, (0, None), "finished"),
        ("finished", 138, (0, 0), "finished"),  # Slurm's signal met an agent after its report
        ("finished", 138, (0, None), "crashed"),
        ("finished", 1, (0, 1), "crashed"),  # the last save failed, say
        ("running", 138, (0, 0), "crashed"),
        ("stopped", 138, (0, None), "stopped"),
        ("failed", 2, (2, None), "mistake"),
        ("running", 137, (NO_CODE, STOP), "unsaved"),  # Slurm's KillWait was shorter than the save
        ("running", 1, (STOP | {"code": 1}, None), "unsaved"),  # grace_s was
        ("running", 1, ({"lost": ["n1"], "code": 1}, NO_CODE), "lost"),
        ("running", 75, (), "stopped"),  # a stop came before any agent was started
        ("failed", 1, ({"code": 1}, None), "crashed"),
    ],
)
def test_a_start_is_judged_by_run_and_agents(
    tmp_path: Path, state: Any, code: int, agents: tuple[int | dict[str, Any] | None, ...], kind: str
) -> None:
    mine = made(tmp_path / "j")
    batch.plan_path(mine.path, 0).write_text(Plan("m", ("train",), addresses={"n0": "a", "n1": "b"}).dumps())
    (mine.path / "status_before.r0").write_text("")
    write_status(Path(mine.run), state, 8, 8)
    for i, told in enumerate(agents):
        facts = {"code": told} if isinstance(told, int) else told or {}
        (mine.path / f"agent.r0.n{i}.json").write_text(json.dumps({"node": f"n{i}"} | facts))
    assert batch.judge(mine, 0, code)[0] == kind


def test_the_first_note_of_a_start_stands(tmp_path: Path) -> None:
    batch.note_end(tmp_path, 0, "stopped", 7)
    batch.note_end(tmp_path, 0, "lost", 0)
    assert batch.ends(tmp_path)["0"]["kind"] == "stopped"


def test_jobs_tell_how_a_run_ended_that_had_no_time_to(config: Path) -> None:
    mine = submission.create(config)
    job.register(mine, "17")
    write_status(Path(mine.run), "running", 4, 8)
    assert control.table().splitlines()[1].split()[:5] == ["17", "small", "running", "4/8", "unknown"]
    batch.note_end(mine.path, 0, "bad node", 4, ["n3"])
    assert re.match(r"17 +small +bad node +4/8 +unknown +0 .* n3$", control.table().splitlines()[1])
    write_status(Path(mine.run), "stopped", 5, 8, "SIGUSR1")
    (mine.path / "agent.r1.n3.json").write_text(json.dumps({"node": "n3", "signal": "SIGTERM", "code": 0}))
    batch.note_end(mine.path, 1, "stopped", 5)
    assert control.table().splitlines()[1].endswith("SIGTERM")


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        (["false"], 2, "ddptrain: error: slurm.setup: 'false' failed with status 1; correct the command"),
        (["module load 'cuda'"], 2, "slurm.setup: \"module load 'cuda'\" failed with status 127"),
        (["false; true  # a remark", "X=1\nif [ $X = 2 ]; then\n  false\nfi", 'export SET_UP="a b"'], 0, "went on: a b"),
        (["exit 7"], 7, ""),
    ],
)
def test_a_setup_line_that_fails_ends_the_job(lines: list[str], status: int, said: str) -> None:
    program = "\n".join([*sbatch.setup(lines), 'echo "went on: $SET_UP"'])
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert ("went on" in done.stdout) == (status == 0)


def test_script_has_no_unsafe_word(tmp_path: Path) -> None:
    """bash parses the script as meant whatever stands in the paths."""
    nasty = "a b'c\"d$HOME;touch x`y`\n&|>#é%j\\"
    mine = replace(made(tmp_path / nasty), python=f"/{nasty}/python", agent_python=f"/{nasty}/python")
    text = sbatch.text(mine)
    shown = text.replace("exec ", "printf '%s\\0' exec ").replace(" || exit", "")
    last = shown.split("\nrc=$?\n")[1]
    done = subprocess.run(["bash", "-c", f"rc=3\n{last}"], capture_output=True, check=True)
    expected = ["exec", mine.python, "-m", "launch.batch", "finish", mine.folder, "3"]
    assert done.stdout.decode().split("\0")[:-1] == expected
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert sbatch.options(mine)["output"] == "/dev/null"


def test_scripts_pass_shellcheck(tmp_path: Path) -> None:
    rendered = tmp_path / "script.sh"
    rendered.write_text(sbatch.text(made(tmp_path / "j")))
    try:
        done = subprocess.run(
            ["shellcheck", *map(str, sorted((ROOT / "slurm").glob("*.sbatch"))), str(rendered)], capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("no shellcheck here: apt-get install shellcheck")
    assert done.returncode == 0, done.stdout.decode()


def test_one_task_and_all_gpus_per_machine(tmp_path: Path) -> None:
    given = sbatch.options(made(tmp_path, nodes=2, gpus_per_node=8, extra={"reservation": "r", "exclusive": True}))
    assert (given["ntasks-per-node"], given["gpus-per-node"], given["nodes"]) == (1, 8, 2)
    assert not {"gpus-per-task", "gpus"} & set(given)
    assert (given["reservation"], given["exclusive"]) == ("r", True)
    assert "--exclusive" in sbatch.arguments(made(tmp_path, extra={"exclusive": True}))
    assert {"signal", "output", "ntasks-per-node"} <= set(RESERVED)


def test_variables_of_a_surrounding_job_are_stripped() -> None:
    environ = dict.fromkeys(
        ("SLURM_JOB_ID", "SLURM_CONF", "SRUN_CPUS_PER_TASK", "RANK", "LOCAL_RANK", "MASTER_ADDR", "SUBMITIT_EXECUTOR",
         "SBATCH_ACCOUNT", "NCCL_DEBUG", "GLOO_SOCKET_IFNAME", "HOME", "RANKING"), "x"
    )  # fmt: skip
    kept = set(environ) - set(cluster.inside_job(environ))
    assert kept == {"SLURM_CONF", "SBATCH_ACCOUNT", "NCCL_DEBUG", "GLOO_SOCKET_IFNAME", "HOME", "RANKING"}


def test_what_slurm_says_is_one_line() -> None:
    said = "sbatch: error: invalid partition specified: no\nsbatch: error: Batch job submission failed: Invalid partition\n\n"
    assert cluster.plain(said) == "invalid partition specified: no; Batch job submission failed: Invalid partition"
    assert cluster.JobState("RUNNING", limit="1-00:00:10").limit_s == 86410
    assert cluster.JobState("RUNNING", limit="UNLIMITED").limit_s == 0


@pytest.mark.parametrize(("inside", "said"), [(True, "JobState=RUNNING"), (False, "Socket timed out")])
def test_busy_controller_is_asked_again_inside_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool, said: str
) -> None:
    program = tmp_path / "scontrol"
    program.write_text(
        f"#!/bin/sh\nif [ ! -e {tmp_path}/asked ]; then touch {tmp_path}/asked\n"
        "echo 'slurm_load_jobs error: Socket timed out on send/recv operation' >&2; exit 1; fi\necho '   JobState=RUNNING'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if inside:
        monkeypatch.setenv("SLURM_JOB_ID", "1")
        assert said in cluster.call("scontrol", "show", "job", "1")
    else:
        with pytest.raises(UserError, match=said):
            cluster.call("scontrol", "show", "job", "1")


def test_threads_are_shared_out() -> None:
    assert threads_per_rank(4, {"SLURM_CPUS_PER_TASK": "32"}) == 8
    assert threads_per_rank(64, {"SLURM_CPUS_PER_TASK": "32"}) == 1


def test_plan_survives_its_file() -> None:
    plan = Plan("m", ("train", "a b\n'c'"), nproc=3, env={"A": "b"}, ports=(1, 2), addresses={"n": "1.2.3.4"}, logs="x")
    assert Plan.loads(plan.dumps()) == plan


def test_merged_logs_and_the_rank_that_failed_first(tmp_path: Path) -> None:
    (tmp_path / "r0.a0.n.1.rank0.log").write_text("one\ntwo")
    tail, out = logs.Tail(tmp_path, "r0.*.log"), io.StringIO()
    tail.show(out)
    with open(tmp_path / "r0.a0.n.1.rank0.log", "a") as f:
        f.write(" and a half\n")
    (tmp_path / "r0.a0.n.2.rank11.log").write_text("last")
    tail.show(out)
    tail.show(out, end=True)
    assert out.getvalue() == "[0] one\n[0] two and a half\n[11] last\n"
    (tmp_path / "r0.a0.n.1.rank0.failed").write_text(json.dumps({"time": 5.0, "error": "peer gone"}))
    logs.note_failure(tmp_path, 0, "n.2", 11, "killed by SIGKILL")
    found = logs.root_failure(tmp_path)
    assert found
    assert (found[0].rank, found[0].node, found[1]) == (11, "n.2", "killed by SIGKILL")


NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "cv2", "numpy"):
            raise ImportError(f"{name} is not on a login node")
sys.meta_path.insert(0, Refuse())
from ddptrain.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("through", ["submitit", "sbatch"])
def test_dry_run_on_a_login_node_without_torch(config: Path, through: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    if through == "submitit":  # submitit wants srun to be there, and itself imports numpy where it can
        binaries = config.parent / "bin"
        binaries.mkdir()
        (binaries / "srun").touch(0o755)
        monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
    command = [sys.executable, "-c", NO_TORCH, "submit", str(config), "--nodes", "3", "--through", through, "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "#SBATCH --nodes=3" in done.stdout, done.stdout + done.stderr
    assert "launch.batch prepare" in done.stdout
    assert not Path("runs").exists()
    refused = subprocess.run([*command[:5], "train.global_batch=7", *command[5:]], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "set it to 12, the nearest that does with train.micro_batch=4" in refused.stderr
