"""The config as a page of the documentation: every key in Markdown, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ddptrain.config.aliases import VALUES, aliases_of
from ddptrain.config.docs import allowed_values
from ddptrain.config.places import names_of, of_tasks, sections_in
from ddptrain.config.section import documentation
from ddptrain.config.tasks import OWN, every_run
from ddptrain.config.text import dump_inline

Places = Mapping[str, type[BaseModel]]
"""By task, the section that stands at one place of its config."""


def reference() -> str:
    """Every key with its values, default, tasks and text, below a heading for each section; a key has an anchor of its path."""
    return "\n".join(_section(every_run(), "", "Top level", "One whole run.", "top")) + "\n"


def _section(places: Places, path: str, title: str, text: str, anchor: str) -> Iterator[str]:
    """A heading, the keys of the section, and then the sections below it."""
    yield f"\n## {title} {{ #{anchor} }}\n\n{_escaped(text)}"
    below: list[tuple[str, Mapping[str, list[type[BaseModel]]], str]] = []
    for key in dict.fromkeys(key for section in places.values() for key in section.model_fields):
        fields = {task: section.model_fields[key] for task, section in places.items() if key in section.model_fields}
        inner = {task: sections for task, field in fields.items() if (sections := sections_in(field.annotation))}
        only = "" if set(places) - set(fields) <= {OWN} else f"Only for {of_tasks(list(fields))}. "
        about = only + " ".join(documentation(places[next(iter(fields))], key).split())
        if inner:
            below.append((key, inner, about))
        else:
            yield from _key(path, key, fields, about, f"{anchor}." if path else "")
    for key, sections_below, about in below:
        yield from _below(f"{path}{key}", sections_below, about)


def _below(path: str, inner: Mapping[str, list[type[BaseModel]]], text: str) -> Iterator[str]:
    """A section, or each of those among which a name chooses."""
    if all(len(sections) == 1 for sections in inner.values()):
        if path == "data.val":
            yield f"\n## {path} {{ #{path} }}\n\n{_escaped(text)} The keys are those of [data.train](#data.train)."
        else:
            yield from _section({task: section for task, (section,) in inner.items()}, f"{path}.", path, text, path)
        return
    kinds: dict[type[BaseModel], list[str]] = {}  # with the tasks in which they can stand here
    for task, sections in inner.items():
        for section in sections:
            kinds.setdefault(section, []).append(task)
    for section, tasks in kinds.items():
        first, *others = names_of(section) or ("",)
        of_task = f"For {of_tasks(tasks)}." if set(tasks) != {OWN} else "For a task of your own."
        title = f"{path}: {first}{' …' * bool(others)}"
        yield from _section(
            dict.fromkeys(tasks, section),
            f"{path}.",
            title,
            f"{of_task} {section.__doc__}",
            f"{path}.{first or section.__name__}",
        )


def _key(path: str, key: str, fields: Mapping[str, FieldInfo], text: str, anchor: str) -> Iterator[str]:
    """An item of a definition list."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for task, field in fields.items():
        default = "must be given" if field.is_required() else f"default `{_default(field)}`"
        kinds.setdefault((allowed_values(field, VALUES.get(path + key, {})), default), []).append(task)
    each = [
        (f"{of_tasks(tasks)}: " if len(kinds) > 1 else "") + f"`{values}`, {default}"
        for (values, default), tasks in kinds.items()
    ]
    other = "".join(f" Another name of it is `{name}`." for name in aliases_of(path + key))
    yield f'\n<a id="{anchor}{key}"></a>**{key}**: {"; ".join(each)}\n:   {_escaped(text)}{other}'


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    return dump_inline(list(value) if isinstance(value, tuple) else value)


def _escaped(text: str) -> str:
    """Running text in which nothing outside of code means something to Markdown."""
    parts = text.split("`")
    marks = str.maketrans({mark: f"\\{mark}" for mark in "*_[]<"})
    return "`".join(part if i % 2 else part.translate(marks) for i, part in enumerate(parts))
