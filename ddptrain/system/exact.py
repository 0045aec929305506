"""Numbers of a config as they are written: 1.1 is eleven tenths, which no float is."""

from __future__ import annotations

from fractions import Fraction


def exact(value: float) -> Fraction:
    """The shortest decimal that names a finite number, so that a border that it gives is not off by a step."""
    return Fraction(repr(float(value)))
