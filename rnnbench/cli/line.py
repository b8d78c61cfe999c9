"""From the words of a command line to their Namespace. Wrong ones are told in one sentence, with what would work."""

from __future__ import annotations

import argparse
import shlex

from rnnbench import spelling
from rnnbench.cli.parser import Parser, build
from rnnbench.cli.values import UsageError


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line as a Namespace whose `command` names a module of rnnbench.cli. Raises UsageError."""
    parser, commands = build()
    if not argv:
        parser.print_help()
        raise SystemExit(0)
    if not argv[0].startswith("-") and argv[0] not in commands:
        raise UsageError(spelling.unknown("command", argv[0], commands))
    if argv[0].startswith("-") and not any(option.startswith(argv[0].partition("=")[0]) for option in _options(parser)):
        raise UsageError(_misplaced(argv[0].partition("=")[0], _options(parser), commands))
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        command, asked = commands[arguments.command], arguments.command
        if command._subparsers is not None:
            asked = f"{asked} {arguments.task}"
            command = command._subparsers._group_actions[0].choices[arguments.task]  # type: ignore[index,assignment]
        options = _options(command)
        if "--cells" in options and not unknown[0].startswith("-"):
            raise UsageError(
                f"{asked} does not take {unknown[0]!r}; if it is a cell, write --cells {shlex.quote(unknown[0])}"
            )
        raise UsageError(
            f"{asked} does not take {unknown[0]!r}; {spelling.did_you_mean(unknown[0], options)}see rnnbench {asked} --help"
        )
    return arguments


def _options(parser: Parser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]


def _misplaced(option: str, known: list[str], commands: dict[str, Parser]) -> str:
    """The sentence for a first word that is an option, but none of `known`, those that may be there."""
    of_a_command = any(option in _options(command) for command in commands.values())  # it is spelt well
    near = "" if of_a_command else spelling.did_you_mean(option, known)
    return f"rnnbench does not take {option!r}; {near}a command's options come after the command; see rnnbench --help"
