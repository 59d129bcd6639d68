"""The command line: `forearm COMMAND key=value …`.

A command is a function of what was typed, in commands/, that calls what Python users call. This module imports nothing
heavy: `forearm --help` answers at once, and recording's spawned workers import it too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches

from .commands import COMMANDS, PROG, Command
from .console import Interrupts, enduring_output, terminable
from .errors import UserError
from .version import __version__


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS.values()]
    return "\n".join(
        [
            f"usage: {PROG} [--plugin FILE] COMMAND [key=value ...] [--multirun]",
            "",
            "Plans robot-arm actions by imagination.",
            "",
            *lines,
            "",
            f"{PROG} COMMAND --help shows what is set most often, --help=all every key; {PROG} --version the version.",
            "--plugin FILE imports parts of your own; --multirun runs once for each of key=A,B.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit code: 0, 2 for what the user can mend, 130 after Ctrl-C or SIGTERM."""
    interrupts = Interrupts()
    with enduring_output(), interrupts.watched(), terminable():
        return _main(list(sys.argv[1:] if arguments is None else arguments), interrupts)


def _main(arguments: list[str], interrupts: Interrupts) -> int:
    try:
        arguments = _with_plugins(arguments)
        if not arguments or arguments[0] in ("-h", "--help", "--help=all", "help"):
            print(usage())
            return 0
        if arguments[0] == "--version":
            print(f"{PROG} {__version__}")
            return 0
        command, words = _command(arguments)
        from .requirements import outdated_named

        with outdated_named():
            return run(command, words)
    except KeyboardInterrupt as interrupt:
        return _stopped(str(interrupt))
    except UserError as error:
        print(f"{PROG}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Exception:
        if not interrupts.came:
            raise
        return _stopped()


def run(command: Command, words: Sequence[str]) -> int:
    """Runs a command with what was typed after it. UserError for whatever is wrong with that."""
    flags = [word for word in words if word.startswith("-")]
    rest = [word for word in words if not word.startswith("-")]
    for flag in flags:
        if flag not in (known := ("-h", "--help", "--help=all", "-m", "--multirun")):
            raise UserError(f"{flag} is unknown; choose one of: {', '.join(known)}, or key=value")
    module = command.load()
    if any(flag.startswith(("-h", "--help")) for flag in flags):
        from .commands.help import command_help

        print(command_help(command, everything="--help=all" in flags))
        return 0
    if flags:
        from .commands.multirun import multirun

        return multirun(command, rest, run)
    from .commands.overrides import parse

    return module.run(parse(getattr(module, "words", list)(rest), module.SETTINGS)) or 0


def _with_plugins(arguments: list[str]) -> list[str]:
    """What is left of the arguments when plug-ins are taken note of."""
    if not any(word.partition("=")[0] == "--plugin" for word in arguments):
        return arguments
    from .registry import add_plugin

    rest, plugin = [], False
    for word in arguments:
        if plugin or word.startswith("--plugin="):
            add_plugin(word.removeprefix("--plugin="))
            plugin = False
        elif word == "--plugin":
            plugin = True
        else:
            rest.append(word)
    if plugin:
        raise UserError("--plugin: give a file or a module, such as --plugin my_parts.py")
    return rest


def _command(arguments: list[str]) -> tuple[Command, list[str]]:
    """The command that arguments begin with, and the rest of them."""
    name, rest = arguments[0], arguments[1:]
    if rest and f"{name} {rest[0]}" in COMMANDS:
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name not in COMMANDS:
        near = get_close_matches(" ".join(arguments[:2]), COMMANDS, 1) or get_close_matches(name, COMMANDS, 1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise UserError(f"unknown command '{name}'{hint} Commands: {', '.join(COMMANDS)}")
    return COMMANDS[name], rest


def _stopped(how: str = "") -> int:
    print(f"\n{PROG}: stopped; {how or 'to go on, run the same command again'}", file=sys.stderr)
    return 130


if __name__ == "__main__":
    sys.exit(main())
