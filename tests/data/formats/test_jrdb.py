"""JRDB's JSON: boxes around the seam, pairs of both kinds of file, sequences, and each fault in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ddptrain.config.interaction import InteractionDataset
from ddptrain.data.formats.jrdb import people_of, read_jrdb
from ddptrain.data.tables.faults import Faults
from ddptrain.data.tables.people import PeopleTable
from ddptrain.errors import UserError

W, H = 200, 40
Make = Callable[..., InteractionDataset]


def person(track: int, x: float = 10, **more: Any) -> dict[str, Any]:
    return {"label_id": f"pedestrian:{track}", "box": [x, 5, 20, 30], "attributes": {"no_eval": False}} | more


def met(track: int, **labels: int) -> dict[str, Any]:
    return {"pair": f"pedestrian:{track}", "box_pair": [0, 0, 1, 1], "inter_labels": labels}


def grouped(track: int, cluster: int, activity: dict[str, int], action: dict[str, int] | None = None) -> dict[str, Any]:
    group = {"cluster_ID": cluster, "cluster_stat": 1}
    return person(track, 5 * track, social_group=group, social_activity=activity, action_label=action or {})


@pytest.fixture
def jrdb(tmp_path: Path) -> Make:
    """Write sequences (name → frame → rows) and give the config of a dataset."""

    def make(
        sequences: dict[str, Any], folder: str = "labels/labels_2d_activity_social_stitched", **keys: Any
    ) -> InteractionDataset:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, frames in sequences.items():
            images = tmp_path / "images/image_stitched" / name
            images.mkdir(parents=True, exist_ok=True)
            for frame in frames:
                cv2.imwrite(str(images / frame), np.zeros((H, W, 3), np.uint8))
            (tmp_path / folder / f"{name}.json").write_text(json.dumps({"labels": frames}))
        return InteractionDataset(name="d", format="jrdb", root=str(tmp_path), **keys)

    return make


def read(config: InteractionDataset) -> PeopleTable:
    table, faults = read_jrdb(config)
    assert not faults.counts, faults.text()
    return table


def labels_of(table: PeopleTable, pair: int) -> dict[str, int]:
    rows = slice(table.pair_offsets[pair], table.pair_offsets[pair + 1])
    return {table.names[k]: int(d) for k, d in zip(table.labels[rows], table.difficulty[rows])}


def test_boxes_over_the_seam(jrdb: Make) -> None:
    rows = [person(0, 190), person(1, -10), person(2, 0), person(3, W - 20)]
    table = read(jrdb({"s": {"000000.jpg": rows}}))
    assert table.boxes[:, [0, 2]].tolist() == [[190, 210], [190, 210], [0, 20], [180, 200]]
    assert table.boxes[:, [1, 3]].tolist() == [[5, 35]] * 4
    assert table.sizes.tolist() == [[W, H]]


def test_interactions_of_both_directions_are_one_pair_with_all_labels(jrdb: Make) -> None:
    rows = [
        person(7, **{"H-interaction": [met(3, talk=2, walk=1)]}),
        person(3, **{"H-interaction": [met(7, talk=1, hug=3), met(9)]}),
        person(9, social_group={"cluster_ID": 1}, attributes={"no_eval": True}),
        person(8, social_group={"cluster_ID": 1}),
    ]
    table = read(jrdb({"s": {"000000.jpg": rows, "000015.jpg": [person(1)]}}))
    assert table.names == ("hug", "talk", "walk")
    assert table.pairs.tolist() == [[0, 1], [1, 2]]
    assert labels_of(table, 0) == {"talk": 1, "walk": 1, "hug": 3}
    assert labels_of(table, 1) == {}
    assert table.tracks.tolist() == [7, 3, 9, 8, 1]
    assert table.no_eval.tolist() == [False, False, True, False, False]
    # the file has interactions: groups do not count, and a frame without any is unknown
    assert table.labelled.tolist() == [True, False]


def test_a_pair_may_name_both(jrdb: Make) -> None:
    both = {"pair": ["pedestrian:4", "pedestrian:2"], "inter_labels": {"talk": 1}}
    table = read(jrdb({"s": {"000000.jpg": [person(2, **{"H-interaction": [both]}), person(4)]}}))
    assert table.pairs.tolist() == [[0, 1]]


def test_social_groups_where_no_interactions_are_named(jrdb: Make) -> None:
    rows = [
        grouped(0, 1, {"walking together": 1, "talking": 3}, {"walking": 1}),
        grouped(1, 2, {"walking together": 1}, {"walking": 1}),
        grouped(2, 1, {"walking together": 2}, {"walking": 1}),
        grouped(3, 1, {}, {"walking": 1}),
        grouped(4, 5, {}),
        grouped(5, 5, {}),
    ]
    table = read(jrdb({"s": {"000000.jpg": rows}}))
    assert table.pairs.tolist() == [[0, 2], [0, 3], [2, 3], [4, 5]]
    assert labels_of(table, 0) == {"walking together": 2}
    assert labels_of(table, 1) == labels_of(table, 2) == {"walking": 1}
    assert labels_of(table, 3) == {}


def test_boxes_alone_say_nothing_about_interactions(jrdb: Make) -> None:
    table = read(jrdb({"s": {"000000.jpg": [person(0), person(1)]}}, folder="labels/labels_2d_stitched"))
    assert len(table.boxes) == 2
    assert not table.labelled.any()


def test_splits_are_of_sequences(jrdb: Make, tmp_path: Path) -> None:
    rows = {"000000.jpg": [grouped(0, 1, {"a": 1}), grouped(1, 1, {"a": 1})]}
    other = {"000000.jpg": [grouped(0, 1, {"b": 1}), grouped(1, 1, {"b": 1})]}
    config = jrdb({"s1": rows, "s2": other, "s3": rows})
    (tmp_path / "val.txt").write_text("s2\n\n")
    assert read(config).sequences == ("s1", "s2", "s3")
    val = read(config.model_copy(update={"split": "val"}))
    assert val.sequences == ("s2",)
    assert len(val) == 1
    assert val.names == ("a", "b")  # those of all sequences, so that every split has the same
    two = read(config.model_copy(update={"sequences": ("s3", "s1")}))
    assert [Path(p).parent.name for p in two.paths] == ["s1", "s3"]
    for update, line in (
        ({"split": "test"}, "split test does not exist; splits in .*: val"),
        ({"sequences": ("s4",)}, "no JSON of the sequence s4; there are s1, s2, s3"),
        ({"sequences": ("s1",), "split": "val"}, "sequences and split are given"),
    ):
        with pytest.raises(UserError, match=line):
            read_jrdb(config.model_copy(update=update))


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([{"label_id": "pedestrian:3"}], "pedestrian:3: malformed row: has no box"),
        ([{"label_id": "pedestrian:3", "box": [1, 2, 3]}], "pedestrian:3: malformed row: box is [1, 2, 3]; must be"),
        ([{"box": [1, 2, 3, 4]}], "row 0: malformed row: has no label_id"),
        ([person(0, box=[1, 2, float("nan"), 4])], "pedestrian:0: non-finite number: box is [1, 2, nan, 4]"),
        ([person(0, **{"H-interaction": [met(5, talk=1)]})], "track without box: pedestrian:0 interacts with pedestrian:5"),
        ([person(0, **{"H-interaction": [met(0, talk=1)]})], "malformed row: pedestrian:0: H-interaction without another"),
        ([person(0, **{"H-interaction": ["talk"]})], "malformed row: pedestrian:0: H-interaction without another"),
        ([person(0, box=[1, 2, 3, "4"])], "pedestrian:0: malformed row: box is [1, 2, 3, '4']; must be"),
        ([person(0, box=[1, 2, 3, True])], "pedestrian:0: malformed row: box is [1, 2, 3, True]"),
        ([person(0, box=[0.5, 0.25, 0.125, 0.25])], "box in fractions: pedestrian:0"),
        ([person(0, attributes={"no_eval": "false"})], "pedestrian:0: malformed row: no_eval is 'false'; must be 0, 1, true"),
        ([grouped(0, [1], {"a": 1})], "pedestrian:0: malformed row: cluster_ID is [1]; must be an integer or a string"),
        ([grouped(0, 1, {"a": "hard"})], "pedestrian:0: malformed row: social_activity is {'a': 'hard'}; must be a mapping"),
        ([person(0, box=[1, 2, 5, 90])], "box outside image: pedestrian:0"),
        ([person(0, box=[1, 2, W + 5, 9])], "box outside image: pedestrian:0"),
    ],
)
def test_a_fault_is_one_line_with_its_place_or_dropped(jrdb: Make, rows: list[dict[str, Any]], line: str) -> None:
    config = jrdb({"s": {"000000.jpg": [*rows, person(1)]}})
    with pytest.raises(UserError) as e:
        read_jrdb(config)
    assert line in str(e.value)
    assert "s.json: 000000.jpg" in str(e.value)
    assert "\n" not in str(e.value)
    table, faults = read_jrdb(config, "drop")
    assert sum(faults.counts.values()) == 1
    assert 1 in table.tracks
    assert len(table.pairs) == 0


@pytest.mark.parametrize("odd", [3, "x", [1], {"a": [2]}, None])
def test_odd_values_end_in_no_traceback(jrdb: Make, odd: Any) -> None:
    """Whatever stands where groups, labels or attributes should is a fault; null counts as not given."""
    keys = ("attributes", "action_label", "social_group", "social_activity", "H-interaction")
    for key in keys:
        rows = [person(0, **{key: odd}), grouped(1, 4, {"a": 1}), grouped(2, 4, {"a": 1})]
        table, faults = read_jrdb(jrdb({"s": {"000000.jpg": rows}}), "drop")
        assert len(table.boxes) == (2 if "malformed row" in faults.counts and key != "H-interaction" else 3)
        assert ("malformed row" in faults.counts) == (
            odd is not None and not (key in ("attributes", "social_group") and isinstance(odd, dict))
        )
    with pytest.raises(UserError, match=r"has no box in this frame|no list|has no label_id|has no such frame"):
        people_of(Path(table.path(0)).with_name("000000.png"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"labels": []}', '{"labels": {"000000.jpg": []}}', '{"labels": {}}'])
def test_a_json_without_boxes_is_one_line(jrdb: Make, tmp_path: Path, text: str) -> None:
    config = jrdb({"s": {"000000.jpg": [person(0)]}})
    file = tmp_path / "labels/labels_2d_activity_social_stitched/s.json"
    file.write_text(text)
    with pytest.raises(UserError) as e:
        read_jrdb(config)
    assert str(file) in str(e.value)
    assert "\n" not in str(e.value)


def test_missing_images_and_folders(jrdb: Make, tmp_path: Path) -> None:
    config = jrdb({"s": {"000000.jpg": [person(0)], "000015.jpg": [person(0), person(1)]}})
    (tmp_path / "images/image_stitched/s/000000.jpg").unlink()
    with pytest.raises(UserError, match="missing image"):
        read_jrdb(config)
    table, _ = read_jrdb(config, "drop")
    assert table.tracks.tolist() == [0, 1]
    assert table.offsets.tolist() == [0, 2]
    with pytest.raises(UserError, match=r"no folder of annotations; looked for .*labels_2d_activity_social_stitched"):
        read_jrdb(config.model_copy(update={"annotations": None, "root": str(tmp_path / "images")}))


def test_people_of_a_panorama(jrdb: Make, tmp_path: Path) -> None:
    jrdb({"s": {"000000.jpg": [person(4), {"label_id": "pedestrian:5"}]}}, folder="labels/labels_2d_stitched")
    folder = tmp_path / "images/image_stitched/s"
    assert [p.track for p in people_of(folder / "000000.jpg")[0]] == [4]
    with pytest.raises(UserError, match="has no such frame"):
        people_of(folder / "000001.jpg")
    with pytest.raises(UserError, match="no labels of people found"):
        people_of(tmp_path / "elsewhere/0.jpg")


def test_the_real_sequence(data_root: Path) -> None:
    config = InteractionDataset(name="gates", format="jrdb", root=str(data_root / "jrdb_social"))
    table, faults = read_jrdb(config, "drop")
    assert isinstance(faults, Faults)
    assert faults.counts == {"missing image": 25, "box of an image left out": 500}
    assert len(table) == 6
    assert len(table.boxes) == 129
    assert np.unique(table.sizes, axis=0).tolist() == [[3760, 480]]
    # groups of 3, 2, 2 and 2 people in each frame
    assert len(table.pairs) == 6 * (3 + 1 + 1 + 1)


def test_numbers_that_no_column_holds(jrdb: Make) -> None:
    table = read(jrdb({"s": {"000000.jpg": [grouped(1, 1, {"w": 10**30}), grouped(2, 1, {"w": 10**30})]}}))
    assert table.difficulty.tolist() == [127]
    with pytest.raises(UserError, match=r"malformed row: label_id is 'pedestrian:4294967298'"):
        read_jrdb(jrdb({"s": {"000000.jpg": [person(2**32 + 2)]}}))
