"""The generated panoramas have what the task must cope with, and are the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddptrain.config import PairsConfig
from ddptrain.config.interaction import InteractionDataset
from ddptrain.data.formats.jrdb import read_jrdb
from ddptrain.data.synthetic.people import KINDS, WIDTH, make_sequence, write_people
from ddptrain.data.tables.pairs import find_pairs


def test_a_set_has_seams_groups_strangers_and_sequences(tmp_path: Path) -> None:
    write_people(tmp_path, train=4, val=2, frames=2, seed=3)
    config = InteractionDataset(name="halls", format="jrdb", root=str(tmp_path))
    table, faults = read_jrdb(config)
    assert not faults.counts
    assert len(table.sequences) == 6
    assert set(table.names) <= {*KINDS, "standing together"}
    frame = np.repeat(np.arange(len(table)), np.diff(table.offsets))
    over = {Path(table.path(i)).parent.name for i in frame[table.boxes[:, 2] > WIDTH].tolist()}
    assert over == set(table.sequences), "in every sequence somebody stands on the seam"
    assert table.no_eval.any()
    for split, numbers in (("train", 4), ("val", 2)):
        assert len(read_jrdb(config.model_copy(update={"split": split}))[0].sequences) == numbers
    pairs, _ = find_pairs(table.to_classes(("any",), np.zeros(len(table.names), np.int32)), PairsConfig(), 1, None)
    assert 0.1 < pairs.interacting.mean() < 0.6


def test_a_sequence_is_a_function_of_the_seed() -> None:
    assert make_sequence(1, 5) == make_sequence(1, 5)
    assert make_sequence(1, 5) != make_sequence(2, 5)
