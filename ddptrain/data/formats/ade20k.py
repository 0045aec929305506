"""The index of the full ADE20K (ADE20K_2021_17_01): names of its more than 3 000 kinds of object.

index_ade20k.pkl                                                   a pickled dict; objectnames[k - 1] is class k
images/ADE/training/<kind of scene>/<scene>/ADE_train_00000001.jpg
                                            ADE_train_00000001_seg.png        R / 10 × 256 + G is the class, 0 none
                                            ADE_train_00000001_parts_1.png    parts of objects, which are not read
"""

import difflib
import importlib
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

from ddptrain.data.tables.masks import WIDE
from ddptrain.errors import UserError

INDEX = "index_ade20k.pkl"
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric", "numpy")
_ALLOWED = {*((m, n) for m in _MODULES for n in ("_reconstruct", "scalar", "ndarray", "dtype", "_frombuffer"))} | {
    ("_codecs", "encode"),
    ("builtins", "bytearray"),
    ("collections", "OrderedDict"),
}


class _PlainData(pickle.Unpickler):
    """Reads dicts, lists, text, numbers and arrays; a pickle may call any function, so that others are refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it calls {module}.{name}")
        return getattr(importlib.import_module(module), name)


def object_names(name: str, file: Path) -> tuple[str, ...]:
    """Names of all classes, in the order of their numbers, which start at 1; `UserError` of the dataset `name` where there are
    none."""
    if not file.is_file():
        raise UserError(f"{name}: no {file}, which holds the class names; put it there")
    try:
        with file.open("rb") as stream:
            content = _PlainData(stream).load()
        names = tuple(str(n) for n in content["objectnames"])
    except Exception as e:  # broken pickles raise nearly anything
        reason = " ".join(str(e).split()) or type(e).__name__
        raise UserError(
            f"{name}: {file}: not an index of ADE20K with objectnames ({reason}); take the file it came with"
        ) from None
    if not 0 < len(names) < WIDE:
        raise UserError(f"{name}: {file}: {len(names)} objectnames; must be 1 to {WIDE - 1}")
    return names


def short_names(objects: tuple[str, ...]) -> tuple[str, ...]:
    """The first synonym of each class, or all of them where others begin with it, too."""
    first = [_first(names) for names in objects]
    count = Counter(first)
    return tuple(short if count[short] == 1 else whole for short, whole in zip(first, objects))


def class_number(name: str, synonym: str, objects: tuple[str, ...]) -> int:
    """Number of a class by all its synonyms or by the first; `UserError` of the dataset `name` where there is not one."""
    if synonym in objects:
        return objects.index(synonym) + 1
    numbers = [k for k, names in enumerate(objects, 1) if _first(names) == synonym]
    if len(numbers) == 1:
        return numbers[0]
    if numbers:
        several = "; ".join(objects[k - 1] for k in numbers[:5])
        raise UserError(f"{name}: names: {synonym!r} is the first name of several classes: {several}; write one of them out")
    near = ", ".join(difflib.get_close_matches(synonym, short_names(objects), n=3, cutoff=0)) or "none"
    raise UserError(f"{name}: names: {synonym!r} is not a class in {INDEX}; the nearest names there: {near}")


def _first(names: str) -> str:
    return names.split(",")[0].strip()
