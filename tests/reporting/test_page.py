"""The page is well-formed, holds what it was given, and lets nothing of it act as HTML."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np

from ddptrain.reporting.page import Section, details, histogram, page, picture
from ddptrain.reporting.table import UNKNOWN


def test_the_page_reports_all_and_escapes_it() -> None:
    sections = [
        Section("Sizes <b>", ["a line"], ("dataset", "n"), [["<script>", 1234], ["b", UNKNOWN], ["c", None]]),
        Section("Empty", figures=[details("more", ["x & y"])]),
    ]
    text = page("run", "of c.yaml", ["bad <thing>"], [], sections)
    assert "<script>" not in text
    for piece in (
        "&lt;script&gt;",
        "1,234",
        "bad &lt;thing&gt;",
        "x &amp; y",
        "Sizes &lt;b&gt;",
        'class="number unknown"',
        "–",
    ):
        assert piece in text
    assert "no errors" not in text
    assert "no errors, no warnings" in page("run", "", [], [], [])


def test_histogram_bars_are_as_high_as_their_numbers() -> None:
    svg = histogram([("a", [0.5, 0.0, 0.25]), ("b", [0.0, 1.0, 0.0])], ["1", "2"], "px", [(1.5, "here")])
    root = ElementTree.fromstring(svg)
    bars = [r for r in root.iter("rect") if r.find("title") is not None]
    heights = {r.findtext("title"): float(r.get("height", 0)) for r in bars}
    assert heights["b: 100.0%"] == 2 * heights["a: 50.0%"] == 4 * heights["a: 25.0%"]
    assert {t.text for t in root.iter("text")} >= {"1", "2", "px", "here", "a", "b", "100%"}
    width, height = (float(v) for v in re.findall(r"[\d.]+", root.get("viewBox", ""))[2:])
    for r in bars:
        assert 0 <= float(r.get("x", -1)) <= width
        assert 0 <= float(r.get("y", -1)) + float(r.get("height", 0)) <= height


def test_bins_with_names_have_them_below() -> None:
    root = ElementTree.fromstring(histogram([("a", [0.5, 0.25])], ["car", "bus"], ""))
    bars = {r.findtext("title"): float(r.get("x", 0)) + float(r.get("width", 0)) / 2 for r in root.iter("rect")}
    names = {t.text: float(t.get("x", 0)) for t in root.iter("text")}
    assert abs(bars["a, car: 50.0%"] - names["car"]) < 1
    assert abs(bars["a, bus: 25.0%"] - names["bus"]) < 1


def test_axes_have_labels_and_long_names_have_room() -> None:
    svg = histogram([("a", [0.5] * 20)], [f"awning-tricycle {i}" for i in range(20)], "class", side="part of the boxes")
    texts = {t.text: t for t in ElementTree.fromstring(svg).iter("text")}
    assert "rotate(-90)" in texts["part of the boxes"].get("transform", "")
    assert "rotate(-30" in texts["awning-tricycle 3"].get("transform", "")
    assert float(texts["class"].get("y", 0)) > float(texts["awning-tricycle 3"].get("y", 0)) + 20
    few = ElementTree.fromstring(histogram([("a", [0.5] * 2)], ["awning-tricycle", "car"], "class"))
    assert not [t for t in few.iter("text") if "rotate(-30" in t.get("transform", "")]


def test_a_histogram_of_nothing() -> None:
    ElementTree.fromstring(histogram([("a", [0.0, 0.0])], ["1"], "px"))


def test_pictures_stand_inside_the_page() -> None:
    html = picture(np.zeros((8, 8, 3), np.uint8), 'a "quoted" text')
    assert "data:image/jpeg;base64,/9j/" in html
    assert "&quot;quoted&quot;" in html
