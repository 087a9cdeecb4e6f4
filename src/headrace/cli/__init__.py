"""The `headrace` command: parses arguments and calls."""

from headrace.cli.main import main

__all__ = ["main"]
