"""The copy of the code that a job runs, made at submission, so that a later edit does not reach a queued or requeued job.

Of a task of the user's own its module or package is copied, too; what that imports from elsewhere is read at every start.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.machinery import PathFinder
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


def _is_checkout(root: Path) -> bool:
    """Whether this is the top of a git checkout, not a folder somewhere in another one."""
    top = _git(root, "rev-parse", "--show-toplevel")
    return top is not None and Path(os.fsdecode(top.rstrip(b"\n"))).resolve() == root


def _files(root: Path, checkout: bool) -> list[str]:
    """Tracked and untracked files that git does not ignore; without git the two packages."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard") if checkout else None
    if listed is not None:
        names = {os.fsdecode(n) for n in listed.split(b"\0") if n}
        return sorted(n for n in names if (root / n).is_file())
    return [name for package in ("ddptrain", "launch") for name in _below(root, package)]


def _below(root: Path, name: str) -> list[str]:
    """The files of a package, or the one of a module, relative to `root`."""
    files = [p for p in ((root / name).rglob("*") if (root / name).is_dir() else [root / name]) if p.is_file()]
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
    checkout = _is_checkout(root)
    files = _files(root, checkout)
    _copy(root, files, folder / "code", "MiB of files that git does not ignore", "add to .gitignore what is not code")
    commit, diff = (_git(root, *a) if checkout else None for a in (("rev-parse", "HEAD"), ("diff", "HEAD", "--binary")))
    (folder / "diff.patch").write_bytes(diff or b"")
    described = {"root": str(root), "commit": commit.decode().strip() if commit else None, "edited": bool(diff)}
    (folder / "code.json").write_text(json.dumps(described, indent=1) + "\n")
    _record_environment(folder / "environment.json")
    return len(files)


def copy_task(code: Path, task: str) -> None:
    """Copy the module or package of a task of the user's own (`module:Class`) beside the code, where Python looks for it first.

    One that is installed stays where it is, as other packages do.

    Raises:
        UserError: it is larger than 256 MiB.
    """
    name = task.partition(":")[0].partition(".")[0]
    importlib.invalidate_caches()
    spec = PathFinder.find_spec(name, [*sys.path, os.getcwd()]) if ":" in task else None
    if spec is None:  # the package's own task; or what the ranks will report
        return
    places = list(spec.submodule_search_locations or [str(spec.origin)])
    found = Path(places[0]).absolute()
    if found.is_relative_to(source_root()) or {"site-packages", "dist-packages"} & set(found.parts) or not found.exists():
        return
    if not (code / found.name).exists():
        _copy(
            found.parent, _below(found.parent, found.name), code, f"MiB of files of {task}", "keep data outside of the package"
        )


def _copy(root: Path, files: list[str], target: Path, which: str, remedy: str) -> None:
    sizes = {name: (root / name).stat().st_size for name in files}
    if sum(sizes.values()) > LARGEST:
        largest = max(sizes, key=lambda n: sizes[n])
        raise UserError(f"{root}: {sum(sizes.values()) >> 20} {which}, {largest} the largest; {remedy}")
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target / name)


def _record_environment(path: Path) -> None:
    packages = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    variables = {k: "(left out)" if _SECRET.search(k) else v for k, v in sorted(os.environ.items())}
    path.touch(mode=0o600)
    path.write_text(
        json.dumps(
            {"python": sys.version, "executable": sys.executable, "packages": packages, "variables": variables}, indent=1
        )
    )
