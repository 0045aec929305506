"""The matching against hand-made answers, and the precision against pycocotools' own arrays, on random scenes."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_worlds import cocoeval, found, truth

from ddptrain.metrics import pairs
from ddptrain.metrics.arrays import DetectionArrays, GroundTruth
from ddptrain.metrics.matches import Matches
from ddptrain.metrics.matching import THRESHOLDS, assign, match
from ddptrain.metrics.precision import precision_at_recalls

A, B = (0, 0, 20, 20), (100, 0, 120, 20)


def shifted(box: tuple[int, ...], by: float) -> tuple[float, ...]:
    return (box[0] + by, box[1], box[2] + by, box[3])


def test_assign_gives_the_best_its_wish_and_sends_others_on() -> None:
    detection = np.array([0, 0, 1, 1, 2, 2, 3])
    box = np.array([1, 0, 1, 0, 1, 2, 2])
    got, boxes = assign(detection, box, np.array([False, False, True]))
    # 0 has box 1, so that 1 takes box 0 and 2 the shared one, in which 3 lies too
    assert got.tolist() == [0, 1, 2, 3]
    assert boxes.tolist() == [1, 0, 2, 2]
    alone, box_of_it = assign(detection, box, np.zeros(3, bool))
    assert alone.tolist() == [0, 1, 2]
    assert box_of_it.tolist() == [1, 0, 2]
    assert assign(detection[:0], box[:0], np.zeros(0, bool))[0].tolist() == []


def test_assign_undoes_what_a_better_one_claims_later() -> None:
    """0 sends 1 away from box 4; 1 goes on to box 5, from which it sends 2 away, and 2 sends 3 away from box 6."""
    detection = np.array([0, 1, 1, 2, 2, 3])
    box = np.array([4, 4, 5, 5, 6, 6])
    got, boxes = assign(detection, box, np.zeros(7, bool))
    assert dict(zip(got.tolist(), boxes.tolist())) == {0: 4, 1: 5, 2: 6}


def test_matches_by_hand() -> None:
    """Two boxes and an ignore region of every class: who finds what, at IoU 0.5 and at 0.9."""
    world = truth([(0, A, 0), (0, B, 1), (1, A, 0), (1, (0, 0, 50, 50), 0)], 2, 2, ignore=[3])
    got = match(
        world,
        found(
            [
                (1, shifted(A, 1), 0, 0.3),  # IoU 19/21 with the box
                (0, A, 0, 0.9),
                (0, shifted(A, 5), 0, 0.8),  # IoU 15/25, but the box is taken
                (0, B, 0, 0.7),  # of another class
                (1, (30, 30, 40, 40), 1, 0.6),  # in the region
                (0, B, 1, 0.5),
            ]
        ),
    )
    assert got.label.tolist() == [0, 0, 0, 0, 1, 1]
    assert got.row.tolist() == [1, 2, 3, 0, 4, 5]
    assert got.image.tolist() == [0, 0, 0, 1, 1, 0]
    assert got.truth[0].tolist() == [0, -1, -1, 2, 3, 1]
    assert got.result[0, 0].tolist() == [1, 0, 0, 1, -1, 1]
    assert got.truth[9].tolist() == [0, -1, -1, 3, 3, 1]  # too far from its box, but in the region
    assert got.truth_label.tolist() == [0, 1, 0, -1]
    assert got.truths().tolist() == [2, 1]
    assert got.counts.tolist() == [[True, True, True, False], [True, True, True, False], [False] * 4, [False] * 4]
    # of no other size than small: the boxes are 20 x 20
    assert (got.result[2:] == -1).all()


def test_a_detection_that_overlaps_two_sizes() -> None:
    """It takes the box that counts where there is one, and the other box only in the views of its size."""
    small, large = (0, 0, 32, 32), (0, 0, 33, 32)
    world = truth([(0, small, 0), (0, large, 0)], 1, 1)
    got = match(world, found([(0, large, 0, 0.9), (0, small, 0, 0.8)]))
    assert got.truth[0].tolist() == [1, 0]
    assert got.result[1, 0].tolist() == [1, -1]  # the first has the small box, which alone counts
    assert got.result[2, 0].tolist() == [1, 1]  # 32² is both small and medium, ends included
    assert got.result[3, 0].tolist() == [-1, -1]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[GroundTruth, DetectionArrays]:
    """A crowded scene of whole numbers: equal scores and overlaps, crowds, ignore regions, empty images and classes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    images, classes = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    count, size = draw(st.integers(0, 60)), draw(st.integers(0, 400))
    spread = draw(st.sampled_from([8, 60, 300]))

    def boxes(n: int) -> np.ndarray:
        corner = rng.integers(0, spread, (n, 2))
        return np.concatenate([corner, corner + rng.choice([4, 8, 32, 33, 96, 128], (n, 2))], 1).astype(np.float32)

    image = np.sort(rng.integers(0, images, count))
    own = boxes(count)
    ignore = rng.random(count) < draw(st.sampled_from([0, 0, 0.1]))
    world = GroundTruth(
        "d",
        own,
        rng.integers(0, classes, count),
        ignore,
        (rng.random(count) < draw(st.sampled_from([0, 0.2]))) & ~ignore,
        (own[:, 2:] - own[:, :2]).prod(1) * rng.choice([1.0, 0.5], count),
        np.searchsorted(image, np.arange(images + 1)),
        np.ones(classes, bool),
    )
    copied = rng.integers(0, max(count, 1), size)
    near = (rng.random(size) < 0.7) & (count > 0)
    at = boxes(size)
    if count:
        at[near] = own[copied[near]] + rng.integers(-2, 3, (int(near.sum()), 4))
    at[:, 2:] = np.maximum(at[:, 2:], at[:, :2] + 1)
    labels = rng.integers(0, classes, size)
    if count:
        labels[near] = world.labels[copied[near]]
    where = rng.integers(0, images, size)
    if count:
        where[near] = image[copied[near]]
    return world, DetectionArrays(where, at, (rng.integers(1, 20, size) / 20).astype(np.float32), labels)


