"""Find the curve of every program folder that has one."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

from headrace.programs import SHIPPED
from headrace.programs.quoting import Curve


def _find() -> dict[str, Curve]:
    """Import `curve.py` of each folder that has one."""
    names = sorted(path.parent.name for path in SHIPPED.glob("*/curve.py"))
    return {name: import_module(f"headrace.programs.{name}.curve").CURVE for name in names}


CURVES: Final[Mapping[str, Curve]] = MappingProxyType(_find())
"""Program → curve. A venue has its program's name."""
