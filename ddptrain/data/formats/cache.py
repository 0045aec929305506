"""Parsed tables on disk: read once, then mapped into memory in an instant, by all ranks and workers together.

```
<cache>/tables/<key>.json                      newest entry of a dataset: fingerprint, outside
<cache>/tables/<key>-<fingerprint>/meta.json   names, faults, checksums of all columns and of this file
                                  /boxes.npy … one file for each column of the table
```

The key is made of the dataset's config, the kind of table, and the readers' own source with the libraries that decode; the
fingerprint of name, size and times of every file in the dataset's folders. An entry is written aside and renamed, and never
written again, so that any number of processes, also on several machines over NFS, may read and write at the same time.
Superseded entries are removed after `KEEP_DAYS`; the whole folder may be deleted whenever no run uses it. A cache that
cannot be written is not used.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ddptrain.config.data import DatasetConfig, HoldoutDataset
from ddptrain.data.formats.build import check, parse
from ddptrain.data.formats.fingerprint import fingerprint, outside_of
from ddptrain.data.images.read import decoders
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Fault, Faults, OnFault
from ddptrain.data.tables.images import ImageTable
from ddptrain.data.tables.masks import MaskTable
from ddptrain.system import temporary
from ddptrain.system.files import write_text

_LOOKS: ContextVar[dict[tuple[str, ...], tuple[str, float]] | None] = ContextVar("looks", default=None)
Table = TypeVar("Table", AnnotationTable, ImageTable, MaskTable)

KEEP_DAYS = 7
READ_FROM = {"format", "root", "split", "holdout", "annotations", "images", "exif", "names", "void", "values"}
"""The keys that a reader looks at."""


def cache_folder() -> Path:
    """`DDPTRAIN_CACHE`, else `ddptrain` in the user's cache folder."""
    given = os.environ.get("DDPTRAIN_CACHE")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ddptrain"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddptrain"


def read_cached(
    config: HoldoutDataset, on_fault: OnFault = "error", folder: Path | None = None, settle: float = 2.0
) -> tuple[AnnotationTable, Faults]:
    """`formats.build.read` through the cache, see `cached`."""
    return cached(config, on_fault, lambda: parse(config), AnnotationTable, folder, settle)


def cached(
    config: DatasetConfig,
    on_fault: OnFault,
    parse: Callable[[], tuple[Table, Faults]],
    kind: type[Table],
    folder: Path | None = None,
    settle: float = 2.0,
) -> tuple[Table, Faults]:
    """A table of the class `kind` as `parse` reads it, or as it is stored in `folder` (default: `cache_folder()`); in
    either case checked as `formats.build.read` does.

    A dataset with a file that was changed less than `settle` seconds ago is not stored: clocks of file systems are
    coarse, and another change might leave the same time.
    """
    tables = (folder or cache_folder()) / "tables"
    key = _key(config, kind)
    known = _pointer(tables, key)
    started = time.time()
    stamp, newest = _look(config.root, known.get("outside", ()))
    damaged: tuple[str, str] | None = None
    if known.get("fingerprint") == stamp:
        entry = tables / f"{key}-{stamp}"
        try:
            table, faults = open_table(entry, kind)
        except (OSError, ValueError, KeyError, TypeError) as e:
            damaged = (str(entry), str(e)) if entry.is_dir() else None
        else:
            return check(config, dataclasses.replace(table, name=config.name, exif=config.exif), faults, on_fault)
    (_LOOKS.get() or {}).clear()  # reading takes long, and what was seen before it is old then
    table, faults = parse()
    table = dataclasses.replace(table, digests=table.hash_contents().view(np.int64))
    outside = outside_of(faults.looked_in, Path(config.root))
    if outside != known.get("outside", []):
        # files may have changed since they were read; then this fingerprint has a time after `started`
        stamp, newest = fingerprint(Path(config.root), outside)
    if newest < started - settle:
        with suppress(OSError):
            store_table(tables, key, stamp, outside, table, faults)
            table, faults = open_table(tables / f"{key}-{stamp}", kind)
            table = dataclasses.replace(table, name=config.name, exif=config.exif)
    if damaged:
        faults.add("damaged cache entry", *damaged)
    return check(config, table, faults, on_fault)


@contextmanager
def one_look() -> Iterator[None]:
    """Within it, a folder is looked at once for all datasets that lie in it, as long as none of them must be read again."""
    token = _LOOKS.set({})
    try:
        yield
    finally:
        _LOOKS.reset(token)


def _look(root: str, outside: Iterable[str]) -> tuple[str, float]:
    """`fingerprint`, or what it found a moment ago."""
    looks, key = _LOOKS.get(), (root, *outside)
    if looks is None:
        return fingerprint(Path(root), outside)
    if key not in looks:
        looks[key] = fingerprint(Path(root), outside)
    return looks[key]