@settings(max_examples=120, deadline=None)
@given(scenes(), st.sampled_from([1, 3, 100]))
def test_precision_is_that_of_pycocotools_to_the_last_bit(scene: tuple[GroundTruth, DetectionArrays], most: int) -> None:
    world, detections = scene
    with contextlib.redirect_stdout(io.StringIO()):
        wanted = cocoeval(world, detections, most)
    got = precision_at_recalls(match(world, detections, most))
    for ours, theirs in ((got.precision, wanted["precision"]), (got.recall, wanted["recall"])):
        theirs = theirs[..., -1]
        assert (np.isnan(ours) == (theirs == -1)).all()
        assert np.abs(np.nan_to_num(ours, nan=-1) - theirs).max() <= 2e-16


@settings(max_examples=30, deadline=None)
@given(scenes(), st.randoms())
def test_blocks_and_tables_do_not_matter(scene: tuple[GroundTruth, DetectionArrays], random: object) -> None:
    world, detections = scene
    one = match(world, detections)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "AT_ONCE", 7)
        patch.setattr(pairs, "TABLE", 0)
        other = match(world, detections)
    assert (one.result == other.result).all()
    assert (one.truth == other.truth).all()


@settings(max_examples=30, deadline=None)
@given(scenes(), scenes())
def test_two_datasets_are_one_with_all_their_images(
    first: tuple[GroundTruth, DetectionArrays], second: tuple[GroundTruth, DetectionArrays]
) -> None:
    classes = max(len(world.annotated) for world, _ in (first, second))
    worlds, detections = [], []
    for world, own in (first, second):
        annotated = np.arange(classes) < len(world.annotated)
        worlds.append(GroundTruth(**{**{n: getattr(world, n) for n in world.__slots__}, "annotated": annotated}))
        detections.append(own)
    joined = Matches.concatenate([match(w, d) for w, d in zip(worlds, detections)])
    a, b = worlds
    columns = {n: np.concatenate([getattr(a, n), getattr(b, n)]) for n in ("boxes", "labels", "ignore", "crowd", "area")}
    whole = GroundTruth(
        "d", **columns, offsets=np.concatenate([a.offsets, b.offsets[1:] + a.offsets[-1]]), annotated=np.ones(classes, bool)
    )
    moved = detections[1]._replace(image=detections[1].image + a.images)
    direct = match(whole, DetectionArrays.concatenate([detections[0], moved]))
    for name in ("image", "label", "score", "box", "truth_image", "truth_label", "counts"):
        assert (getattr(joined, name) == getattr(direct, name)).all(), name
    assert joined.images == direct.images
    if a.annotated.all() and b.annotated.all():
        assert (joined.result == direct.result).all()
        assert (joined.truth == direct.truth).all()


def test_what_is_found_at_a_higher_overlap_is_found_at_a_lower_one() -> None:
    """Not so in general of a single detection, but of the box that a lone detection overlaps."""
    world = truth([(0, A, 0), (0, B, 0)], 1, 1)
    got = match(world, found([(0, shifted(A, 2), 0, 0.9), (0, shifted(B, 4), 0, 0.8)]))
    hits = (got.result[0] == 1).sum(0)
    assert hits.tolist() == [int((THRESHOLDS <= 18 / 22).sum()), int((THRESHOLDS <= 16 / 24).sum())]


def test_select_keeps_the_truth() -> None:
    world = truth([(0, A, 0), (0, B, 1)], 1, 2)
    whole = match(world, found([(0, A, 0, 0.9), (0, B, 1, 0.8), (0, A, 1, 0.3)]))
    part = whole.select(whole.score > 0.5)
    assert part.score.tolist() == pytest.approx([0.9, 0.8])
    assert part.result.shape == (4, 10, 2)
    assert part.truths().tolist() == [1, 1]
