"""What each dataset's classes become, and what may not vanish in silence."""

import numpy as np
import pytest

from ddptrain.config.data import DatasetConfig
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.labels import DROP, IGNORE, LabelSpace, named_like_regions
from ddptrain.errors import UserError

CLASSES = ("car", "bus", "person")


def table_of(names: tuple[str, ...], labels: list[int], ignored_names: tuple[str, ...] = ()) -> AnnotationTable:
    """One image per row; a row's area is its number; rows with label -1 are ignore regions."""
    n = len(labels)
    return AnnotationTable(
        name="d",
        root=".",
        names=names,
        paths=Paths.pack(f"{i}.jpg" for i in range(n)),
        sizes=np.full((n, 2), 10, np.int32),
        offsets=np.arange(n + 1, dtype=np.int64),
        boxes=np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1)),
        labels=np.array(labels, np.int32),
        ignore=np.array(labels, np.int32) < 0,
        crowd=np.zeros(n, bool),
        area=np.arange(n, dtype=np.float32),
        ignored_names=ignored_names,
    )


def build(table: AnnotationTable, **config: object) -> LabelSpace:
    return LabelSpace.build(CLASSES, [DatasetConfig(name="d", format="voc", root=".", **config)], [table])


def test_every_way_for_a_class_and_back_to_rows() -> None:
    table = table_of(("Car", "bus", "tram", "dog", "van"), [0, 1, 2, 3, 4, -1, 0])
    space = build(table, rename={"Car": "car", "van": "car"}, ignore=("tram",), drop=("dog",))
    assert space.maps[0].tolist() == [0, 1, IGNORE, DROP, 0]
    assert space.annotated.tolist() == [[True, True, False]]
    mapped = space.apply(table)
    assert mapped.names == CLASSES
    assert mapped.area.tolist() == [0, 1, 2, 4, 5, 6]
    assert mapped.labels.tolist() == [0, 1, -1, 0, -1, 0]
    assert mapped.ignore.tolist() == [False, False, True, False, True, False]
    assert len(mapped) == 7
    assert mapped.offsets.tolist() == [0, 1, 2, 3, 3, 4, 5, 6]


def test_an_ignored_box_keeps_its_class() -> None:
    table = table_of(("car", "bus"), [0, 1])
    table.ignore[:] = True
    mapped = build(table).apply(table)
    assert mapped.labels.tolist() == [0, 1]
    assert mapped.ignore.all()


def test_columns_are_not_copied_where_nothing_is_dropped() -> None:
    table = table_of(("bus", "dog"), [0, 1])
    assert build(table, ignore=("dog",)).apply(table).boxes is table.boxes


def test_the_table_that_was_read_stays_as_it_is() -> None:
    table = table_of(("bus", "dog"), [0, 1])
    build(table, drop=("dog",)).apply(table)
    assert table.labels.tolist() == [0, 1]
    assert not table.ignore.any()


def test_nothing_vanishes_in_silence() -> None:
    table = table_of(("Car", "bus", "dog"), [0])
    with pytest.raises(UserError) as caught:
        build(table)
    message = str(caught.value)
    assert "\n" not in message
    assert "Car, dog" in message
    assert "rename: {Car: car} fits" in message
    for way in ("rename them", "ignore", "drop", "add them to classes"):
        assert way in message


@pytest.mark.parametrize(("key", "becomes"), [("drop", DROP), ("ignore", IGNORE)])
def test_star_means_all_others(key: str, becomes: int) -> None:
    table = table_of(("car", "dog", "Bus", "cat"), [0])
    space = build(table, rename={"Bus": "bus"}, **{key: ("*",)})
    assert space.maps[0].tolist() == [0, becomes, 1, becomes]


def test_star_renames_all_others() -> None:
    table = table_of(("car", "dog", "Bus", "cat", "tram"), [0], ignored_names=("tram",))
    space = build(table, rename={"Bus": "bus", "*": "car"}, drop=("cat",))
    assert space.maps[0].tolist() == [0, 0, 1, DROP, IGNORE]
    with pytest.raises(UserError, match=r"'\*' is listed in more than one"):
        build(table, rename={"*": "car"}, drop=("*",))


def test_what_the_benchmark_ignores_is_ignored_unless_named() -> None:
    table = table_of(("car", "others"), [0, 1], ignored_names=("others",))
    assert build(table).maps[0].tolist() == [0, IGNORE]
    assert build(table, drop=("*",)).maps[0].tolist() == [0, IGNORE]
    assert build(table, drop=("others",)).maps[0].tolist() == [0, DROP]
    assert build(table, rename={"others": "bus"}).maps[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    "config",
    [{"rename": {"Bus": "bus"}}, {"ignore": ("dgo",)}, {"drop": ("cat",)}],
)
def test_a_name_that_is_not_there_is_refused(config: dict) -> None:
    with pytest.raises(UserError, match=r"is not one of its classes: car, dog"):
        build(table_of(("car", "dog"), [0]), **{"drop": ("dog",), **config})


def test_one_fate_for_each_class() -> None:
    with pytest.raises(UserError, match="'dog' is listed in more than one"):
        build(table_of(("car", "dog"), [0]), ignore=("dog",), drop=("dog",))


@pytest.mark.parametrize(
    ("annotated", "expected"),
    [(None, [True, False, False]), ("all", [True, True, True]), (("car", "person"), [True, False, True])],
)
def test_annotated(annotated: object, expected: list[bool]) -> None:
    assert build(table_of(("car",), [0]), annotated=annotated).annotated.tolist() == [expected]


def test_annotated_may_not_leave_out_a_class_that_has_boxes() -> None:
    with pytest.raises(UserError, match="has labels of 'car', which annotated leaves out"):
        build(table_of(("car",), [0]), annotated=("bus",))


def test_each_dataset_has_its_own_map() -> None:
    a, b = table_of(("car",), [0]), table_of(("bus", "car"), [0, 1])
    configs = [DatasetConfig(name=n, format="voc", root=".") for n in ("a", "d")]
    space = LabelSpace.build(CLASSES, configs, [a, b])
    assert space.annotated.tolist() == [[True, False, False], [True, True, False]]
    assert space.apply(b).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "name",
    [
        "ignored",
        "Ignored regions",
        "ignored-region",
        "IGNORE",
        "ignore_region",
        "DontCare",
        "don't care",
        "void",
        "0_void",
    ],
)
def test_names_of_ignore_regions(name: str) -> None:
    assert named_like_regions(("car", name, "others")) == [name]


def test_names_of_classes_are_none_of_regions() -> None:
    assert named_like_regions(("avoid", "ignition", "label", "region", "cardboard box", "care", "others", "unknown", "")) == []
