"""Charts put each value where its axes say that it is."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from ddptrain.reporting.run_page import svg
from ddptrain.reporting.run_page.parts import Bars, Chart, Line


def parsed(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html)


def test_points_lie_where_the_axes_say() -> None:
    """The plot is 10000 wide and high: (2, 30) of x 0 to 4 and y 10 to 50 is its middle."""
    figure = parsed(svg.chart(Chart("t", "x", "y", [Line("a", [0, 2, 4], [10, 30, 50])], y_range=(10, 50))))
    (curve,) = figure.iter("polyline")
    assert curve.get("points") == "0,10000 5000,5000 10000,0"
    assert figure.get("data-range") == "0 4 10 50"
    ticks = {t.text: t for t in figure.iter("text") if t.get("class") == "tick"}
    assert {"0", "2", "4", "10", "30", "50"} <= ticks.keys()
    plot = next(e for e in figure.iter("svg") if e.get("class") == "plot")
    assert float(ticks["2"].get("x", 0)) == float(plot.get("x", 0)) + float(plot.get("width", 0)) / 2


def test_a_gap_divides_a_curve_and_an_empty_one_is_drawn() -> None:
    figure = parsed(svg.chart(Chart("t", "x", "y", [Line("a", [0, 1, 2, 3], [1, 2, None, 4])])))
    assert [len((p.get("points") or "").split()) for p in figure.iter("polyline")] == [2, 1]
    parsed(svg.chart(Chart("t", "x", "y", [Line("a", [], []), Line("b", [1], [float("nan")])])))
    parsed(svg.chart(Chart("t", "x", "y", [Line("a", [5], [0])])))


def test_bars_are_as_high_as_their_values_and_none_is_no_bar() -> None:
    figure = parsed(svg.bars(Bars("t", ["a", "b"], {"s": [0.5, 1.0], "t": [None, 0.25]}, notes=["1", "2"])))
    heights = {r.findtext("title"): float(r.get("height", 0)) for r in figure.iter("rect")}
    assert heights.keys() == {"a: s 0.500, 1", "b: s 1.000, 2", "b: t 0.250, 2"}
    assert heights["b: s 1.000, 2"] == 2 * heights["a: s 0.500, 1"] == 4 * heights["b: t 0.250, 2"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 80, [0, 20, 40, 60, 80]),
        (-3, 12, [0, 5, 10]),
        (2e-5, 1e-4, [2e-5, 4e-5, 6e-5, 8e-5, 1e-4]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high, 5) == pytest.approx(expected)


def test_numbers_on_axes_are_short() -> None:
    numbers = {0: "0", 0.25: "0.25", 1234: "1234", 12500: "12.5k", 0.0002: "2e-4", -0.00012346: "-1.235e-4"}
    assert {v: svg.shown(v) for v in numbers} == numbers


def test_more_curves_than_colours_leave_one_coloured() -> None:
    figure = parsed(svg.chart(Chart("t", "x", "y", [Line(str(i), [0, 1], [i, i]) for i in range(20)])))
    assert [p.get("class") for p in figure.iter("polyline")] == ["c0", *["quiet"] * 19]
    assert "and 19 more" in ElementTree.tostring(figure, encoding="unicode")