@cache
def _readers_version() -> str:
    """Hash of the source of all readers and of what decodes images: a table of another version of them is read again."""
    data = Path(__file__).parents[1]
    sources = [p for room in ("formats", "images", "tables") for p in sorted((data / room).glob("*.py"))]
    return hashlib.blake2b(b"\0".join([decoders().encode(), *(p.read_bytes() for p in sources)]), digest_size=8).hexdigest()


def _key(config: DatasetConfig, kind: type) -> str:
    """Of an entry; the same CSV may be a table of boxes and one of labels."""
    read_from = config.model_dump(mode="json", include=READ_FROM)
    parts = [read_from, os.path.abspath(config.root), kind.__name__, _readers_version()]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def _pointer(tables: Path, key: str) -> dict[str, Any]:
    """What the pointer file says; empty where there is none, or a broken one."""
    try:
        content = json.loads((tables / f"{key}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def open_table(entry: Path, kind: type[Table]) -> tuple[Table, Faults]:
    """Map the columns of an entry into memory, read-only; raises `OSError`, `ValueError`, `KeyError` or `TypeError`
    where it is not what was stored."""
    meta: dict[str, Any] = json.loads((entry / "meta.json").read_bytes())
    if meta.pop("checksum") != _checksum_of(entry.name, meta):
        raise ValueError("meta.json is not what was stored")
    names = [*meta["columns"]]
    with ThreadPoolExecutor(4) as pool:
        for name, checksum in zip(names, pool.map(_checksum, [entry / f"{name}.npy" for name in names])):
            if checksum != meta["columns"][name]:
                raise ValueError(f"{name}.npy is not what was stored")
    columns: dict[str, Any] = {name: _map(entry / f"{name}.npy") for name in names}
    for name in {name.partition(".")[0] for name in names if "." in name}:
        columns[name] = Paths(columns.pop(f"{name}.text"), columns.pop(f"{name}.offsets"))
    texts = {"name": "", "root": meta["root"], **{k: tuple(meta[k]) for k in ("names", "ignored_names")}}
    faults = Faults(Counter(meta["counts"]), [Fault(*f) for f in meta["faults"]], notes=meta["notes"])
    return kind(**texts, **columns), faults


def _arrays(table: Table) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a table by the names of their files; those of a column of paths are `paths.text` and `paths.offsets`."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, column in vars(table).items():
        if isinstance(column, Paths):
            arrays |= {f"{name}.{part}": array for part, array in vars(column).items()}
        elif isinstance(column, np.ndarray):
            arrays[name] = column
    return arrays


def _checksum(file: Path) -> int:
    """CRC-32: some 2 GB a second, the twenty million boxes of a million images in a third of one."""
    return zlib.crc32(np.memmap(file, np.uint8, "r").data)


def _checksum_of(entry: str, meta: dict[str, Any]) -> int:
    """That of a meta.json; with the entry's name, so that none stands for another."""
    return zlib.crc32(json.dumps([entry, meta], sort_keys=True).encode())


def _map(file: Path) -> Any:
    try:
        return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except ValueError:  # an empty array cannot be mapped
        return np.load(file, allow_pickle=False)


def store_table(tables: Path, key: str, stamp: str, outside: list[str], table: Table, faults: Faults) -> None:
    """Write an entry aside, rename it to its place, then let the pointer name it."""
    tables.mkdir(parents=True, exist_ok=True)
    entry = tables / f"{key}-{stamp}"
    aside = temporary.make("table", tables)
    try:
        columns = _arrays(table)
        for name, column in columns.items():
            with open(aside / f"{name}.npy", "wb") as file:
                np.save(file, column, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        checksums = {name: _checksum(aside / f"{name}.npy") for name in columns}
        meta: dict[str, Any] = {"root": table.root, "names": table.names, "ignored_names": table.ignored_names}
        meta |= {"columns": checksums, "counts": faults.counts, "faults": faults.kept, "notes": faults.notes}
        meta = json.loads(json.dumps(meta))  # as it will be read
        write_text(aside / "meta.json", json.dumps({**meta, "checksum": _checksum_of(entry.name, meta)}))
        try:
            os.rename(aside, entry)
        except OSError:
            # another process stored the same files first, or an entry that is not whole is in the way
            try:
                open_table(entry, type(table))
            except (OSError, ValueError, KeyError, TypeError):
                os.rename(entry, f"{aside}-broken")
                os.rename(aside, entry)
        write_text(tables / f"{key}.json", json.dumps({"fingerprint": stamp, "outside": outside}))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _remove_superseded(tables, key, entry.name)


def _remove_superseded(tables: Path, key: str, current: str) -> None:
    limit = time.time() - KEEP_DAYS * 86400
    for old in tables.glob(f"{key}-*"):
        with suppress(OSError):
            if old.name != current and old.stat().st_mtime < limit:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
