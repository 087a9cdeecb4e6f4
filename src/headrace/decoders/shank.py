"""Discriminators of a Shank program's accounts: the value of their first field, which is an enum."""

import re
from collections.abc import Mapping
from typing import Any

from headrace.decoders import shapes
from headrace.decoders.shapes import Struct

_WIDTHS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


def is_shank(document: Mapping[str, Any]) -> bool:
    """Return whether Shank wrote this IDL. In that case its accounts have no discriminator before their fields."""
    metadata = document.get("metadata")
    if isinstance(metadata, dict) and metadata.get("origin") == "shank":
        return True
    instructions = document.get("instructions")
    entries = instructions if isinstance(instructions, list) else []
    return any(isinstance(each, dict) and "discriminant" in each for each in entries)


def discriminant(given: object) -> list[object] | None:
    """Return the bytes of an instruction's `discriminant`; None if there is none."""
    if not isinstance(given, dict):
        return None
    value, width = given.get("value"), _WIDTHS.get(str(given.get("type")), 1)
    if isinstance(value, int) and 0 <= value < 1 << 8 * width:
        return list(value.to_bytes(width, "little"))
    return value if isinstance(value, list) else [value]


def holds(shape: Struct, mark: bytes) -> bool:
    """Return whether `mark` is the value of the first field, not bytes before it."""
    if not shape.fields:
        return False
    first = shape.fields[0].shape
    if isinstance(first, shapes.Enum):
        return first.floor == len(mark) and int.from_bytes(mark, "little") < len(first.variants)
    if isinstance(first, shapes.Array):
        return isinstance(first.item, shapes.Scalar) and first.size == len(mark)
    return isinstance(first, shapes.Scalar) and first.size == len(mark)


def own_mark(name: str, shape: Struct) -> bytes | None:
    """Return the byte that marks account `name`: its index in the enum of the first field.

    None if it is not certain.
    """
    first = shape.fields[0].shape if shape.fields else None
    if not isinstance(first, shapes.Enum):
        return None
    wanted = _plain(name)
    names = [_plain(variant.name) for variant in first.variants]
    found = [at for at, each in enumerate(names) if each == wanted]
    if not found:
        found = [at for at, each in enumerate(names) if re.fullmatch(f"{re.escape(wanted)}v[0-9]+", each)]
    return found[0].to_bytes(first.floor, "little") if len(found) == 1 else None


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
