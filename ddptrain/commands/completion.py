"""`ddptrain completion`: scripts that let a shell complete commands, options, and the keys of `key=value`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

from ddptrain.commands.arguments import build_parser
from ddptrain.config.places import keys_of, sections_in
from ddptrain.config.tasks import every_run

SHELLS = ("bash", "zsh", "fish")


class Command(NamedTuple):
    """What can follow a command: options, the values of those that have a fixed choice, and whether keys of a config can."""

    help: str
    options: list[str]
    choices: dict[str, list[str]]
    words: list[str]
    keys: bool


def print_completion(shell: str) -> int:
    """Print the script of a shell."""
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](), end="")
    return 0


def commands() -> dict[str, Command]:
    """Every command by its name."""
    parser = build_parser()
    (sub,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    texts = {choice.dest: choice.help or "" for choice in sub._choices_actions}
    return {name: _command(p, texts.get(name, "")) for name, p in sub.choices.items()}


def _command(parser: argparse.ArgumentParser, text: str) -> Command:
    options: list[str] = []
    choices: dict[str, list[str]] = {}
    words: list[str] = []
    for action in parser._actions:
        values = [str(v) for v in action.choices or ()]
        options += action.option_strings
        choices |= {option: values for option in action.option_strings if values}
        words += [] if action.option_strings else values
    return Command(text, options, choices, words, any(action.dest == "overrides" for action in parser._actions))


def keys() -> list[str]:
    """The keys of all tasks that an override can set."""
    every = {key for run in every_run().values() for key, places in keys_of(run).items() if not _has_keys(places)}
    return sorted(key for key in every if not key.startswith(("data.train.", "data.val.")))


def _has_keys(places: Any) -> bool:
    return any(sections_in(field.annotation) for _, field in places)


def _bash() -> str:
    every = commands()
    return "\n".join(
        [
            '# eval "$(ddptrain completion bash)"',
            "_ddptrain() {",
            "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= words= keys= i",
            "  for ((i = 1; i < COMP_CWORD; i++)); do",
            "    [[ ${COMP_WORDS[i]} != -* ]] && { command=${COMP_WORDS[i]}; break; }",
            "  done",
            f"  local all_keys='{' '.join(f'{key}=' for key in keys())}'",
            "  case $command in",
            f"    '') words='{' '.join(every)} --help --version' ;;",
            *_bash_cases(every),
            "  esac",
            '  COMPREPLY=($(compgen -W "$words $keys" -- "$cur"))',
            "  # a key stands before its value, without a space",
            "  if [[ ${COMPREPLY[0]-} == *= ]]; then compopt -o nospace 2>/dev/null; fi",
            "}",
            "complete -o default -F _ddptrain ddptrain",
            "",
        ]
    )


def _bash_cases(every: dict[str, Command]) -> Iterator[str]:
    for name, command in every.items():
        yield f"    {name})"
        yield f"      words='{' '.join([*command.words, *command.options])}'"
        if command.keys:
            yield "      [[ -n $cur && $cur != -* ]] && keys=$all_keys"
        if command.choices:
            yield "      case $prev in"
            for option, values in command.choices.items():
                yield f"        {option}) words='{' '.join(values)}' keys= ;;"
            yield "      esac"
        yield "      ;;"


def _zsh() -> str:
    return '# eval "$(ddptrain completion zsh)"\nautoload -U +X bashcompinit && bashcompinit\n' + _bash()


def _fish() -> str:
    lines = ["# ddptrain completion fish | source"]
    for name, command in commands().items():
        lines.append(f"complete -c ddptrain -n __fish_use_subcommand -f -a {name} -d {_quoted(command.help)}")
        seen = f"complete -c ddptrain -n '__fish_seen_subcommand_from {name}'"
        for option in command.options:
            kind = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            values = f" -x -a {_quoted(' '.join(command.choices[option]))}" if option in command.choices else ""
            lines.append(f"{seen} {kind}{values}")
        if command.words:
            lines.append(f"{seen} -f -a {_quoted(' '.join(command.words))}")
        if command.keys:
            lines.append(f"{seen} -a {_quoted(' '.join(f'{key}=' for key in keys()))}")
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
