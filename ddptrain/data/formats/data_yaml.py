"""What describes a YOLO set: a data.yaml as Ultralytics has it, or Darknet's obj.data (CVAT's "YOLO 1.1")."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddptrain.config.text import parse_yaml
from ddptrain.data.formats.texts import listed_names
from ddptrain.errors import UserError
from ddptrain.system.printable import counted

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Each split and the keys that may name it."""


@dataclass(frozen=True)
class DataYaml:
    """A data.yaml or obj.data.

    Attributes:
        file: where it stands.
        base: what its paths are relative to.
        names: of its classes, None where it has none.
        splits: the folders or list files of each split.
        content: all of it.
        first: the number that label files have for the first class.
        points: number of key points of a row and numbers of each (2, or 3 with visibility); None where rows have none.
    """

    file: Path
    base: Path
    names: tuple[str, ...] | None
    splits: dict[str, tuple[str, ...]]
    content: dict[str, Any]
    first: int = 0
    points: tuple[int, int] | None = None


def load_data_yaml(file: Path) -> DataYaml:
    """Parse a data.yaml; `UserError` where `nc` and `names` contradict each other or a value has no known form."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{file}: not valid YAML: it is not in UTF-8; save it as UTF-8") from None
    except OSError as e:
        raise UserError(f"{file}: cannot be read: {e.strerror}") from e
    content = parse_yaml(text, str(file))
    if not isinstance(content, dict):
        raise UserError(f"{file}: must be a mapping with train, val and names")
    # names as they are written: `no`, `007` and `1.50` are names, not a switch and numbers
    names, first = _names(file, parse_yaml(text, str(file), typed=False).get("names") if content.get("names") else None)
    count = content.get("nc")
    if count is not None and (_whole(count) is None or not _whole(count)):
        raise UserError(f"{file}: nc is {count!r}; it must be an integer ≥ 1, the number of classes")
    if names is not None and count is not None and _whole(count) != len(names):
        raise UserError(f"{file}: nc is {count} and names has {counted(len(names), 'class', 'classes')}; correct one of them")
    splits = {}
    for split, keys in SPLITS.items():
        given = [k for k in keys if content.get(k)]
        if len(given) > 1:
            raise UserError(f"{file}: {given[0]} and {given[1]} name the same split; keep one of them")
        for key in given:
            parts = content[key] if isinstance(content[key], list) else [content[key]]
            if not all(isinstance(p, str) for p in parts):
                raise UserError(f"{file}: {key} must be a path or a list of paths")
            splits[split] = tuple(parts)
    base = file.parent / str(content.get("path") or "")
    return DataYaml(file, base, names, splits, content, first, _key_points(file, content.get("kpt_shape")))


def _names(file: Path, given: Any) -> tuple[tuple[str, ...] | None, int]:
    """Class names as they are written, and the number of the first."""
    if given is None:
        return None, 0
    first = 0
    if isinstance(given, dict):
        if not all(key.strip().isdecimal() for key in given):
            raise UserError(f"{file}: names must be a list, or a mapping from number to name")
        numbers = {int(key): name for key, name in given.items()}
        first = 1 if min(numbers) == 1 else 0
        if sorted(numbers) != list(range(first, first + len(given))):
            raise UserError(
                f"{file}: names must number its classes 0 to {len(given) - 1}, or 1 to {len(given)}, without a gap; it has"
                f" {', '.join(given)}"
            )
        given = [numbers[i] for i in sorted(numbers)]
    if not isinstance(given, list):
        raise UserError(f"{file}: names must be a list, or a mapping from number to name")
    for number, name in enumerate(given, first):
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{file}: names: class {number} has no name; write it as text, in quotes if need be")
    return tuple(name.strip() for name in given), first


def _whole(value: Any) -> int | None:
    """An integer ≥ 0, also one in quotes; None for anything else."""
    return int(value) if (type(value) is int and value >= 0) or (isinstance(value, str) and value.isdecimal()) else None


def _key_points(file: Path, given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    numbers = [_whole(v) for v in given] if isinstance(given, list) else []
    if len(numbers) != 2 or not numbers[0] or numbers[1] not in (2, 3):
        raise UserError(f"{file}: kpt_shape is {given!r}; it must be [number of key points, 2 or 3], such as [17, 3]")
    return numbers[0], numbers[1]


def load_obj_data(file: Path) -> DataYaml:
    """Parse an obj.data: `key = value` lines, of which `names`, `train`, `valid` and `test` are files."""
    lines = [(entry.partition("="), where) for entry, where in listed_names(file) if not entry.startswith("#")]
    content = {key.strip(): value.strip() for (key, _, value), _ in lines}
    wrong = next((where for (_, sign, _), where in lines if not sign), None)
    if wrong is not None:
        raise UserError(f"{wrong}: must be key = value, such as train = train.txt")
    splits: dict[str, tuple[str, ...]] = {
        split: (content[key],) for split, keys in SPLITS.items() for key in keys if content.get(key)
    }
    data = DataYaml(file, file.parent, None, splits, dict(content))
    if not content.get("names"):
        return data
    (listed,) = resolve_paths(data, "names", [content["names"]])
    names, count = tuple(entry for entry, _ in listed_names(listed)), content.get("classes")
    if count is not None and _whole(count) != len(names):
        raise UserError(f"{file}: classes is {count} and {listed} has {len(names)}; correct one of them")
    return replace(data, names=names)


def resolve_split(data: DataYaml, key: str) -> list[Path]:
    """The folders or list files of a split."""
    return resolve_paths(data, key, data.splits[key])


def resolve_paths(data: DataYaml, key: str, entries: Iterable[str]) -> list[Path]:
    """Paths of a data.yaml. `path` and the entries may be relative to the data.yaml's folder or to `path`; an export by
    Roboflow writes `../train/images` for `train/images`, one by CVAT `data/train.txt` for `train.txt`; both are tried
    last."""
    paths = []
    for entry in entries:
        plain = entry.replace("\\", "/")
        stripped = [plain.removeprefix(p) for p in ("../", "data/") if plain.startswith(p)]
        tried = [base / e for e in (entry, plain, *stripped) for base in (data.base, data.file.parent)]
        existing = [p for p in tried if p.exists()]
        if not existing:
            raise UserError(f"{data.file}: {key}: {tried[0]} does not exist; correct {key} or path")
        paths.append(existing[0])
    return paths
