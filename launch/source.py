"""The copy of the code that a job runs, made at submission, so that a later edit does not reach a queued or requeued job."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from ddptrain.errors import UserError

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|COOKIE|AUTH", re.IGNORECASE)
LARGEST = 256 * 2**20


def source_root() -> Path:
    """The folder with the packages `ddptrain` and `launch`."""
    return Path(__file__).resolve().parents[1]


def _git(root: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _files(root: Path) -> list[str]:
    """Tracked and untracked files that git does not ignore; without git the two packages."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    top = _git(root, "rev-parse", "--show-toplevel")
    if listed is not None and top is not None and Path(os.fsdecode(top.rstrip(b"\n"))).resolve() == root:
        names = {os.fsdecode(n) for n in listed.split(b"\0") if n}
        return sorted(n for n in names if (root / n).is_file())
    files = [p for package in ("ddptrain", "launch") for p in (root / package).rglob("*") if p.is_file()]
    return sorted(str(p.relative_to(root)) for p in files if "__pycache__" not in p.parts)


def copy(folder: Path, root: Path | None = None) -> int:
    """Copy the code to `folder/code` and record where it comes from.

    Beside it: `code.json` (git commit, whether it was edited), `diff.patch` (tracked edits since that commit),
    `environment.json` (Python, packages, variables; without the values of secrets).

    Returns:
        The number of files.

    Raises:
        UserError: the code is larger than 256 MiB, so it holds something that git should ignore.
    """
    root = root or source_root()
    files = _files(root)
    sizes = {name: (root / name).stat().st_size for name in files}
    if sum(sizes.values()) > LARGEST:
        largest = max(sizes, key=lambda n: sizes[n])
        raise UserError(
            f"{root}: {sum(sizes.values()) >> 20} MiB of files that git does not ignore, {largest} the largest; "
            f"add to .gitignore what is not code"
        )
    for name in files:
        target = folder / "code" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target)
    commit, diff = _git(root, "rev-parse", "HEAD"), _git(root, "diff", "HEAD", "--binary")
    (folder / "diff.patch").write_bytes(diff or b"")
    described = {"root": str(root), "commit": commit.decode().strip() if commit else None, "edited": bool(diff)}
    (folder / "code.json").write_text(json.dumps(described, indent=1) + "\n")
    _record_environment(folder / "environment.json")
    return len(files)


def _record_environment(path: Path) -> None:
    packages = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    variables = {k: "(left out)" if _SECRET.search(k) else v for k, v in sorted(os.environ.items())}
    path.touch(mode=0o600)
    path.write_text(
        json.dumps(
            {"python": sys.version, "executable": sys.executable, "packages": packages, "variables": variables}, indent=1
        )
    )
