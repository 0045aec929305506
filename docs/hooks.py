"""What the documentation site takes from elsewhere: README and changelog as pages, and lists that are generated from the code.

A page asks for a list by a comment of its own line, such as `<!-- generated: keys -->`; on GitHub nothing stands there.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ddptrain
from ddptrain.commands.arguments import build_parser
from ddptrain.config.reference import reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Pages of the site that are files of the root."""
ERRORS = ("UserError", "RunFailed", "RankFailed")
ELSEWHERE = {"RunConfig": "config.run", "load_config": "config.load", "UserError": "errors", "RunFailed": "errors"}
"""Names of the Python API that are not in `ddptrain.api`."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages whose files lie in the root."""
    from mkdocs.structure.files import File

    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace('src="docs/', 'src="')
        files.append(File.generated(config, page, content=LINK.sub(_on_site, re.sub(r"\]\(docs/", "](", text))))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Fill in what is generated. A link that shows the name of a page's file shows its title, one to another file its text."""
    text = LINK.sub(_on_site, markdown if "/" in page.file.src_uri else markdown.replace("](../", "]("))
    titles = dict(_titles(config["nav"]))
    text = re.sub(r"\[(?:docs/)?([\w/]+\.md)\](?=\()", lambda link: f"[{titles.get(link[1], link[1])}]", text)
    return re.sub(r"^<!-- generated: (\w+) -->$", lambda match: LISTS[match[1]](), text, flags=re.MULTILINE)


def _titles(nav: list[Any]) -> Iterator[tuple[str, str]]:
    """Each page of the navigation with its title there."""
    for item in nav:
        for title, inside in item.items():
            yield from _titles(inside) if isinstance(inside, list) else [(inside, title)]


LINK = re.compile(r"\[([^\]\n]+)\]\(([\w./-]+)\)")


def _on_site(link: re.Match[str]) -> str:
    text, target = link.groups()
    page = next((page for page, source in PAGES.items() if source == target), None)
    if page:
        return f"[{text}]({page})"
    return (
        text
        if (ROOT / target).exists() and not target.startswith("docs/") and not (ROOT / "docs" / target).exists()
        else link[0]
    )


def keys() -> str:
    """Every key of the config; pages that a text names are links."""
    return re.sub(r"docs/([\w\\]+)\.md", lambda page: f"[{page[0]}]({page[1]}.md)".replace("\\", ""), reference())


def commands() -> str:
    """Every command with its arguments, as `--help` prints them."""
    os.environ["COLUMNS"] = "100"
    choices = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    about = {action.dest: action.help for action in choices._choices_actions}
    return "\n".join(
        f"## {name}\n\n{about[name]}\n\n```text\n{parser.format_help()}```\n" for name, parser in choices.choices.items()
    )


def python() -> str:
    """The names of the package with their docstrings, then the parts that docs/api.md lists as usable alone."""
    names = [name for name in ddptrain.__all__ if not name.startswith("_")]
    whole = [f"ddptrain.{ELSEWHERE.get(name, 'api')}.{name}" for name in names]
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    imports = re.findall(r"^from (ddptrain[\w.]*) import ([\w, ]+)", page.split("## Parts")[1], re.MULTILINE)
    parts = [_defined(module, name.strip()) for module, found in imports for name in found.split(",")]
    lines = [f"::: {name}" + ("\n    options: {members: false}\n" * name.endswith(".RunConfig")) for name in whole + parts]
    return "\n\n".join(lines)


def _defined(module: str, name: str) -> str:
    """Where a name is defined that a package only passes on."""
    init = ROOT / module.replace(".", "/") / "__init__.py"
    for node in ast.parse(init.read_text(encoding="utf-8")).body if init.exists() else ():
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return f"{node.module}.{name}"
    return f"{module}.{name}"


def messages() -> str:
    """Every message with which a command ends, by the folder of the code that it comes from."""
    parts: dict[str, list[str]] = {}
    for path in (path for top in ("ddptrain", "launch") for path in sorted((ROOT / top).rglob("*.py"))):
        found = list(messages_of(path))
        parts.setdefault(path.parent.relative_to(ROOT).as_posix(), []).extend(found)
    lines = []
    for folder, found in parts.items():
        if found:
            lines += [f"\n### `{folder}`\n", *(f"* `{message}`" for message in sorted(set(found)))]
    return "\n".join(lines)


def messages_of(path: Path) -> Iterator[str]:
    """The texts of the errors that a file raises, with `…` where something is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in _raised(path) and node.args:
            text = " ".join(_template(node.args[0]).split())
            if len(text.replace("…", "").strip(" :;,()")) > 8:  # else all of it comes from elsewhere
                yield text


def _raised(path: Path) -> tuple[str, ...]:
    # in the config a ValueError is a message, too
    return (*ERRORS, "ValueError") if "config" in path.parts else ERRORS


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value).replace("`", "")
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _template(node.left) + _template(node.right)
    return "…"


LISTS = {"keys": keys, "commands": commands, "python": python, "messages": messages}
"""By the name in the comment of a page."""
