"""A run outlives the terminal that it was started in."""

from __future__ import annotations

import io
import os
import sys


class _UntilHangup(io.TextIOWrapper):
    """A terminal; once it is closed, output is discarded."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        super().flush()


def outlive_terminal() -> None:
    """Discard standard output and error once they are a terminal that was closed: that must not end a run."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            setattr(sys, name, _UntilHangup(stream.buffer, stream.encoding, stream.errors, line_buffering=True))
