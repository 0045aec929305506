"""`ddptrain pack` makes what a run with `data.cache=disk` finds, and the run learns the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ddptrain.cli import main


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_run_with_packed_images_learns_the_same(
    task: str,
    small_config: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DDPTRAIN_CACHE", str(tmp_path / "cache"))
    config = str(small_config(task))
    more = ["eval.window=slide", "monitor.tensorboard=true"] if task == "segmentation" else []  # pictures of images as they are
    assert main(["pack", config]) == 0
    said = capsys.readouterr().out
    files = list((tmp_path / "cache" / "pixels").glob("*.pixels"))
    size = sum(file.stat().st_size for file in files) / 1e9
    assert f"data.cache=disk: {len(files)} files of {size:.2f} GB with decoded pixels in {tmp_path}/cache/pixels\n" in said
    assert "a run uses them with data.cache=disk; in this config it is none\n" in said
    results = []
    for cache in ("none", "disk", "ram"):
        assert main(["train", config, f"name={cache}", f"data.cache={cache}", *more]) == 0
        summary = json.loads((tmp_path / cache / "summary.json").read_text())
        results.append({k: v for k, v in summary.items() if k in ("digest", "loss", "AP", "mIoU")})
        said = capsys.readouterr().out
        assert (": packing " in said) == (cache == "ram")
    assert results[1:] == results[:1] * 2
    assert "digest" in results[0]
