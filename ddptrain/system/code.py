"""Which code runs: the version, a hash of the package's source, and the commit of a git checkout."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ddptrain import version

PACKAGE = Path(version.__file__).parent


def code_version() -> str:
    """Version and a hash of the package's source, so that an edited copy is noticed."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return f"{version.__version__}+{digest.hexdigest()}"


def commit(checkout: Path = PACKAGE.parent) -> str:
    """The commit that a git checkout stands at, read from its files; empty outside of one, or where it cannot be read."""
    git = checkout / ".git"
    try:
        if git.is_file():  # a worktree
            git = checkout / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        common = git / (git / "commondir").read_text(encoding="utf-8").strip() if (git / "commondir").is_file() else git
        for folder in (git, common):
            if (folder / name).is_file():
                return (folder / name).read_text(encoding="utf-8").strip()
        packed = (common / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), "")
    except (OSError, UnicodeDecodeError):
        return ""
