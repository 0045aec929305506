"""How each rank ended, left in the store through which the ranks met, so that those that miss a rank can say why.

A store is torch's (`set`, `get`, `check`). Nothing is written or read before a rank ends or is missed.
"""

from __future__ import annotations

import time
from typing import Any

ANY = "ended"
"""Key of a store: some rank ended otherwise than in a wait for others."""
_WAITED = "waited"
_GONE = "the rank that holds the store (rank 0, or torchrun's agent) is gone"


def leave(store: Any, rank: int, text: str) -> bool:
    """Leave a message about this rank's end; False where the store is gone."""
    try:
        store.set(f"end/{rank}", text)
        if not text.startswith(_WAITED):
            store.set(ANY, str(rank))
    except (RuntimeError, AttributeError):
        return False
    return True


def of(error: BaseException) -> str:
    """Word of an end by an error."""
    return f"ended with {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def others(store: Any, rank: int) -> bool:
    """Whether another rank than this one has left word that it ended."""
    return bool(store.check([ANY])) and store.get(ANY).decode() != str(rank)


def ask(store: Any, rank: int, size: int, own: str, patience_s: float = 2.0) -> str:
    """What the other ranks say about their end.

    Args:
        own: what this rank waited in, "waited 5.0 s in ..."; ranks that say the same kind of thing are not to blame and left
            out.
        patience_s: time for the others to notice.
    """
    if not leave(store, rank, own):
        return _GONE
    ends: dict[int, str] = {}
    others = [r for r in range(size) if r != rank]
    until = time.monotonic() + patience_s
    try:
        while len(ends) < len(others) and time.monotonic() < until:
            ends |= {r: store.get(f"end/{r}").decode() for r in others if r not in ends and store.check([f"end/{r}"])}
            time.sleep(0.05)
    except RuntimeError:
        return _GONE
    to_blame = [f"rank {r} {ends.get(r, 'did not arrive')}" for r in others if not ends.get(r, "").startswith(_WAITED)]
    return "; ".join(to_blame or [f"rank {r} {text}" for r, text in ends.items()])


def who(store: Any, size: int) -> str:
    """How the ranks that have ended report their end."""
    try:
        return "; ".join(f"rank {r} {store.get(f'end/{r}').decode()}" for r in range(size) if store.check([f"end/{r}"]))
    except RuntimeError:
        return _GONE


def let_ask(store: Any, rank: int, size: int, patience_s: float = 3.0) -> None:
    """The rank that holds the store stays until the others have left word of their ends, or for so long: they ask it."""
    until = time.monotonic() + patience_s
    try:
        while time.monotonic() < until and not store.check([f"end/{r}" for r in range(size) if r != rank]):
            time.sleep(0.05)
    except RuntimeError:
        return
