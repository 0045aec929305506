"""The page of several runs shows their numbers side by side, the differences of their configs, and verdicts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from written_run import EVIL, write_run

from ddptrain.reporting.run_page.folder import read_run
from ddptrain.reporting.run_page.several import Verdict, write_comparison
from ddptrain.reporting.run_page.single import write_page


class Rows(HTMLParser):
    """The cells of all rows of tables, and the addresses of links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True
        elif tag == "a":
            self.links.append(dict(attrs)["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data.strip()


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one", ap=0.5), write_run(tmp_path / "two", lr=0.02, ap=0.6)
    write_page(two)
    verdict = Verdict("two", "AP", "better", 0.1, 0.05, 0.15, [f"{EVIL} is better"])
    path = write_comparison(tmp_path / "out", {"one": read_run(one), "two": read_run(two)}, [verdict])
    text = path.read_text()
    page = Rows(text)
    assert ["optimizer.lr", "0.01", "0.02"] in page.rows
    assert not [row for row in page.rows if row[0] in ("name", "output", "seed")]
    assert ["two", "AP", "0.100", "+0.050 to +0.150", "better"] in page.rows
    assert ["car", "0.600", "0.600", "0.000"] in page.rows
    assert [EVIL, "0.400", "0.400", "0.000"] in page.rows
    assert ["torch", "2.9"] in page.rows
    assert [link for link in page.links if not link.startswith("#")] == ["../two/report/report.html"]
    assert len(re.findall("<script", text)) == 1
    curves = re.findall(r'data-name="(one|two)"', text)
    assert curves.count("one") == curves.count("two") > 3


def test_runs_with_equal_configs_and_without_evaluations(tmp_path: Path) -> None:
    runs = {name: write_run(tmp_path / name) for name in ("one", "two", "three")}
    for run in runs.values():
        (run / "report" / "evaluation.json").unlink()
        (run / "history.csv").unlink()
    (runs["two"] / "starts.jsonl").write_text(json.dumps({"record": {"torch": "2.8"}}))
    path = write_comparison(tmp_path, {name: read_run(run) for name, run in runs.items()}, [])
    page = Rows(path.read_text())
    assert "Identical, apart from their names and how they were started." in path.read_text()
    assert ["torch", "2.9", "2.8", "2.9"] in page.rows
