"""Better-known names of keys and values, which are accepted beside the canonical ones; a resolved config has the latter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS: Mapping[str, str] = {
    "data.augment.close_mosaic": "close_epochs",
    "schedule.lrf": "final",
    "train.global_batch_size": "global_batch",
    "train.micro_batch_size": "micro_batch",
}
"""By the dotted alias, the canonical key of the same section."""
VALUES: Mapping[str, Mapping[str, str]] = {
    "schedule.name": {"one_cycle_lr": "one_cycle_3"},
    "train.precision": {"fp32": "none"},
}
"""By the dotted key, the canonical value of each alias."""

SWITCHES: Mapping[str, tuple[str, str]] = {"monitor.tensorboard": ("trackers", "tensorboard")}
"""By a dotted alias that is true or false: a list of the same section, and the entry that it puts in, or takes out."""
LISTS: Mapping[str, tuple[str, ...]] = {"optimizer.betas": ("momentum", "beta2")}
"""By a dotted alias whose value is a list: the keys of the same section that its entries set."""
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def concerned_keys(key: str) -> list[str]:
    """The canonical keys that a dotted key, or an alias, sets."""
    names = (SWITCHES[key][0],) if key in SWITCHES else LISTS.get(key)
    return [canonical_key(key)] if names is None else [f"{key.rpartition('.')[0]}.{name}" for name in names]


def spread(alias: str, values: Any) -> dict[str, Any]:
    """The canonical dotted keys that an alias of `LISTS` sets, with their values; raises `ValueError` for another number."""
    keys = concerned_keys(alias)
    if not isinstance(values, list) or len(values) != len(keys):
        raise ValueError(f"{alias}: must be a list of {len(keys)}, the values of {' and '.join(keys)}, not {values!r}")
    return dict(zip(keys, values))


def canonical_key(key: str) -> str:
    """A dotted key, its canonical name for an alias."""
    return f"{key.rpartition('.')[0]}.{KEYS[key]}" if key in KEYS else key


def aliases_of(key: str) -> list[str]:
    """The other names of a dotted key, without its section."""
    return [alias.rpartition(".")[2] for alias in KEYS if canonical_key(alias) == key]


def spell_out(data: Any) -> Any:
    """A config with canonical keys and values in the place of aliases; changes `data`.

    Raises:
        ValueError: a key is given by two names, or a switch is not true or false.
    """
    for alias, key in KEYS.items():
        *path, last = alias.split(".")
        section = _section(data, path)
        if last in section:
            if key in section:
                raise ValueError(f"{alias}: another name of {canonical_key(alias)}, which is also given; remove one of them")
            section[key] = section.pop(last)
    for alias in LISTS:
        *path, last = alias.split(".")
        section = _section(data, path)
        if last in section:
            for key, value in spread(alias, section.pop(last)).items():
                if (name := key.rpartition(".")[2]) in section:
                    raise ValueError(f"{alias}: sets {key}, which is also given; remove one of them")
                section[name] = value
    for alias, (key, entry) in SWITCHES.items():
        *path, last = alias.split(".")
        section = _section(data, path)
        if last in section:
            given = section.pop(last)
            value = _WORDS.get(str(given).lower())
            if value is None:
                raise ValueError(f"{alias}: must be true or false, not {given!r}")
            entries = section.get(key, [entry])
            if isinstance(entries, list):
                section[key] = [
                    *(e for e in entries if value or e != entry),
                    *([entry] if value and entry not in entries else []),
                ]
    for name, canonical in VALUES.items():
        *path, last = name.split(".")
        section = _section(data, path)
        if isinstance(section.get(last), str):
            section[last] = canonical.get(section[last], section[last])
    return data


def _section(data: Any, path: list[str]) -> dict[str, Any]:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}
