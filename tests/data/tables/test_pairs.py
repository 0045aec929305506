"""Pairs on a panorama: the seam is not a border, order and mirror do not matter, and what is not drawn is not learned from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ddptrain.config import AugmentConfig, PairsConfig
from ddptrain.data.augment.view import ImageView
from ddptrain.data.samples.interaction import crops
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.labels import DROP, IGNORE
from ddptrain.data.tables.pairs import PairTable, cut, find_pairs, geometry, is_candidate, seam_distance, union
from ddptrain.data.tables.people import PeopleTable

W, H = 240, 40
places = st.integers(0, W - 1)


@st.composite
def boxes(draw: st.DrawFn) -> np.ndarray:
    """float64 `[1, 4]`, whole pixels, perhaps over the seam."""
    x, y = draw(places), draw(st.integers(0, H - 9))
    return np.array([[x, y, x + draw(st.integers(2, 60)), draw(st.integers(y + 2, H))]], np.float64)


def turned(box: np.ndarray, by: int) -> np.ndarray:
    """The same box in a panorama that is rolled to the right."""
    start = (box[:, 0] + by) % W
    return np.stack([start, box[:, 1], start + box[:, 2] - box[:, 0], box[:, 3]], 1)


def mirrored(box: np.ndarray) -> np.ndarray:
    start = (-box[:, 2]) % W
    return np.stack([start, box[:, 1], start + box[:, 2] - box[:, 0], box[:, 3]], 1)


@given(places, places, places)
def test_distance_goes_around_the_seam(a: int, b: int, by: int) -> None:
    d = float(seam_distance(a, b, W))
    assert d == seam_distance(b, a, W) <= W / 2
    assert d == seam_distance((a + by) % W, (b + by) % W, W)
    assert d == min(abs(a - b + k * W) for k in (-1, 0, 1))


@given(boxes(), boxes(), places)
def test_geometry_and_candidates_know_no_order_no_seam_and_no_mirror(a: np.ndarray, b: np.ndarray, by: int) -> None:
    found = geometry(a, b, (W, H))
    assert np.isfinite(found).all()
    for p, q in ((b, a), (turned(a, by), turned(b, by)), (mirrored(a), mirrored(b))):
        np.testing.assert_allclose(geometry(p, q, (W, H)), found, atol=1e-5)
    for multiplier in (0.3, 1.0, 3.0):
        assert is_candidate(a, b, W, multiplier) == is_candidate(b, a, W, multiplier)
        assert is_candidate(a, b, W, multiplier) == is_candidate(turned(a, by), turned(b, by), W, multiplier)


def test_overlap_is_that_of_the_boxes() -> None:
    a, b = np.array([[230.0, 0, 250, 20]]), np.array([[0.0, 10, 20, 30]])  # 10 x 10 pixels are common, across the seam
    found = dict(zip(("distance", "overlap"), geometry(a, b, (W, H))[0, [0, 6]].tolist()))
    assert found == pytest.approx({"distance": 10 / 20, "overlap": 100 / (400 + 400 - 100)})


def test_the_threshold_is_the_mean_of_both_widths() -> None:
    small, large = np.array([[0.0, 0, 10, 20]]), np.array([[40.0, 0, 70, 20]])  # centres 50 apart, mean width 20
    assert is_candidate(small, large, W, 2.5).all()
    assert not is_candidate(small, large, W, 2.4).any()


@given(boxes(), boxes(), places)
def test_crops_around_the_seam_are_those_of_the_rolled_panorama(a: np.ndarray, b: np.ndarray, by: int) -> None:
    assume((a[0, ::2].mean() - b[0, ::2].mean()) % W != W / 2)  # of two who stand opposite, neither is on the right
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    rolled = np.roll(image, by, 1)
    np.testing.assert_array_equal(cut(image, a[0]), cut(rolled, turned(a, by)[0]))
    around = union(a[0], b[0], W)
    assert 0 <= around[0] < W
    assert around[2] - around[0] <= W
    np.testing.assert_array_equal(around, union(b[0], a[0], W))
    both, both_turned = (np.concatenate(p) for p in ((a, b), (turned(a, by), turned(b, by))))
    drawn = ImageView.draw(32, AugmentConfig(rotate=5), 3, 5)
    for how in (ImageView.still(32), drawn):
        one, other = crops(image, both, how)[0], crops(rolled, both_turned, how)[0]
        if around[2] - around[0] < W:  # a union that is a whole turn begins where it likes
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one[..., :6], other[..., :6])
    swapped = crops(image, both[::-1], drawn)[0]
    np.testing.assert_array_equal(crops(image, both, drawn)[0], swapped[..., [3, 4, 5, 0, 1, 2, 6, 7, 8]])


@given(boxes(), boxes())
def test_crops_that_the_view_flips_are_those_of_the_mirrored_panorama(a: np.ndarray, b: np.ndarray) -> None:
    """So that each person of a flipped scene faces right when facing the other one, as in evaluation."""
    assume((a[0, ::2].mean() - b[0, ::2].mean()) % W != W / 2)
    a[:, 2:], b[:, 2:] = a[:, :2] + 16, b[:, :2] + 16  # the letterbox then shifts nothing sideways
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    drawn = ImageView.draw(32, AugmentConfig(hflip=1, scale=0, translate=0, hsv_h=0, hsv_s=0, hsv_v=0), 3, 5)
    shown = crops(image, np.concatenate([a, b]), drawn)[0]
    other = crops(image[:, ::-1], np.concatenate([mirrored(a), mirrored(b)]), ImageView.still(32))[0]
    np.testing.assert_array_equal(shown[..., :6], other[..., :6])


def test_the_crop_of_the_union_leads_back_to_the_panorama() -> None:
    image = np.zeros((H, W, 3), np.uint8)
    both = np.array([[230, 4, 250, 30], [4, 8, 20, 28]], np.float32)
    back = crops(image, both, ImageView.still(32))[1]
    corners = back @ np.array([[16, 16, 1]]).T  # the middle of the crop
    assert corners[:, 0] == pytest.approx([(230 + 260) / 2, (4 + 30) / 2], abs=0.6)


def table_of(groups: list[list[int]], singles: int = 0, frames: int = 1, **columns: np.ndarray) -> PeopleTable:
    """People in a row, all within reach of one another; the pairs of each group of people interact as class 0."""
    count = sum(map(len, groups)) + singles
    pairs = [sorted((i, j)) for g in groups for n, i in enumerate(g) for j in g[n + 1 :]]
    pairs = sorted([i + f * count, j + f * count] for f in range(frames) for i, j in pairs)
    x = np.tile(np.arange(count, dtype=np.float32), frames)
    base = {
        "name": "d",
        "root": "r",
        "names": ("talk", "walk"),
        "sequences": ("s",),
        "paths": Paths.pack(f"s/{f:06d}.jpg" for f in range(frames)),
        "sizes": np.tile(np.array([[W, H]], np.int32), (frames, 1)),
        "labelled": np.ones(frames, bool),
        "offsets": np.arange(frames + 1) * count,
        "boxes": np.stack([x, 0 * x, x + 30, 0 * x + 20], 1),
        "tracks": np.tile(np.arange(count, dtype=np.int32), frames),
        "no_eval": np.zeros(count * frames, bool),
        "pairs": np.array(pairs, np.int32).reshape(-1, 2),
        "pair_offsets": np.arange(len(pairs) + 1),
        "labels": np.zeros(len(pairs), np.int32),
        "difficulty": np.ones(len(pairs), np.int8),
    }
    return PeopleTable(**(base | columns))  # type: ignore[arg-type]


def search(
    table: PeopleTable, stage: int = 1, seed: int | None = 0, mapping: tuple[int, int] = (0, 1), **pairs: object
) -> tuple[PairTable, dict[str, tuple[int, int]]]:
    config = PairsConfig.model_validate(pairs)
    found, removed = find_pairs(table.to_classes(("talk", "walk"), np.array(mapping, np.int32)), config, stage, seed)
    return found, {r.rule: (r.interacting, r.others) for r in removed}


def as_set(pairs: PairTable, which: np.ndarray | None = None) -> set[tuple[int, ...]]:
    people = pairs.people if which is None else pairs.people[which]
    return {tuple(row) for row in people.tolist()}


def test_without_rules_every_pair_is_there_once() -> None:
    found, removed = search(table_of([[0, 1, 2]], 2, frames=2))
    assert len(found) == len(as_set(found)) == 2 * 10
    assert found.interacting.sum() == 2 * 3
    assert removed == {}
    assert (found.classes.any(1) == found.interacting).all()


@pytest.mark.parametrize(("ratio", "each"), [(0.1, 1), (0.3, 2), (1.0, 5), (2.0, 10), (9.0, 10)])
def test_group_sampling_draws_by_the_number_of_people(ratio: float, each: int) -> None:
    """Groups of 5 have 10 pairs; what is not drawn is gone, and is not a negative."""
    table = table_of([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], 2, frames=3)
    truth = {tuple(p) for p in table.pairs.tolist()}
    found, removed = search(table, use_group_sampling=True, max_group_samples_ratio=ratio)
    drawn = found.people[found.interacting]
    group = drawn[:, 0] // 12 * 2 + (drawn[:, 0] % 12) // 5
    assert np.bincount(group, minlength=6).tolist() == [each] * 6
    assert not as_set(found, ~found.interacting) & truth
    assert (~found.interacting).sum() == 3 * (12 * 11 // 2 - 20)
    if each < 10:
        assert removed == {f"beyond {ratio:g} × people of their group": (60 - 6 * each, 0)}


def chained(pairs: list[tuple[int, int]], people: int, **columns: np.ndarray) -> PeopleTable:
    """People of whom the file names these pairs, each with one label of class 0."""
    count = len(pairs)
    given = {
        "pairs": np.array(pairs, np.int32),
        "pair_offsets": np.arange(count + 1),
        "labels": np.zeros(count, np.int32),
        "difficulty": np.ones(count, np.int8),
    }
    return table_of([], people, **(given | columns))


def test_a_chain_is_one_group() -> None:
    """Connected components, not cliques: 0-1, 1-2, 2-3 are four people, all of whom interact; 4 stands by."""
    table = chained([(0, 1), (1, 2), (2, 3)], 5)
    found, _ = search(table, use_group_sampling=True, max_group_samples_ratio=9)
    assert as_set(found, found.interacting) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert as_set(found, found.classes[:, 0]) == {(0, 1), (1, 2), (2, 3)}  # nobody says how the others do
    assert as_set(found, ~found.interacting) == {(0, 4), (1, 4), (2, 4), (3, 4)}
    assert search(table, use_group_sampling=True, max_group_samples_ratio=0.5)[0].interacting.sum() == 2
    # training and validation agree on who interacts; stage 2 learns from what the file names
    assert as_set(found) == as_set(search(table, seed=None, use_group_sampling=True)[0])
    assert as_set(search(table, 2, use_group_sampling=True, max_group_samples_ratio=9)[0]) == {(0, 1), (1, 2), (2, 3)}


def test_without_group_sampling_the_pairs_that_the_file_names_interact() -> None:
    found, _ = search(chained([(0, 1), (1, 2)], 3))
    assert as_set(found, found.interacting) == {(0, 1), (1, 2)}


def test_a_group_hangs_together_by_who_is_left_out() -> None:
    """Across the seam, by a person who is not evaluated, and by two who stand too far apart to be looked at."""
    boxes = np.array([[W - 40, 0, W - 10, 20], [W - 15, 0, W + 15, 20], [5, 0, 35, 20]], np.float32)
    chain = chained([(0, 1), (1, 2)], 3, boxes=boxes)
    found, _ = search(chain, use_group_sampling=True, distance_multiplier=2)
    assert as_set(found, found.interacting) == {(0, 1), (0, 2), (1, 2)}
    hidden = chained([(0, 1), (1, 2)], 3, no_eval=np.array([False, True, False]))
    found, _ = search(hidden, use_group_sampling=True)
    assert as_set(found, found.interacting) == as_set(found) == {(0, 2)}
    far = chained([(0, 1), (1, 2)], 3, boxes=np.array([[0, 0, 9, 20], [90, 0, 99, 20], [12, 0, 21, 20]], np.float32))
    found, _ = search(far, use_group_sampling=True)
    assert as_set(found, found.interacting) == as_set(found) == {(0, 2)}


def test_what_only_an_unknown_interaction_connects_is_unknown() -> None:
    hard = chained([(0, 1), (1, 2), (2, 3)], 4, difficulty=np.array([1, 3, 1], np.int8))
    found, removed = search(hard, use_group_sampling=True, max_difficulty=2)
    assert as_set(found) == as_set(found, found.interacting) == {(0, 1), (2, 3)}
    assert removed == {"whose labels are ignored or too difficult": (4, 0)}
    ignored = chained([(0, 1), (1, 2)], 3, labels=np.array([0, 1], np.int32))
    assert as_set(search(ignored, mapping=(0, IGNORE), use_group_sampling=True)[0]) == {(0, 1)}
    # what is dropped is as if it were not in the file
    found, _ = search(ignored, mapping=(0, DROP), use_group_sampling=True)
    assert as_set(found, ~found.interacting) == {(0, 2), (1, 2)}


def test_negatives_are_thinned_and_positives_stay() -> None:
    table = table_of([[0, 1], [2, 3]], 4, frames=4)
    found, removed = search(table, max_negatives_per_frame=5, balance_ratio=1.5)
    assert found.interacting.sum() == 8
    assert (~found.interacting).sum() == 12
    assert removed == {
        "beyond 5 negatives of their frame": (0, 4 * (26 - 5)),
        "beyond 1.5 negatives for each interacting pair": (0, 20 - 12),
    }
    assert len(search(table, seed=None, max_negatives_per_frame=5, balance_ratio=1.5)[0]) == 4 * 28


def test_what_is_drawn_depends_on_seed_and_frame_alone() -> None:
    rules = {"use_group_sampling": True, "max_negatives_per_frame": 6}
    table = table_of([[0, 1, 2, 3]], 6, frames=4)
    one = as_set(search(table, **rules)[0])
    assert as_set(search(table, **rules)[0]) == one
    assert as_set(search(table, seed=1, **rules)[0]) != one
    first = table_of([[0, 1, 2, 3]], 6, frames=1)
    assert as_set(search(first, **rules)[0]) == {p for p in one if p[1] < 10}
    by_frame = [{(a % 10, b % 10) for a, b in one if a // 10 == f} for f in range(4)]
    assert len(set(map(frozenset, by_frame))) > 1


def test_labels_that_are_dropped_ignored_or_too_difficult() -> None:
    both = {"labels": np.array([0, 1, 1], np.int32), "difficulty": np.array([3, 1, 1], np.int8)}
    # 0-1 talk (difficult) and walk, 2-3 walk
    table = table_of([[0, 1], [2, 3]], 0, pair_offsets=np.array([0, 2, 3]), **both)
    assert search(table)[0].classes.tolist().count([True, True]) == 1
    found, _ = search(table, max_difficulty=2)
    assert found.classes[found.interacting].tolist() == [[False, True], [False, True]]
    found, removed = search(table, mapping=(0, IGNORE))
    assert removed == {"whose labels are ignored or too difficult": (1, 0)}  # 2-3, which is not a negative either
    assert found.interacting.sum() == 1
    found, removed = search(table, mapping=(0, IGNORE), max_difficulty=2)
    assert removed == {"whose labels are ignored or too difficult": (2, 0)}
    found, removed = search(table, mapping=(0, DROP))  # as if it were not in the file
    assert removed == {}
    assert as_set(found, found.interacting) == {(0, 1)}
    found, removed = search(table, stage=2)
    assert as_set(found) == {(0, 1), (2, 3)}
    assert removed == {"that do not interact (stage 2)": (0, 4)}


def test_people_who_are_not_evaluated_and_frames_that_nobody_labelled() -> None:
    table = table_of([[0, 1], [2, 3]], 1, no_eval=np.array([True, False, False, False, False]))
    found, removed = search(table, seed=None)
    assert removed == {"with people that are not evaluated": (1, 3)}
    assert not (found.people == 0).any()
    half = table_of([[0, 1]], 1, frames=2, labelled=np.array([False, True]))
    assert (search(half)[0].frame == 1).all()
    assert len(search(table_of([], 1))[0]) == 0
