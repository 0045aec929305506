"""UAVDT as one VOC-like XML file per frame: `annotation/object/name + bndbox`, often without a size.

`Annotations/<sequence>/img000001.xml` (or `<sequence>_img000001.xml`) beside images of the same path and name.
"""

from __future__ import annotations

from pathlib import Path

from ddptrain.config.data import DatasetConfig
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import Collector
from ddptrain.data.formats.files import files_by_stem, find_folder
from ddptrain.data.formats.sequences import UAVDT_NAMES, chosen_sequences, lists_of
from ddptrain.data.formats.voc import add_files, object_line, parse_folder
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults


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
    """Read the sequences of one split, chosen as for `uavdt`. Classes are car, truck and bus; another name is a
    fault."""
    annotations = _annotations(config)
    images_folder = find_folder(config, config.images, "images", ["JPEGImages", "UAV-benchmark-M", "images", "."])
    names = class_names(config, UAVDT_NAMES, "UAVDT", faults)
    parsed = parse_folder(annotations, faults)
    sequences = set(chosen_sequences(config, sorted({sequence_of(s) for s in parsed})))
    stems = [(s, f"{annotations / s}.xml") for s in parsed if sequence_of(s) in sequences]
    collector = Collector(faults, place=object_line, exif=config.exif)
    add_files(collector, stems, parsed, (annotations, images_folder), UAVDT_NAMES)
    return collector.table(config.name, config.root, names)
