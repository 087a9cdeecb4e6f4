"""Register of curves: imports the `curve.py` of each program folder that has it."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

from headrace.programs import SHIPPED
from headrace.programs.quoting import Curve


def _find() -> dict[str, Curve]:
    """Import the `curve.py` of each program folder that has it."""
    names = sorted(path.parent.name for path in SHIPPED.glob("*/curve.py"))
    return {name: import_module(f"headrace.programs.{name}.curve").CURVE for name in names}


CURVES: Final[Mapping[str, Curve]] = MappingProxyType(_find())
"""Curves by program name. A venue has the name of its program."""
