"""What the system says about the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddptrain.system.limits import bf16_instructions


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512_bf16 sse\n\nprocessor\t: 1\nflags\t\t: fpu\n", True),
        ("processor\t: 0\nflags\t\t: fpu amx_bf16\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_vnni\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", True),
        ("processor\t: 0\nmodel name\t: bf16\n", None),
    ],
)
def test_instructions_of_bf16_are_read_from_the_first_core(text: str, has: bool | None, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert bf16_instructions(file) is has


def test_a_system_without_a_list_of_instructions_says_nothing(tmp_path: Path) -> None:
    assert bf16_instructions(tmp_path / "cpuinfo") is None
