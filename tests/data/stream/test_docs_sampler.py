"""The examples of docs/sampler.md run as they stand."""

import importlib.util
import re
import warnings
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "sampler.md"
BLOCKS = re.findall(r"^## (.+?)\n+```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_page_shows_three_ways() -> None:
    assert [title for title, _ in BLOCKS] == ["DataLoader", "Lightning", "Plain loop, with resume"]


@pytest.mark.usefixtures("figures")  # torchmetrics, which Lightning imports, looks for matplotlib
@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_example_runs(title: str, code: str) -> None:
    if "lightning" in code and importlib.util.find_spec("lightning") is None:
        pytest.skip("lightning is not installed; `pip install lightning` to run this example")
    with warnings.catch_warnings():
        if "lightning" in code:  # it warns about the machine: an srun it is not started by, few workers
            warnings.simplefilter("ignore")
        exec(compile(code, f"docs/sampler.md, {title}", "exec"), {"__name__": "example"})
