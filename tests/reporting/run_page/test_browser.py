"""In a real browser: hovering tells values, dragging zooms, a double click shows all, a click sorts, no name is a script."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from written_run import write_run

from ddptrain.reporting.run_page.single import write_page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

ACTIONS = """
const log = document.createElement("div");
log.id = "log";
const say = (name, value) => { log.append(`[${name}=${value}]`); };
const figure = document.querySelector("#errors figure.lines"), outer = figure.querySelector("svg");
const plot = outer.querySelector(".plot");
const at = (kind, part) => {
  const box = outer.getBoundingClientRect(), scale = box.width / outer.viewBox.baseVal.width;
  const x = box.left + scale * (Number(plot.getAttribute("x")) + part * Number(plot.getAttribute("width")));
  outer.dispatchEvent(new PointerEvent(kind, {clientX: x, clientY: box.top + 40, buttons: 1, bubbles: true}));
};
at("pointermove", 0.48);
say("tip", figure.querySelector(".tip").textContent);
at("pointerdown", 0.4); at("pointermove", 0.7); at("pointerup", 1.0);
say("zoomed", plot.getAttribute("viewBox").split(" ")[0]);
say("ticks", [...outer.querySelectorAll(".axes text")].map(t => t.textContent).join(","));
say("button", figure.querySelector(".reset").textContent);
outer.dispatchEvent(new MouseEvent("dblclick"));
say("all", plot.getAttribute("viewBox"));
const table = document.querySelector("#errors table.sortable");
table.tHead.rows[0].cells[1].click();
say("down", [...table.tBodies[0].rows].map(r => r.cells[1].textContent).join(","));
table.tHead.rows[0].cells[1].click();
say("up", [...table.tBodies[0].rows].map(r => r.cells[1].textContent).join(","));
say("title", document.title);
say("wide", document.documentElement.scrollWidth <= innerWidth);
document.body.append(log);
"""


@pytest.mark.parametrize("width", [400, 1400])
def test_curves_and_tables_answer(tmp_path: Path, width: int) -> None:
    path = write_page(write_run(tmp_path / "run"))
    # the policy of the page allows its own script only, so the actions of this test need a page without one
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())
    path.write_text(html.replace("</body>", f"<script>{ACTIONS}</script></body>"))
    assert BROWSER is not None
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'browser'}",
        "--virtual-time-budget=2000",
    ]
    command = [BROWSER, *options, f"--window-size={width},900", "--dump-dom", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    said = dict(re.findall(r"\[(\w+)=(.*?)\]", dom.partition('id="log"')[2]))
    assert said["tip"].startswith("0.5")
    assert said["tip"].endswith("0.8")
    assert float(said["zoomed"]) == pytest.approx(4000, abs=20)
    assert said["ticks"].startswith("0.4,0.6,0.8,1,")
    assert said["button"] == "show all"
    assert said["all"] == "0 0 10000 10000"
    assert (said["down"], said["up"]) == ("3,2,1", "1,2,3")
    assert said["title"] == "run"
    assert said["wide"] == "true", f"the page is wider than {width} px"
