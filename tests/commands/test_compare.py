"""`ddptrain compare`: a verdict from stored evaluations alone, and a line of words where there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import outcomes
import pytest

from ddptrain.cli import main
from ddptrain.metrics.coco import summarize
from ddptrain.metrics.matches import Matches
from ddptrain.metrics.outcome import FILE, Outcome, write_outcome


def run(folder: Path, outcome: Outcome) -> str:
    """A run folder with an evaluation."""
    folder.mkdir()
    write_outcome(folder / FILE, outcome)
    return str(folder)


def test_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = run(tmp_path / "a", outcomes.boxes(0.6, 1)), run(tmp_path / "b", outcomes.boxes(0.9, 2))
    assert main(["compare", a, b]) == 0
    out, err = capsys.readouterr()
    assert f"{b} is better than {a}: AP +0." in out
    assert "one run on each side" in out
    assert out.splitlines()[0].split() == ["run", "step", "weights", "AP"]
    assert "1000 paired draws of 60 images in 1 dataset" in out
    assert not err
    assert main(["compare", b, a, "--metric", "class/bus/AP50"]) == 0
    assert f"{a} is worse than {b}: class/bus/AP50 -0." in capsys.readouterr().out
    assert main(["compare", a, b, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["images"], len(found["first"])) == ("better", 60, 1)
    assert found["low"] < found["difference"] < found["high"]


def two_datasets(town: float, seed: int) -> Outcome:
    """One detector on 60 images of a city and, of quality `town`, 20 of a town."""
    parts = [outcomes.boxes(0.8, 1), outcomes.boxes(town, seed, images=20, scenes=1)]
    matches = [part.matches for part in parts]
    return replace(
        parts[0],
        datasets=("city", "town"),
        dataset=np.repeat([0, 1], [60, 20]),
        images=tuple(f"{i}.jpg" for i in range(80)),
        metrics=summarize(("city", "town"), matches, outcomes.CLASSES),
        matches=Matches.concatenate(matches),
    )


def test_one_of_several_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = two_datasets(0.3, 2), two_datasets(0.9, 3)
    # counted alone, a dataset has the metric that its evaluation gave it
    own = first.of_dataset("town").astype(np.float32)[:, None]
    assert first.resample(own, ["AP"])["AP"] == pytest.approx(first.metrics["dataset/town/AP"], abs=1e-6)
    a, b = run(tmp_path / "a", first), run(tmp_path / "b", second)
    assert main(["compare", a, b, "--metric", "dataset/town/AP"]) == 0
    out = capsys.readouterr().out
    assert f"{b} is better than {a}: dataset/town/AP +0." in out
    assert "1000 paired draws of 20 images in 1 dataset (" in out
    assert main(["compare", a, b, "--metric", "dataset/city/AP50", "--json"]) == 0
    same = json.loads(capsys.readouterr().out)
    assert (same["difference"], same["low"], same["high"], same["images"]) == (0, 0, 0, 60)


def test_seeds_on_each_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = [
        [run(tmp_path / f"{name}{i}", outcomes.boxes(q, 10 * n + i)) for i in range(3)]
        for n, (name, q) in enumerate((("a", 0.6), ("b", 0.9)))
    ]
    assert main(["compare", *sides[1], "--against", *sides[0]]) == 0
    out = capsys.readouterr().out
    assert f"[{' '.join(sides[1])}] is better than [{' '.join(sides[0])}]" in out
    assert "3 and 3 seeds" in out
    assert "one run" not in out


def test_the_combinations_of_a_sweep_against_its_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = []
    for i, (lr, q) in enumerate([("0.01", 0.6), ("0.01", 0.61), ("0.02", 0.9), ("0.02", 0.91), ("0.03", 0.9)]):
        folder = str(tmp_path / f"run{i}") if lr == "0.03" else run(tmp_path / f"run{i}", outcomes.boxes(q, i))
        entries.append({"index": i, "values": {"optimizer.lr": lr}, "seed": i, "run": folder})
    text = json.dumps({"grid": {"optimizer.lr": ["0.01", "0.02", "0.03"]}, "runs": entries})
    (tmp_path / "sweep.json").write_text(text)
    for command in (["compare", str(tmp_path)], ["sweep", "--table", str(tmp_path)]):
        assert main(command) == 0
        out = capsys.readouterr().out
        assert "[optimizer.lr=0.02] is better than [optimizer.lr=0.01]: AP +0." in out
        assert "optimizer.lr=0.03 against optimizer.lr=0.01: not compared" in out
    assert "| optimizer.lr | seeds |" in out


def test_what_cannot_be_compared_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = outcomes.boxes(0.8, 1)
    moved = replace(base.matches, truth_area=base.matches.truth_area + 1)
    empty = replace(base, metrics=dict.fromkeys(base.metrics, float("nan")))
    others = {
        "different classes: car, bus and car, van": replace(base, classes=("car", "van")),
        "different datasets: city and town": replace(base, datasets=("town",)),
        "the first that only one has: 0.jpg": replace(base, images=("new.jpg", *base.images[1:])),
        "the same images with different labels": replace(base, matches=moved),
        "no ground truth": empty,
    }
    a = run(tmp_path / "a", base)
    for i, (words, other) in enumerate(others.items()):
        assert main(["compare", a, run(tmp_path / f"b{i}", other)]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1
    (tmp_path / "old").mkdir()
    for runs, words in (
        ([a, str(tmp_path / "old")], f"no evaluation.npz in it; ddptrain eval {tmp_path / 'old'} writes it"),
        ([a], "1 run and nothing to compare with"),
        ([a, a, a], "3 runs and nothing to compare with"),
        (
            [a, a, "--metric", "recall"],
            "give one of AP, AP50, AP75, APs, APm, APl, or one such as class/car/AP or dataset/city/AP",
        ),
        ([a, a, "--metric", "class/van/AP"], "cannot be resampled over images"),
    ):
        assert main(["compare", *runs]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1


def test_best_and_last_weights_are_distinguished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = run(tmp_path / "a", outcomes.boxes(0.8, 1, weights="best"))
    assert main(["compare", a, run(tmp_path / "b", outcomes.boxes(0.8, 2, weights="last"))]) == 0
    assert "weights of different kinds (best, last)" in capsys.readouterr().err


def test_tasks_that_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    r = np.random.default_rng(0)
    real = np.eye(3, dtype=int)[r.integers(3, size=200)]
    runs = []
    for name, part in (("a", 0.5), ("b", 0.9)):
        hit = (r.random(200) < part)[:, None]
        answers = np.where(hit, real, np.roll(real, 1, 1))
        value = float(hit.mean())
        outcome = outcomes.counts(real * hit, real, answers, dict.fromkeys(("accuracy", "f1", "class/c0/f1"), value))
        runs.append(run(tmp_path / name, outcome))
    assert main(["compare", *runs]) == 0
    assert f"{runs[1]} is better than {runs[0]}: accuracy +0." in capsys.readouterr().out
    assert main(["compare", *runs, "--metric", "class/c0/f1"]) == 2
    assert (
        "cannot be resampled over images; give one of accuracy, f1, or one such as dataset/all/accuracy"
        in capsys.readouterr().err
    )
