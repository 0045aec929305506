"""Verdicts: right about detectors that differ, silent about those that do not, and honest about how much would tell."""

from __future__ import annotations

import numpy as np
import outcomes
import pytest

from ddptrain.metrics.compare import Comparison, compare, in_words


def of(a: list[float], b: list[float], images: int = 60, **options: int) -> Comparison:
    """Compare detectors of these qualities, by AP50."""
    sides = [[outcomes.boxes(q, 10 * s + i, images, **options) for i, q in enumerate(side)] for s, side in enumerate((a, b))]
    values = [[o.metrics["AP50"] for o in side] for side in sides]
    draws = [[o.draws(["AP50"], 0, 400)["AP50"] for o in side] for side in sides]
    return compare(values[0], values[1], draws[0], draws[1], images, 0)


def test_better_worse_and_cannot_tell() -> None:
    assert of([0.6], [0.9]).verdict == "better"
    assert of([0.9], [0.6]).verdict == "worse"
    same = of([0.8], [0.8])
    assert same.verdict == "cannot tell"
    assert same.low < 0 < same.high


def test_a_run_is_no_better_than_itself() -> None:
    one = outcomes.boxes(0.8, 3)
    draws = one.draws(["AP"], 0, 100)["AP"]
    c = compare([one.metrics["AP"]], [one.metrics["AP"]], [draws], [draws], 60, 0)
    assert (c.difference, c.low, c.high, c.image_error) == (0, 0, 0, 0)
    assert c.verdict == "cannot tell"
    assert c.images_needed() is None
    assert in_words(c, "AP", "a", "b")[1] == "the two results are equal"


def test_of_many_comparisons_of_equals_few_have_a_verdict() -> None:
    wrong = [of([0.8], [0.8], 40, scenes=s).verdict != "cannot tell" for s in range(40)]
    assert sum(wrong) <= 6  # 5 % are expected; more than 15 % is rarer than one in 200


def test_seeds_that_differ_more_than_the_sides_decide_nothing() -> None:
    sure, unsure = of([0.70, 0.71, 0.70], [0.80, 0.81, 0.80]), of([0.6, 0.9, 0.75], [0.7, 0.95, 0.85])
    assert sure.verdict == "better"
    assert unsure.verdict == "cannot tell"
    assert unsure.seed_error > 3 * sure.seed_error
    # two seeds say less of their spread than three do
    draws = [np.random.default_rng(0).normal(0, 1e-6, 400)] * 3
    two = compare([0.1, 0.2], [0.3, 0.4], draws[:2], draws[:2], 60, 0)
    three = compare([0.1, 0.15, 0.2], [0.3, 0.35, 0.4], draws, draws, 60, 0)
    assert two.high - two.low > 1.5 * (three.high - three.low)
    # 95 % of Student's t with two degrees of freedom lie within 4.3 standard errors
    assert two.high - two.low == pytest.approx(2 * 4.30 * two.seed_error, rel=0.25)


def test_very_few_images_decide_nothing() -> None:
    few = of([0.2], [1.0], 9)
    assert few.verdict == "cannot tell"
    assert "9 images are too few to generalize from; evaluate on 10 or more" in in_words(few, "AP", "a", "b")[0]
    assert all(np.isnan(v).all() for v in outcomes.boxes(0.8, 1, 9).intervals(["AP"]).values())
    assert of([0.2], [1.0], 12).verdict == "better"


def test_as_many_images_as_it_names_tell() -> None:
    few = of([0.82], [0.85], 30)
    assert few.verdict == "cannot tell"
    needed = few.images_needed()
    assert needed is not None
    assert 30 < needed < 3000
    lines = in_words(few, "AP50", "a", "b")
    assert f"{needed:,} images like these 30" in lines[1]
    assert "one run on each side" in lines[-1]
    # with so many, if difference and spread stay, the interval just leaves 0 out
    c = Comparison((0.5,), (0.52,), 100, -0.01, 0.05, image_error=0.0153, seed_error=0.0)
    n = c.images_needed()
    assert n is not None
    assert 1.96 * c.image_error * np.sqrt(100 / n) <= 0.02
    assert 1.96 * c.image_error * np.sqrt(100 / (n - 2)) > 0.02


def test_seeds_needed_when_images_are_enough() -> None:
    c = Comparison((0.5, 0.52), (0.53, 0.55), 100, -0.1, 0.16, image_error=0.002, seed_error=0.03)
    n = c.seeds_needed()
    assert n is not None
    spread = 0.03**2 / (1 / 2 + 1 / 2)
    assert 1.96 * np.sqrt(2 * spread / n + 0.002**2) <= 0.03
    assert 1.96 * np.sqrt(2 * spread / (n - 1) + 0.002**2) > 0.03
    assert c.images_needed() is None
    assert f"{n} seeds on each side would be enough to tell" in in_words(c, "AP", "a", "b")[1]
