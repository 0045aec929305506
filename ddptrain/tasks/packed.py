"""The predictions of many samples as a few flat arrays, which travel between ranks and are scored as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddptrain.errors import RunFailed


class Column(NamedTuple):
    """One named array of each of m samples.

    Attributes:
        samples: int64 `[m]`: the samples' numbers.
        shapes: int64 `[m, ndim]`.
        values: all arrays one after the other, flat.
    """

    samples: NDArray[np.int64]
    shapes: NDArray[np.int64]
    values: NDArray[Any]

    def rows(self) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """The arrays joined along their first axis (all others must agree), and int64 `[rows]`, the sample of each row."""
        trailing = self.shapes[:1, 1:].reshape(-1).tolist()
        return np.repeat(self.samples, self.shapes[:, 0]), self.values.reshape(-1, *trailing)


class PackedPredictions(Mapping[int, Mapping[str, NDArray[Any]]]):
    """Predictions by sample number; each is made from the columns when it is asked for, as views of them.

    Attributes:
        columns: by name, dtype and number of dimensions; commonly one for each name.
    """

    def __init__(self, columns: Mapping[tuple[str, str, int], Column]) -> None:
        self.columns = dict(columns)
        self._places: dict[int, list[tuple[str, Column, int]]] | None = None
        self._starts: dict[int, NDArray[np.int64]] = {}

    @classmethod
    def pack(cls, predictions: Mapping[int, Mapping[str, Any]]) -> PackedPredictions:
        """Those of some samples. Raises `RunFailed` where a value is no array of plain numbers or texts."""
        grouped: dict[tuple[str, str, int], tuple[list[int], list[NDArray[Any]]]] = {}
        for index, prediction in predictions.items():
            for name, value in prediction.items():
                array = np.asarray(value)
                if array.dtype.hasobject:
                    raise RunFailed(
                        f"predict: {name} of a prediction is a {type(value).__name__}; return NumPy arrays of numbers"
                    )
                numbers, arrays = grouped.setdefault((name, array.dtype.str, array.ndim), ([], []))
                numbers.append(index)
                arrays.append(array)
        return cls(
            {
                key: Column(
                    np.array(numbers, np.int64),
                    np.array([a.shape for a in arrays], np.int64).reshape(len(arrays), key[2]),
                    np.concatenate([a.reshape(-1) for a in arrays]),
                )
                for key, (numbers, arrays) in grouped.items()
            }
        )

    @classmethod
    def join(cls, parts: Sequence[PackedPredictions]) -> PackedPredictions:
        """The predictions of several parts, no sample in two of them."""
        if len(parts) == 1:
            return parts[0]
        keys = dict.fromkeys(key for part in parts for key in part.columns)
        joined = {key: [part.columns[key] for part in parts if key in part.columns] for key in keys}
        return cls({key: Column(*map(np.concatenate, zip(*columns))) for key, columns in joined.items()})

    def column(self, name: str) -> Column | None:
        """The one column of a name; None where no sample has it."""
        return next((column for key, column in self.columns.items() if key[0] == name), None)

    def numbers(self, name: str) -> NDArray[Any]:
        """The values of a name, one a sample, in no order; of none where no sample has it."""
        column = self.column(name)
        return np.zeros(0) if column is None else column.values

    def __getitem__(self, index: int) -> Mapping[str, NDArray[Any]]:
        out = {}
        for name, column, place in self._found()[index]:
            starts = self._starts[id(column)]
            out[name] = column.values[starts[place] : starts[place + 1]].reshape(column.shapes[place])
        return out

    def __iter__(self) -> Iterator[int]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())

    def _found(self) -> dict[int, list[tuple[str, Column, int]]]:
        """Where the arrays of each sample are, by its number, rising."""
        if self._places is None:
            found: dict[int, list[tuple[str, Column, int]]] = {}
            for (name, _, _), column in self.columns.items():
                self._starts[id(column)] = np.concatenate([[0], np.cumsum(column.shapes.prod(1))])
                for place, index in enumerate(column.samples.tolist()):
                    found.setdefault(index, []).append((name, column, place))
            self._places = dict(sorted(found.items()))
        return self._places
