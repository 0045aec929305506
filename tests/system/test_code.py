"""The commit of a checkout is read from git's files, in every layout that git writes."""

from __future__ import annotations

from pathlib import Path

from ddptrain.system.code import code_version, commit

FIRST, SECOND = "1" * 40, "2" * 40


def test_a_branch_a_packed_branch_and_no_branch(tmp_path: Path) -> None:
    git = tmp_path / ".git"
    (git / "refs/heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text(f"# pack-refs with: peeled\n{SECOND} refs/heads/other\n{SECOND} refs/heads/main\n")
    assert commit(tmp_path) == SECOND
    (git / "refs/heads/main").write_text(f"{FIRST}\n")
    assert commit(tmp_path) == FIRST
    (git / "HEAD").write_text(f"{SECOND}\n")
    assert commit(tmp_path) == SECOND


def test_a_worktree_shares_the_branches_of_its_repository(tmp_path: Path) -> None:
    own, tree = tmp_path / "repository/.git/worktrees/tree", tmp_path / "tree"
    own.mkdir(parents=True)
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {own}\n")
    (own / "HEAD").write_text("ref: refs/heads/tree\n")
    (own / "commondir").write_text("../..\n")
    (tmp_path / "repository/.git/refs/heads").mkdir(parents=True)
    (tmp_path / "repository/.git/refs/heads/tree").write_text(f"{FIRST}\n")
    assert commit(tree) == FIRST


def test_outside_of_a_checkout_there_is_none(tmp_path: Path) -> None:
    assert commit(tmp_path) == ""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_bytes(b"\xff")
    assert commit(tmp_path) == ""


def test_the_version_names_the_source() -> None:
    version, _, source = code_version().partition("+")
    assert version
    assert len(source) == 12
    assert code_version() == f"{version}+{source}"
