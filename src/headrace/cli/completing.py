"""Completion in shells: what a start-up file evaluates, and the answers when somebody presses Tab."""

import argparse

import argcomplete
from argcomplete.shell_integration import shellcode


def completion(arguments: argparse.Namespace) -> int:
    """Print the shell code that has `headrace` complete its commands and options."""
    print(shellcode(["headrace"], shell=arguments.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and exit, without running a command."""
    argcomplete.autocomplete(parser, always_complete_options=False)
