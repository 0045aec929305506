"""Where the best checkpoints of a run are when it is resumed: a save may have been cut off before its links, and a run may
have gone back to before its best."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ddptrain.checkpoint.files import path_of, step_of
from ddptrain.checkpoint.load import Checkpoint, load_checkpoint
from ddptrain.errors import UserError


def link_of(name: str, first: str) -> str:
    """The name of the link to the best checkpoint by a metric; `first` is the one that `best.pt` follows."""
    return "best.pt" if name == first else f"best_{name}.pt"


def find_bests(checkpoint: Checkpoint, first: str) -> tuple[dict[str, Path], list[str]]:
    """Find the checkpoint of each best value in the state of a checkpoint, in the folder that it lies in.

    A value whose checkpoint is gone is taken out of the state, so that the next evaluation is the best.

    Returns:
        The paths, by the metrics' names; and a line about each value that is dropped.
    """
    state, lines = checkpoint.state, []
    found: dict[str, Path] = {}
    state["best_steps"] = steps = dict(state.get("best_steps", {}))
    folder = checkpoint.path.parent.parent if checkpoint.path.parent.name == "aside" else checkpoint.path.parent
    for name in list(state["bests"]):
        link = link_of(name, first)
        if (best := _find(checkpoint, folder, link, name)) is not None:
            found[name], steps[name] = best.path, _step(best)  # older checkpoints do not know the step
            continue
        steps.pop(name, None)
        lines.append(
            f"{folder} has no {link} of step {checkpoint.step} or before: the best {name} so far, "
            f"{state['bests'].pop(name):.4g}, is forgotten, and the next evaluation will count as the best"
        )
    return found, lines


def _find(checkpoint: Checkpoint, folder: Path, link: str, name: str) -> Checkpoint | None:
    """The best checkpoint by a metric, undamaged."""
    step, value = checkpoint.state["best_steps"].get(name), checkpoint.state["bests"][name]
    left = checkpoint.path.parent != folder  # what lies in its folder may be of another course, with the same steps
    for path in _candidates(folder, link, step):
        best = None
        with suppress(UserError):
            best = load_checkpoint(path)
        if best is None or (_step(best) != step if step is not None else best.step > checkpoint.step):
            continue
        if not left or best.state["bests"].get(name) == value:
            return best
    return None


def _step(best: Checkpoint) -> int:
    """Its step as its name says, since steps may have been recounted; a copy in place of a link has no step in its name."""
    return step_of(best.path) if best.path.name.startswith("step_") else best.step


def _candidates(folder: Path, link: str, step: int | None) -> Iterator[Path]:
    yield folder / link
    if step is not None:
        yield path_of(folder, step)
        yield from sorted(folder.glob(f"aside/{path_of(folder, step).stem}*.pt"))
