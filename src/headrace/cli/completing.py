"""Shell completion: the code that a start-up file evaluates, and the answers to the Tab key."""

import argparse

import argcomplete
from argcomplete.shell_integration import shellcode


def completion(arguments: argparse.Namespace) -> int:
    """Print the shell code that lets the shell complete `headrace` commands and options."""
    print(shellcode(["headrace"], shell=arguments.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell's request for completions and exit, without running a command."""
    argcomplete.autocomplete(parser, always_complete_options=False)
