"""What a user does at a login node: submit, look, cancel, sweep; and what the job then really runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from private_slurm import wait_for
from slurm_jobs import Jobs, Submitted

from launch import job, sbatch, source, submitit

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
WAYS = pytest.mark.parametrize("way", [sbatch, submitit], ids=["sbatch", "submitit"])
ROOT = source.source_root()


def ddptrain(*arguments: object, code: int = 0) -> str:
    """What the command prints."""
    done = subprocess.run([sys.executable, "-m", "ddptrain", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic images in Pascal VOC form."""
    from ddptrain.data.synthetic.scenes import write_demo

    folder = tmp_path_factory.mktemp("scenes")
    write_demo(folder, 16)
    return folder / "streets"


@pytest.fixture
def config(slurm: Jobs, scenes: Path) -> Path:
    """A run of the real engine that takes seconds."""
    dataset = {"name": "streets", "format": "voc", "root": str(scenes)}
    values = {
        "name": "tiny", "classes": ["car", "bus"],
        "data": {
            "train": [dataset | {"split": "train"}], "val": [dataset | {"split": "val"}], "image_size": 64, "workers": 0,
        },
        "train": {"steps": 6, "global_batch": 4, "micro_batch": 2, "device": "cpu"},
        "eval": {"every_epochs": None}, "monitor": {"tensorboard": False, "images": 0},
        "checkpoint": {"every_steps": 1},
        "slurm": {"nodes": 2, "gpus_per_node": 0, "time": "20:00", "check": False},
    }  # fmt: skip
    path = slurm.folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def submitted(slurm: Jobs, said: str) -> Submitted:
    number = re.search(r"^job (\d+)", said, re.MULTILINE)
    assert number, said
    return Submitted(slurm.cluster, job.find(number[1]), number[1])


def test_submit_watch_and_read(slurm: Jobs, config: Path) -> None:
    """The whole way of a user, with the real engine."""
    script = ddptrain("submit", config, "--time", "30:00", "--dry-run")
    assert "#SBATCH --time=30:00" in script
    assert "to start at" in script.splitlines()[-1]  # Slurm's own judgement
    assert "invalid partition" in ddptrain("submit", config, "--partition", "no", "--dry-run", code=2)
    assert "set it to 4, the nearest that does with train.micro_batch=2" in ddptrain(
        "submit", config, "train.global_batch=3", code=2
    )
    for through in ("submitit", "sbatch"):
        wrong = ddptrain("submit", config, "name=refused", "--through", through, "--partition", "no", code=2)
        assert re.fullmatch(r"ddptrain: error: sbatch: invalid partition specified: no; [^\n]*\n", wrong)
    assert "generic resource" in ddptrain("sweep", config, "--seeds", 2, "--slurm", "gres=no:1", code=2)
    assert not (slurm.folder / "runs").exists()
    said = ddptrain("submit", config, "--slurm", "begin=now+6")
    assert re.search("PENDING|RUNNING", ddptrain("jobs"))
    mine = submitted(slurm, said)
    again = ddptrain("submit", config, code=2)
    assert re.search(rf"job {mine.id} \((PENDING|RUNNING)\) is already training this run", again)
    assert f"cancel it with `ddptrain cancel {mine.id}`" in again
    broken = submitted(slurm, ddptrain("submit", config, "name=broken", "--nodes", 1, "--setup", "module load no"))
    after = submitted(slurm, ddptrain("submit", config, "name=after", "--after", mine.id))
    assert after.show()["Dependency"].startswith(f"afterok:{mine.id}")
    assert "is cancelled" in ddptrain("cancel", after.id)
    assert mine.folder.as_posix() in said
    assert mine.end() == ("COMPLETED", 0), mine.log
    assert broken.end() == ("FAILED", 0), broken.log
    assert broken.show()["ExitCode"] == "2:0"
    assert re.search(r"\bbroken .* slurm\.setup: 'module load no' failed with status 127", ddptrain("jobs"))
    line = ddptrain("jobs").splitlines()[1].split()
    assert line[:6] == [mine.id, "tiny", "finished", "6/6", "COMPLETED", "1"]
    # from another run's checkpoint, for which `submit` has made the new run's folder already
    onward = ["name=onward", f"resume={mine.run}", "train.steps=8", "resume.allow=[seed]", "seed=1", "--nodes", 1]
    further = submitted(slurm, ddptrain("submit", config, *onward))
    logs = ddptrain("logs", mine.id)
    assert "finished (srun: 0)" in logs
    assert "start 0.0" in ddptrain("logs", mine.id, "--rank", 1)
    assert "has already ended" in ddptrain("cancel", mine.id)
    assert further.end() == ("COMPLETED", 0), further.log
    assert "8/8" in ddptrain("jobs")
    assert "start 0.0" in ddptrain("logs", further.id, "--rank", 0)
    described = json.loads((mine.folder / "code.json").read_text())
    assert set(described) == {"root", "commit", "edited"}


