"""The floors: a module imports from lower floors and its own package, never sideways or upward; read off the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "errors": 0, "system": 0, "structures": 0, "distributed": 0, "seeding": 0, "config": 0,
    "data": 1, "losses": 1, "optim": 1, "metrics": 1, "reporting": 1,
    "models": 2, "tasks": 3, "checkpoint": 3, "engine": 4, "commands": 5, "cli": 6, "__main__": 7, "__init__": 0,
}  # fmt: skip
NO_TORCH = ("config", "errors", "system")


def modules(top: str) -> list[Path]:
    return sorted((ROOT / top).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted module, line) of every import in a file, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((a.name, node.lineno) for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno}: write absolute imports"
            if node.module == "ddptrain":
                yield from ((f"ddptrain.{a.name}", node.lineno) for a in node.names if not a.name.startswith("__"))
            else:
                yield node.module, node.lineno


def room(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("path", modules("ddptrain"), ids=lambda p: str(p.relative_to(ROOT)))
def test_floors(path: Path) -> None:
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert own in FLOORS, f"{own}: give it a floor here and in the plan"
    for name, line in imports(path):
        if name.split(".")[0] == "launch":
            assert FLOORS[own] >= 5, f"{path}:{line}: only the command line reaches launch"
        if name.split(".")[0] != "ddptrain" or room(name) in (own, "__init__"):
            continue
        other = room(name)
        assert FLOORS[other] < FLOORS[own] or FLOORS[own] == FLOORS[other] == 0, f"{path}:{line}: {own} must not import {other}"


def test_launch_reaches_only_the_config() -> None:
    for path in modules("launch"):
        for name, line in imports(path):
            if name.split(".")[0] == "ddptrain":
                assert room(name) in (*NO_TORCH, "__init__"), f"{path}:{line}: launch imports config only"


def test_one_file_talks_to_torch_distributed() -> None:
    users = {str(p.relative_to(ROOT)) for p in modules("ddptrain") for n, _ in imports(p) if n.startswith("torch.distributed")}
    assert {str(Path(user).parent) for user in users} == {"ddptrain/distributed"}


@pytest.mark.parametrize(
    "path",
    [p for n in NO_TORCH for p in modules("ddptrain") if n in p.relative_to(ROOT).as_posix().replace(".py", "").split("/")],
)
def test_config_is_free_of_torch(path: Path) -> None:
    assert not [n for n, _ in imports(path) if n.split(".")[0] in ("torch", "cv2", "torchvision", "numpy")]


@pytest.mark.parametrize("path", modules("ddptrain") + modules("launch"), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_hold_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 330, "a file past 300 lines is usually two ideas"


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by bare name, so that helpers beside them can be imported."""
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({n for n in names if names.count(n) > 1}) == []
