"""The plan of the house, read off the code: floors, no circles, rooms without torch, sizes. Each test lists all breaches."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "errors": 0, "version": 0, "system": 0, "structures": 0, "distributed": 0, "seeding": 0, "config": 0,
    "data": 1, "losses": 1, "optim": 1, "metrics": 1, "reporting": 1,
    "models": 2, "tasks": 3, "checkpoint": 3, "engine": 4, "commands": 5, "cli": 6, "api": 6, "__main__": 7, "__init__": 8,
}  # fmt: skip
NO_TORCH = ("config", "errors", "system")
FILE_LINES, FUNCTION_LINES, WHOLE_CONFIGS = 300, 60, 20


class Module(NamedTuple):
    name: str
    path: Path
    tree: ast.Module
    lines: int
    imports: list[tuple[str, int]]  # dotted names, of modules or of what is in them, and lines

    @property
    def room(self) -> str:
        return room(self.name)

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


def room(dotted: str) -> str:
    return (*dotted.split("."), "__init__")[1]


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Of a whole file, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.name, node.lineno) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((f"{module}.{a.name}", node.lineno) for a in node.names)


@cache
def modules() -> dict[str, Module]:
    """Those of ddptrain/ and launch/ by their dotted names; a package is named like its folder."""
    read = {}
    for path in sorted(path for top in ("ddptrain", "launch") for path in (ROOT / top).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        read[name] = Module(name, path, tree, len(text.splitlines()), list(imports(tree)))
    return read


def module_of(name: str) -> str | None:
    """The module of this code base that an import reaches: `a.b` for `from a.b import c`, `a.b.c` where that is a module."""
    return next((n for n in (name, name.rpartition(".")[0]) if n in modules()), None)


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(module.tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def none(breaches: list[str]) -> None:
    if breaches:
        pytest.fail("\n".join(breaches), pytrace=False)


def test_a_module_imports_from_lower_floors_and_its_own_room() -> None:
    breaches = []
    for module in modules().values():
        for name, line in module.imports:
            top, other = name.split(".")[0], room(module_of(name) or "")
            if name.startswith("."):
                breaches.append(f"{module.at(line)}: write absolute imports")
            elif module.name.startswith("launch"):
                if top == "ddptrain" and other not in (*NO_TORCH, "__init__"):
                    breaches.append(f"{module.at(line)}: launch imports only {', '.join(NO_TORCH)}, not {other}")
            elif top == "launch" and FLOORS[module.room] < FLOORS["commands"]:
                breaches.append(f"{module.at(line)}: only commands and what is above them reach launch")
            elif top == "ddptrain" and module.name != "ddptrain" and other not in (module.room, "__init__"):
                below, own = FLOORS[other], FLOORS[module.room]
                if not (below < own or below == own == 0):
                    breaches.append(f"{module.at(line)}: {module.room} (floor {own}) imports {other} (floor {below})")
    none(breaches)


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {m.name: {other for name, _ in m.imports if (other := module_of(name))} - {m.name} for m in modules().values()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        none([" ← ".join(e.args[1])])


def test_rooms_without_torch_import_neither_torch_nor_numpy() -> None:
    heavy = ("torch", "torchvision", "cv2", "numpy")
    light = [m for m in modules().values() if m.name.startswith("ddptrain") and m.room in NO_TORCH]
    none([f"{m.at(line)}: {name}" for m in light for name, line in m.imports if name.split(".")[0] in heavy])


def test_one_room_talks_to_torch_distributed() -> None:
    others = [m for m in modules().values() if m.name.startswith("ddptrain") and m.room != "distributed"]
    none([f"{m.at(line)}: {name}" for m in others for name, line in m.imports if name.startswith("torch.distributed")])


def test_files_and_functions_hold_one_idea() -> None:
    none(
        [f"{m.at(1)}: {m.lines} lines, more than {FILE_LINES}" for m in modules().values() if m.lines > FILE_LINES]
        + [
            f"{m.at(f.lineno)}: {f.name} has {f.end_lineno - f.lineno + 1} lines, more than {FUNCTION_LINES}"
            for m in modules().values()
            for f in functions(m)
            if f.end_lineno and f.end_lineno - f.lineno >= FUNCTION_LINES
        ]
    )


def test_a_function_takes_the_section_that_it_uses_not_the_whole_config() -> None:
    whole = [
        f"{m.at(f.lineno)}: {f.name}"
        for m in modules().values()
        for f in functions(m)
        for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)
        if a.annotation and "RunConfig" in ast.unparse(a.annotation)
    ]
    if len(whole) > WHOLE_CONFIGS:
        none([f"{len(whole)} functions take a whole RunConfig, more than {WHOLE_CONFIGS}:", *whole])


def test_every_package_says_what_is_inside() -> None:
    packages = [m for m in modules().values() if m.path.name == "__init__.py"]
    none([f"{m.at(1)}: no docstring" for m in packages if len(ast.get_docstring(m.tree) or "") < 10])
