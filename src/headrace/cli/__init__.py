"""The `headrace` command: parses arguments and calls the functions of other packages."""

from headrace.cli.main import main

__all__ = ["main"]
