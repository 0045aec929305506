"""What can be refused before anything is queued or started. Needs no torch, no GPU, no Slurm."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ddptrain.config import RunConfig
from ddptrain.errors import UserError


def check_data(config: RunConfig, cwd: Path) -> None:
    """Refuse data folders and checkpoints that are not there, as seen from the folder the job will run in.

    Raises:
        UserError: names the key and the path of the first that lacks.
    """
    resume = config.resume.source if config.resume and config.resume.source != "auto" else None
    own = config.resume and any((cwd / config.folder / "checkpoints").glob("*.pt"))
    begins = None if resume or own else config.init_from  # a run that goes on has no use for it
    for key, source in (("init_from", begins), ("resume", resume)):
        if source is not None and not (cwd / source).exists():
            raise UserError(f"{key}: {cwd / source} is not there; give a run folder or a checkpoint in it")
    for part in ("train", "val"):
        for i, dataset in enumerate(getattr(config.data, part)):
            root = cwd / dataset.root
            for key, path in (
                ("root", root),
                ("annotations", root / dataset.annotations if dataset.annotations else None),
                ("images", root / dataset.images if dataset.images else None),
                ("depth", root / dataset.depth if dataset.depth else None),
            ):
                if path is not None and not path.exists():
                    raise UserError(
                        f"data.{part}.{i}.{key}: {dataset.name}: {path} is not there; put the data there, correct the "
                        f"path, or pass --no-data-check where only the compute nodes see it"
                    )


def check_setup(lines: Sequence[str]) -> None:
    """Refuse shell commands that bash cannot parse, each by itself; where there is no bash nothing is known.

    Raises:
        UserError: names the first.
    """
    bash = shutil.which("bash")
    for i, line in enumerate(lines if bash else ()):
        done = subprocess.run([str(bash), "-n", "-c", line], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines()[0].partition("line ")[2].partition(": ")[2]
            raise UserError(f"slurm.setup.{i}: {line!r} is not a complete shell command ({said}); give one command an entry")
