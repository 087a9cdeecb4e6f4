"""The command line as a page of Markdown, generated from the parser so that both always agree."""

import argparse
from collections.abc import Iterator


def reference(parser: argparse.ArgumentParser) -> str:
    """Return a section for each command: its purpose, its usage, and a table of its options."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return "\n".join(_sections(commands))


def _sections(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", before: str = "") -> Iterator[str]:
    for name, command in commands.choices.items():
        inner = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
        if not inner:
            yield _section(before + name, command)
        for more in inner:
            yield from _sections(more, f"{before}{name} ")


def _section(name: str, command: argparse.ArgumentParser) -> str:
    usage = " ".join(command.format_usage().removeprefix("usage: ").split())
    rows = "\n".join(_rows(command))
    return f"## {name}\n\n{command.description}\n\n```text\n{usage}\n```\n\n| Option | |\n| --- | --- |\n{rows}\n"


def _rows(command: argparse.ArgumentParser) -> Iterator[str]:
    for action in command._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        names = ", ".join(action.option_strings)
        value = "" if action.nargs == 0 else str(action.metavar or "|".join(action.choices or [action.dest.upper()]))
        about = (action.help or "") % {"default": action.default}
        cells = (f"`{' '.join(filter(None, (names, value)))}`", about[:1].upper() + about[1:])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
