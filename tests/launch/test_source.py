"""The copy of the code that a job runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from launch import source


def test_the_copy_of_the_code_holds_what_git_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo, out = tmp_path / "a repo", tmp_path / "out"
    for name in ("ddptrain/a.py", "launch/b.py", "ignored/c.py", "new/ü n.py"):
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(name)
    (repo / ".gitignore").write_text("ignored/\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "ddptrain", "launch", ".gitignore"], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(repo), *command], check=True)
    (repo / "ddptrain" / "a.py").write_text("edited")
    monkeypatch.setenv("MY_API_KEY", "hidden")
    out.mkdir()
    source.copy(out, repo)
    found = {str(p.relative_to(out / "code")) for p in (out / "code").rglob("*") if p.is_file()}
    assert found == {"ddptrain/a.py", "launch/b.py", "new/ü n.py", ".gitignore"}
    assert (out / "code" / "ddptrain" / "a.py").read_text() == "edited"
    described = json.loads((out / "code.json").read_text())
    assert (described["edited"], len(described["commit"])) == (True, 40)
    assert "+edited" in (out / "diff.patch").read_text()
    assert "hidden" not in (out / "environment.json").read_text()
    assert (out / "environment.json").stat().st_mode & 0o077 == 0


def test_the_copy_without_git_holds_the_packages(tmp_path: Path) -> None:
    (tmp_path / "site" / "ddptrain").mkdir(parents=True)
    (tmp_path / "site" / "launch").mkdir()
    (tmp_path / "site" / "ddptrain" / "a.py").write_text("a")
    (tmp_path / "site" / "other.py").write_text("b")
    (tmp_path / "out").mkdir()
    assert source.copy(tmp_path / "out", tmp_path / "site") == 1
    assert json.loads((tmp_path / "out" / "code.json").read_text())["commit"] is None


def test_a_package_inside_a_foreign_checkout_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / "site" / "ddptrain").mkdir(parents=True)
    (tmp_path / "site" / "ddptrain" / "a.py").write_text("a")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "foreign"], check=True)
    (tmp_path / "out").mkdir()
    assert source.copy(tmp_path / "out", tmp_path / "site") == 1
    described = json.loads((tmp_path / "out" / "code.json").read_text())
    assert (described["commit"], described["edited"]) == (None, False)


@pytest.mark.parametrize("file", ["count.py", "count/__init__.py", "count/tasks.py"])
def test_a_job_has_a_copy_of_the_users_own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("class Count: pass")
    (tmp_path / "other.py").touch()
    for task in ("detection", "gone:Count", "yaml:Count", "ddptrain.tasks.base:Task", "count.tasks:Count"):
        source.copy_task(tmp_path / "code", task)
    assert [p.relative_to("code").as_posix() for p in Path("code").rglob("*.py")] == [file]
