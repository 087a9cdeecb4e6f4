"""Registers map a name to "module:Class"; the class is imported when it is first asked for."""

from importlib import import_module
from typing import Any


def load(target: str) -> Any:
    """The class (or function) that `module:Name` names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