def test_sbatch_by_hand_and_evaluation(slurm: Jobs, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPTRAIN_PYTHON", sys.executable)
    options = ["--parsable", "-N2", "--cpus-per-task=2", "-o", str(slurm.folder / "out-%j.txt")]
    number = subprocess.run(
        ["sbatch", *options, str(ROOT / "slurm" / "train.sbatch"), str(config), "train.steps=3"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    wait_for("job folder", (job.registry() / number).exists, 120)
    mine = Submitted(slurm.cluster, job.find(number), number)
    assert mine.end() == ("COMPLETED", 0), mine.log
    assert "2 x 1 ranks" in mine.log
    assert str(mine.folder / "log.txt") in (slurm.folder / f"out-{number}.txt").read_text()
    options[1] = "-N1"
    number = subprocess.run(
        ["sbatch", *options, str(ROOT / "slurm" / "eval.sbatch"), str(mine.run)], check=True, capture_output=True, text=True
    ).stdout.strip()
    wait_for("job folder", (job.registry() / number).exists, 120)
    evaluation = Submitted(slurm.cluster, job.find(number), number)
    assert evaluation.end() == ("COMPLETED", 0), evaluation.log
    assert "AP" in evaluation.log


def test_sweep_is_one_array_and_leaves_a_table(slurm: Jobs, config: Path) -> None:
    said = ddptrain("sweep", config, "train.steps=2", "--grid", "optimizer.lr=0.01,0.02", "--nodes", 1, "--parallel", 2)
    number = re.search(r"^job (\d+): 2 runs, configs in (.*)$", said, re.MULTILINE)
    assert number, said
    folder = Path(number[2])
    shown = slurm.cluster.run("scontrol", "show", "job", number[1])
    assert len(re.findall(r"^JobId=", shown, re.MULTILINE)) <= 2
    assert "ArrayTaskThrottle=2" in shown
    wait_for(
        "table of both", lambda: (folder / "table.md").exists() and (folder / "table.md").read_text().count("1/1") == 2, 300
    )
    assert [line.split("|")[1].strip() for line in (folder / "table.md").read_text().splitlines()[2:]] == ["0.01", "0.02"]
    assert ddptrain("sweep", folder, "--table").startswith((folder / "table.md").read_text())  # the verdicts stand below it
    assert ddptrain("jobs").count("finished") == 2


@pytest.mark.slow
def test_array_by_hand_runs_a_config_per_index(slurm: Jobs, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPTRAIN_PYTHON", sys.executable)
    for i in (0, 1):
        values = yaml.safe_load(config.read_text()) | {"name": f"run-{i}"}
        (slurm.folder / f"{i}.yaml").write_text(yaml.safe_dump(values))
    number = slurm.cluster.run(
        "sbatch", "--parsable", "-N1", "--array=0-1%2", "-o", "/dev/null", str(ROOT / "slurm" / "array.sbatch"),
        str(slurm.folder), "train.steps=2",
    )  # fmt: skip
    assert "ArrayTaskThrottle=2" in slurm.cluster.run("scontrol", "show", "job", number)
    wait_for("end of both", lambda: ddptrain("jobs").count("finished  2/2") == 2, 300)
    assert f"{number}_1" in ddptrain("jobs")


@WAYS
def test_any_path_and_value_arrives(slurm: Jobs, way: ModuleType) -> None:
    nasty = "a b'c\"d$HOME;touch x`y`\n&|>#é\\ 100%"
    here = slurm.folder / nasty
    here.mkdir()
    mine = slurm.gloo(f"{nasty}/run", way=way, nodes=1, run={"steps": 2, "note": nasty}, env={"NASTY": nasty})
    assert mine.end() == ("COMPLETED", 0), mine.log
    assert f"note={nasty!r}" in mine.log
    assert not (slurm.folder / "x").exists()
    assert not (here / "x").exists()


@WAYS
def test_edit_after_submission_does_not_arrive(slurm: Jobs, way: ModuleType) -> None:
    repo = slurm.folder / "repo"
    for package in ("ddptrain", "launch"):
        shutil.copytree(ROOT / package, repo / package, ignore=shutil.ignore_patterns("__pycache__"))
    (repo / "launch" / "words.py").write_text("def main(argv):\n    print('the old words')\n    return 0\n")
    mine = slurm.prepare("run", nodes=1)
    (mine.path / "code").unlink()
    source.copy(mine.path, repo)
    mine = replace(
        mine, module="launch.words", arguments=("say",), slurm=mine.slurm | {"extra": {"begin": "now+3"}}, cwd=str(repo)
    )
    job.write(mine)
    queued = slurm.submit(mine, way)
    (repo / "launch" / "words.py").write_text("def main(argv):\n    print('the new words')\n    return 0\n")
    assert queued.end() == ("COMPLETED", 0), queued.log
    assert "the old words" in queued.log


def test_submitting_from_inside_a_job(slurm: Jobs) -> None:
    """The inner job asks for two nodes, the outer one has one; nothing of the outer may reach the inner."""
    mine = slurm.prepare("inner", run={"steps": 2})
    program = f"from launch import job, sbatch; m = job.find({mine.folder!r}); job.register(m, sbatch.submit(m))"
    command = f"cd {ROOT} && srun -n1 {sys.executable} -c {shlex.quote(program)}"
    said = slurm.folder / "outer.txt"
    outer = slurm.cluster.run("sbatch", "--parsable", "-N1", "-n3", "-o", str(said), "--wrap", command)
    wait_for("inner job", lambda: mine.id, 120)
    inner = Submitted(slurm.cluster, mine, mine.id or "")
    assert inner.id != outer
    assert inner.end() == ("COMPLETED", 0), inner.log
    assert inner.log.count("start rank=") == 2


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="all tests run as an ordinary user already")
def test_as_an_ordinary_user(tmp_path: Path) -> None:
    """Cluster, job and tests as a user who owns nothing but a folder."""
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    # where the environment lies in root's home: no more than the right to read it
    reads = [*user, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    program = f"exec {shlex.quote(sys.executable)} -c 'import torch'"
    able = [u for u in (user, reads) if subprocess.run([*u, "sh", "-c", program], capture_output=True).returncode == 0]
    if not able:
        pytest.skip(f"an ordinary user cannot run {sys.executable} here; put the environment where everybody may read")
    home = Path(tempfile.mkdtemp(prefix="ddp-user-", dir="/tmp"))
    for part in ("ddptrain", "launch", "tests", "slurm", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, home / part)
    subprocess.run(["chown", "-R", "65534:65534", str(home)], check=True)
    try:
        environ = dict(os.environ, HOME=str(home), PYTHONPATH=str(home))
        tests = ["tests/slurm/test_rules.py", "-k", "under_another_tracker"]
        pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(home / "tmp")]
        done = subprocess.run([*able[0], *pytest_, *tests], cwd=home, env=environ, capture_output=True, text=True)
        assert "1 passed" in done.stdout, done.stdout + done.stderr
    finally:
        shutil.rmtree(home)
