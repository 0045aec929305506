"""The logs of the ranks: follow them as they grow, merge them with the rank before each line, find the rank that failed."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

_NAME = re.compile(r"r(?P<restart>\d+)\.a(?P<attempt>\d+)\.(?P<node>.+)\.rank(?P<rank>\d+)$")

_KILLED = re.compile(r"killed by (?!SIGTERM|SIGUSR1|SIGINT)")


@dataclass(frozen=True)
class RankLog:
    """One log file and the parts of its name."""

    path: Path
    restart: int
    attempt: int
    node: str
    rank: int


def rank_logs(folder: Path, suffix: str = ".log") -> list[RankLog]:
    """The logs of a job in the order of restarts, attempts and ranks."""
    logs = []
    for path in folder.glob(f"r*{suffix}"):
        if m := _NAME.match(path.name.removesuffix(suffix)):
            logs.append(RankLog(path, int(m["restart"]), int(m["attempt"]), m["node"], int(m["rank"])))
    return sorted(logs, key=lambda x: (x.restart, x.attempt, x.rank))


class Tail:
    """Prints what is added to the files of a folder."""

    def __init__(self, folder: Path, pattern: str, skip: bool = False) -> None:
        """Args: skip: leave out the present content of the files."""
        self._folder, self._pattern = folder, pattern
        self._at: dict[Path, int] = {}
        self._open: dict[Path, bytes] = {}
        if skip:
            self._at = {p: p.stat().st_size for p in folder.glob(pattern)}

    def show(self, out: TextIO, end: bool = False) -> None:
        """Print the new lines, the rank before each; with `end` also a last line without a line end."""
        for path in sorted(self._folder.glob(self._pattern)):
            match = _NAME.match(path.name.removesuffix(".log"))
            prefix = f"[{match['rank']}] " if match else ""
            with open(path, "rb") as f:
                f.seek(self._at.get(path, 0))
                new = f.read()
            self._at[path] = self._at.get(path, 0) + len(new)
            *lines, rest = (self._open.pop(path, b"") + new).split(b"\n")
            if end and rest:
                lines, rest = [*lines, rest], b""
            self._open[path] = rest
            for line in lines:
                out.write(prefix + line.decode(errors="replace") + "\n")
        out.flush()


def note_failure(folder: Path, restart: int, node: str, rank: int, how: str) -> None:
    """Leave a note beside the newest log of a rank that failed; a note of the rank itself keeps its time and error."""
    mine = [x for x in rank_logs(folder) if (x.restart, x.node, x.rank) == (restart, node, rank)]
    path = mine[-1].path.with_suffix(".failed") if mine else folder / f"r{restart}.a0.{node}.rank{rank}.failed"
    note = json.loads(path.read_text()) if path.exists() else {"time": time.time()}
    path.write_text(json.dumps(note | {"how": how}))


def root_failure(folder: Path) -> tuple[RankLog, str] | None:
    """The rank whose end brought down the others in the newest start that failed, and how it ended.

    A rank that was killed from outside comes before ranks that ended with an error (since they lost a peer) and ranks that
    their agent ended; of several, the earliest.
    """
    notes = rank_logs(folder, ".failed")
    if not notes:
        return None
    newest = max((n.restart, n.attempt) for n in notes)
    read = [(n, json.loads(n.path.read_text())) for n in notes if (n.restart, n.attempt) == newest]
    first, note = min(read, key=lambda x: (not _KILLED.search(x[1].get("how", "")), x[1]["time"]))
    return first, note.get("how", "") + (f": {note['error']}" if "error" in note else "")
