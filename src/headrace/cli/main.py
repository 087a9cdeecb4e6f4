"""The `headrace` command: parses arguments, imports the command's module, and calls its function."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from headrace.cli.arguments import parser
from headrace.model.errors import ConfigError, HeadraceError

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_NO_READER: Final = 141
"""Exit code that a shell reports for SIGPIPE: the reader of the output has closed it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Return the process exit code, one of the EXIT_ constants."""
    commands = parser()
    if "_ARGCOMPLETE" in os.environ:  # set by the shell when it asks for completions
        importlib.import_module("headrace.cli.completing").complete(commands)
    arguments = commands.parse_args(argv)
    try:
        module, _, function = arguments.run.partition(":")
        run: Callable[[Any], int] = getattr(importlib.import_module(f"headrace.cli.{module}"), function)
        status = run(arguments)
        sys.stdout.flush()  # raises here, not when the interpreter ends, if the reader has gone
        return status
    except ConfigError as error:
        return _failed(EXIT_USAGE, *getattr(error, "errors", (error,)))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discards the buffered output without an error
        return EXIT_NO_READER
    except HeadraceError as error:
        return _failed(EXIT_FAILED, error)
    except OSError as error:
        return _failed(EXIT_FAILED, f"{error.filename}: {error.strerror}" if error.filename else error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _failed(status: int, *messages: object) -> int:
    for message in messages:
        print(f"headrace: {message}", file=sys.stderr)
    return status
