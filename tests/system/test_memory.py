"""Memory that is used again."""

import platform
import resource

import numpy as np
import pytest

from ddptrain.system.memory import keep_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_an_image_is_not_paid_for_twice() -> None:
    """Once a large array was freed, the system hands out no page for the next one of its size."""
    keep_memory()
    pages = 6 << 20 >> 12
    np.ones(6 << 20, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(6 << 20, np.uint8)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < pages
