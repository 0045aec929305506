"""Video sets: VisDrone-VID and UAVDT with one text file per sequence, UAVDT with one VOC-like XML file per frame."""

from collections.abc import Iterator
from pathlib import Path

from ddptrain.config.data import DatasetConfig
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import IGNORE, Box, Collector
from ddptrain.data.formats.fields import to_integer, to_number
from ddptrain.data.formats.files import (
    dataset_root,
    files_below,
    files_by_stem,
    find_folder,
    folders_in,
    frames_by_number,
    images_by_stem,
    no_split,
    visible,
)
from ddptrain.data.formats.texts import listed_names
from ddptrain.data.formats.visdrone import NAMES, add_visdrone_row, readable_rows, split_folder
from ddptrain.data.formats.voc import add_files, object_line, parse_folder
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults

VID_PREFIX = "VisDrone2019-VID-"
UAVDT_NAMES = ("car", "truck", "bus")
"""Categories 1 to 3 of UAVDT."""


class _Sequence:
    """The frames of one sequence on their way into a collector."""

    def __init__(self, collector: Collector, folder: Path, named_by: Path) -> None:
        self.collector = collector
        self.folder = folder
        paths = frames_by_number(folder, collector.faults) if folder.is_dir() else {}
        self.images = {frame: collector.image(path, str(named_by)) for frame, path in paths.items()}
        self.absent: set[int] = set()

    def rows(self, file: Path, fields: int) -> Iterator[tuple[int, int, int, list[str]]]:
        """(image, source, line, fields) of each row whose frame is there; counts one fault for each absent frame."""
        faults, source = self.collector.faults, self.collector.source(str(file))
        rows = readable_rows(file, faults)
        if rows is None:
            for image in self.images.values():
                if image is not None:
                    self.collector.leave_out(image)
        for number, values in rows or []:
            if len(values) != fields or not values[0].isdecimal():
                what = f"{','.join(values)}; a row must have {fields} fields and begin with the frame"
                faults.add("malformed row", f"{file}:{number}", what)
                continue
            frame = int(values[0])
            image = self.images.get(frame)
            if image is not None:
                yield image, source, number, values
            elif frame not in self.images:
                if frame not in self.absent:
                    self.absent.add(frame)
                    faults.add("label without image", f"{file}:{number}", f"frame {frame} is not in {self.folder}")
                faults.add("box of an image left out", f"{file}:{number}", f"frame {frame} does not exist")


def _report_unlabelled(folder: Path, why: str, faults: Faults) -> None:
    """Count the frames of a sequence that has no annotation file."""
    for path in frames_by_number(folder, faults).values() if folder.is_dir() else [str(folder)]:
        faults.add("image without label", path, why)


