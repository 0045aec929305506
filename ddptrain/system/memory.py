"""Memory that a process keeps for its next large array, instead of giving it back to the system."""

import contextlib
import ctypes

# of <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20  # glibc allows no more
_KEPT = 128 << 20


def keep_memory() -> None:
    """Let this process, and those it forks, use freed memory again: up to 128 MiB of it, for arrays of up to 32 MiB each.

    By default glibc takes each array of an image from the system and gives it back, and the system clears all of its pages
    again and again: more than half of the time in which OpenCV decodes a large JPEG. Other C libraries are left as they are.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
