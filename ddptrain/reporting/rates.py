"""The figure of a range test: the loss over the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddptrain.reporting.curves import INK, PATCH, QUIET
from ddptrain.reporting.page import COLOURS
from ddptrain.reporting.report import figure_of


def draw_rates(
    path: Path,
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    proposed: float | None,
    configured: float,
) -> None:
    """Draw the loss of each step, the same smoothed, and the rates that are proposed and configured.

    Args:
        proposed: None where no rate was found.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with figure_of(path, 1, 7.2, 4.4) as (axis,):
        axis.plot(rates, losses, color=QUIET, linewidth=0.9, label="loss of a step")
        axis.plot(rates, smoothed, color=COLOURS[0], linewidth=2.2, label="smoothed")
        lowest, highest = min(losses), 1.5 * smoothed[0]
        axis.set(xscale="log", xlabel="learning rate", ylabel="loss", title="range test of the learning rate")
        axis.set_ylim(lowest - 0.05 * (highest - lowest), highest)
        axis.xaxis.set_major_formatter("{x:g}")
        marks = [("configured", configured, INK, (0, (2, 3)), 0.86), ("proposed", proposed, COLOURS[1], "solid", 0.95)]
        for name, rate, colour, style, height in marks:
            if rate is not None and rates[0] <= rate <= rates[-1]:
                axis.axvline(rate, color=colour, linewidth=1.3, linestyle=style)
                where = (rate, height)
                place = {"xytext": (6, 0), "textcoords": "offset points", "xycoords": ("data", "axes fraction")}
                axis.annotate(f"{name} {rate:.2g}", where, color=colour, fontsize=9, bbox=PATCH, **place)
        axis.grid(True, which="both", alpha=0.4)
        axis.legend(fontsize=8, loc="lower left")
