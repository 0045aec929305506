"""How a process ends that may be a rank."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn


def end_with(main: Callable[[], int]) -> NoReturn:
    """Call `main` and end this process with the status that it returns.

    Where a process group is still open, an error of this rank left it so (`distributed.process_group`): then the process ends
    at once, without the interpreter's own end, in which NCCL would wait for ranks that sit in a collective. Only threads that
    save are waited for.
    """
    try:
        status = main()
    except SystemExit as e:
        if not _group_is_open():
            raise
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        if not _group_is_open():
            raise
        traceback.print_exc()
        status = 1
    if not _group_is_open():
        sys.exit(status)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _group_is_open() -> bool:
    group = sys.modules.get("torch.distributed")
    return group is not None and group.is_available() and bool(group.is_initialized())