def read_visdrone_vid(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """VisDrone-VID: `annotations/<sequence>.txt` with `frame, target, left, top, width, height, score, category,
    truncation, occlusion` a row, `sequences/<sequence>/0000001.jpg`; frames count from 1. A frame without rows in a
    labelled sequence is background."""
    names = class_names(config, NAMES, "VisDrone-VID", faults)
    folder = split_folder(config, VID_PREFIX)
    annotations = find_folder(config, config.annotations, "annotations", [f"{folder}/annotations"])
    images_folder = find_folder(config, config.images, "images", [f"{folder}/sequences"])
    collector = Collector(config, faults)
    files = [Path(p) for p in files_below(annotations, {".txt"}, faults, deep=False)]
    for file in files:
        sequence = _Sequence(collector, images_folder / file.stem, file)
        for image, source, line, fields in sequence.rows(file, 10):
            add_visdrone_row(collector, image, source, line, fields[2:])
    for name in sorted(set(folders_in(images_folder)) - {f.stem for f in files}):
        _report_unlabelled(images_folder / name, f"no file of {name} in {annotations}", faults)
    return collector.table(names, ignored_names=names[-1:])


def lists_of(config: DatasetConfig, existing: list[str]) -> dict[str, list[str]]:
    """Sequences of each split: `M_attr/<split>/<sequence>_attr.txt` as UAVDT comes, or `<split>.txt` with one name a
    line. A split by sequence; one by frames would put near-equal pictures into training and validation. Text files that
    name none of the sequences that are there are no lists."""
    root, lists = dataset_root(config), dict[str, list[str]]()
    for file in visible(root, "M_attr/*/*_attr.txt"):
        lists.setdefault(file.parent.name, []).append(file.name.removesuffix("_attr.txt"))
    lists |= {file.stem: [entry for entry, _ in listed_names(file)] for file in visible(root, "*.txt")}
    return {split: names for split, names in lists.items() if set(names) & set(existing)}


def chosen_sequences(config: DatasetConfig, existing: list[str]) -> list[str]:
    """The sequences of the split, or all that are there where no split is asked for and no list exists."""
    lists = lists_of(config, existing)
    if config.split is None and not lists:
        return existing
    if config.split not in lists:
        raise no_split(config, lists)
    return lists[config.split]


def _uavdt_annotations(config: DatasetConfig) -> tuple[Path, list[str]]:
    """The folder of the annotations and its sequences."""
    folder = find_folder(config, config.annotations, "annotations", ["GT", "UAV-benchmark-MOTD_v1.0/GT"])
    return folder, [p.name.removesuffix("_gt_whole.txt") for p in visible(folder, "*_gt_whole.txt")]


def uavdt_splits(config: DatasetConfig) -> list[str]:
    """The splits for which there is a list of sequences."""
    return list(lists_of(config, _uavdt_annotations(config)[1]))


def read_uavdt(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """UAVDT: `GT/<sequence>_gt_whole.txt` with `frame, target, left, top, width, height, out-of-view, occlusion,
    category` a row, ignore regions in `<sequence>_gt_ignore.txt` (may be absent), images `<sequence>/img000001.jpg`;
    frames count from 1. A frame without rows is background."""
    names = class_names(config, UAVDT_NAMES, "UAVDT", faults)
    annotations, existing = _uavdt_annotations(config)
    images_folder = find_folder(config, config.images, "images", ["UAV-benchmark-M", "images", "sequences", "."])
    collector = Collector(config, faults)
    for name in chosen_sequences(config, existing):
        file, ignored = annotations / f"{name}_gt_whole.txt", annotations / f"{name}_gt_ignore.txt"
        if name not in existing:
            _report_unlabelled(images_folder / name, f"{file} does not exist", faults)
            continue
        sequence = _Sequence(collector, images_folder / name, file)
        for row in sequence.rows(file, 9):
            _add_uavdt_row(collector, *row, ignore=False)
        if ignored.is_file():
            for row in sequence.rows(ignored, 9):
                _add_uavdt_row(collector, *row, ignore=True)
    if config.split is None:
        for folder in (images_folder / name for name in folders_in(images_folder) if name not in existing):
            if images_folder != dataset_root(config) or visible(folder, "img*"):  # in the root other folders lie, too
                _report_unlabelled(folder, f"no file of {folder.name} in {annotations}", faults)
    return collector.table(names)


def _add_uavdt_row(collector: Collector, image: int, source: int, line: int, fields: list[str], ignore: bool) -> None:
    where = collector.place(collector.sources[source], line)
    try:
        left, top, width, height = map(to_number, fields[2:6])
        category = to_integer(fields[8])
    except ValueError as e:
        collector.faults.add("malformed row", where, f"{','.join(fields)}: {e}")
        return
    box: Box = (left, top, left + width, top + height)
    if ignore:
        collector.row(image, source, line, box, -1, IGNORE)
    elif 1 <= category <= len(UAVDT_NAMES):
        collector.row(image, source, line, box, category - 1)
    else:
        collector.faults.add("unknown class", where, f"category {category}; must be from 1 to {len(UAVDT_NAMES)}")


def sequence_of(stem: str) -> str:
    """The sequence of a frame, from its folder or from what stands before the last underscore."""
    return stem.partition("/")[0] if "/" in stem else stem.rpartition("_")[0]


def uavdt_xml_splits(config: DatasetConfig) -> list[str]:
    """The splits for which there is a list of sequences."""
    stems = files_by_stem(_annotations(config), {".xml"}, Faults())
    return list(lists_of(config, [sequence_of(s) for s in stems]))


def _annotations(config: DatasetConfig) -> Path:
    return find_folder(config, config.annotations, "annotations", ["Annotations", "annotations", "GT"])


def read_uavdt_xml(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """UAVDT as `Annotations/<sequence>/img000001.xml` (or `<sequence>_img000001.xml`) beside images of the same path and name:
    `annotation/object/name + bndbox`, often without a size. Splits are those of `uavdt`; a name but car, truck and bus is a
    fault."""
    annotations = _annotations(config)
    images_folder = find_folder(config, config.images, "images", ["JPEGImages", "UAV-benchmark-M", "images", "."])
    names = class_names(config, UAVDT_NAMES, "UAVDT", faults)
    parsed = parse_folder(annotations, faults)
    sequences = set(chosen_sequences(config, sorted({sequence_of(s) for s in parsed})))
    stems = [(s, f"{annotations / s}.xml") for s in parsed if sequence_of(s) in sequences]
    collector = Collector(config, faults, place=object_line)
    known = add_files(collector, stems, parsed, (annotations, images_folder), UAVDT_NAMES)
    images = images_by_stem(images_folder, Faults(), deep=True)
    pictured = {sequence_of(s) for s in images} - {""}
    for name in sorted(sequences - pictured - {sequence_of(s) for s in parsed}):
        _report_unlabelled(images_folder / name, "neither images nor XML files", faults)
    if config.split is None and images_folder != dataset_root(config):  # in the root other images lie, too
        sequences |= pictured
    for stem, path in images.items():
        if sequence_of(stem) in sequences and path not in known:
            faults.add("image without label", path, f"{annotations / stem}.xml does not exist")
    return collector.table(names)
